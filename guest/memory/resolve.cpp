// Buffers of host calls: the hot path of every proxied system call.

#include "guest/memory/address_space.h"

namespace dbos {

namespace {

// Collects segments, and lets neighbours become one.
class SegmentList {
 public:
  SegmentList(HostSegment* segments, u32 max) : segments_(segments), max_(max) {}
  bool has_room(PhysicalAddress address) const { return count_ < max_ || continues(address); }
  // There is room.
  void append(PhysicalAddress address, u64 length) {
    if (continues(address)) {
      segments_[count_ - 1].length += length;
    } else {
      segments_[count_++] = {address, length};
    }
  }
  u32 count() const { return count_; }

 private:
  bool continues(PhysicalAddress address) const {
    return count_ != 0 && segments_[count_ - 1].address + segments_[count_ - 1].length == address;
  }

  HostSegment* segments_;
  u32 max_;
  u32 count_ = 0;
};

// Whether handle_fault(), which is called without the lock, may make another try succeed.
bool needs_another_try(FaultKind kind) {
  return kind == FaultKind::kNeedsPopulate || kind == FaultKind::kOutOfMemory;
}

}  // namespace

ResolveOutcome AddressSpace::try_resolve(VirtualAddress address, u64 length, Access access,
                                         HostSegment* segments, u32 segments_max) {
  ResolveOutcome result{FaultKind::kResolved, 0, 0};
  SegmentList list(segments, segments_max);
  if (!is_program_range(address, length)) {
    // What lies below the end is still good.
    if (address.value() >= kProgramEnd) {
      result.kind = length == 0 ? FaultKind::kResolved : FaultKind::kNoMapping;
      return result;
    }
    length = kProgramEnd - address.value() + 1;  // the byte that is too much faults
  }
  LockGuard guard(lock_);
  TlbBatch batch(*this, *line_, pins_);
  while (result.bytes < length) {
    const VirtualAddress at = address + result.bytes;
    if (at.value() >= kProgramEnd) {
      result.kind = FaultKind::kNoMapping;
      break;
    }
    Walk walk = tree_.find(at);
    if (!walk.permits(access)) {
      SpareBlock none;
      const FaultOutcome fault = fault_locked(at, access, nullptr, none, batch);
      if (fault.kind != FaultKind::kResolved) {
        result.kind = fault.kind;
        break;
      }
      result.copied_pages += fault.copied;
      walk = tree_.find(at);
      DBOS_ASSERT(walk.permits(access));
    }
    // The host does not set what a processor would.
    if (access == Access::kWrite && !walk.entry.has(Pte::kDirty)) walk.slot->set(Pte::kDirty);
    const PhysicalAddress physical = walk.physical(at);
    const u64 in_leaf = span(walk.level) - (at.value() & (span(walk.level) - 1));
    const u64 bytes = in_leaf < length - result.bytes ? in_leaf : length - result.bytes;
    if (!list.has_room(physical)) break;
    // Only what the host is given: a window that is pinned stays open until the call is over.
    if (!is_arena(physical)) {
      if (!pins_.add_window(platform::current_vcpu(), vmas_.find(at)->window)) break;
    }
    list.append(physical, bytes);
    result.bytes += bytes;
  }
  if (result.bytes != 0 && !needs_another_try(result.kind)) {
    pins_.add(platform::current_vcpu(), {address, address + result.bytes}, access);
  }
  result.segment_count = list.count();
  return result;
}

ResolveOutcome AddressSpace::resolve_for_host(VirtualAddress address, u64 length, Access access,
                                              HostSegment* segments, u32 segments_max) {
  const u64 step = kResolvedMax - address.value() % kResolvedMax;
  if (length > kResolvedMax && length > step) length = step;
  FaultKind obstacle = FaultKind::kResolved;  // what lies behind `length`
  while (true) {
    ResolveOutcome result = try_resolve(address, length, access, segments, segments_max);
    if (result.copied_pages != 0) check_copy_limit(result.copied_pages);
    if (!needs_another_try(result.kind)) {
      if (result.kind == FaultKind::kResolved && result.bytes == length) result.kind = obstacle;
      return result;
    }
    // A page of a window that is not there yet, or one that no frame was left for, is handled like
    // a fault. Then everything is tried again, for what was ready may have changed meanwhile.
    const FaultKind kind = handle_fault(address + result.bytes, access);
    if (kind != FaultKind::kResolved) {
      obstacle = kind;
      length = result.bytes;
    }
  }
}

}  // namespace dbos
