// madvise, mincore, mlock and msync.

#include <linux/mman.h>

#include "guest/memory/address_space.h"

namespace dbos {
namespace {

constexpr int kDontNeedLocked = 24;  // MADV_DONTNEED_LOCKED, Linux 5.18

constexpr bool is_known(int advice) {
  switch (advice) {
    case MADV_NORMAL:
    case MADV_RANDOM:
    case MADV_SEQUENTIAL:
    case MADV_WILLNEED:
    case MADV_DONTNEED:
    case kDontNeedLocked:
    case MADV_FREE:
    case MADV_REMOVE:
    case MADV_DONTFORK:
    case MADV_DOFORK:
    case MADV_MERGEABLE:
    case MADV_UNMERGEABLE:
    case MADV_HUGEPAGE:
    case MADV_NOHUGEPAGE:
    case MADV_DONTDUMP:
    case MADV_DODUMP:
    case MADV_WIPEONFORK:
    case MADV_KEEPONFORK:
    case MADV_COLD:
    case MADV_PAGEOUT:
    case MADV_POPULATE_READ:
    case MADV_POPULATE_WRITE:
      return true;
    default:
      return false;
  }
}

constexpr bool discards(int advice) {
  return advice == MADV_DONTNEED || advice == kDontNeedLocked || advice == MADV_FREE ||
         advice == MADV_REMOVE;
}

}  // namespace

// ---- madvise ----

Result<void> AddressSpace::advise(VirtualAddress address, u64 length, int advice,
                                  VirtualAddress* end) {
  if (end != nullptr) *end = address;
  if (!is_known(advice)) return Error(EINVAL);
  if (!is_aligned(address.value(), kPageSize)) return Error(EINVAL);
  const u64 size = align_up(length, kPageSize);
  if (length != 0 && size == 0) return Error(EINVAL);
  VirtualRange range{address, address + size};
  if (range.end < range.begin) return Error(EINVAL);
  if (size == 0) return {};

  if (advice == MADV_POPULATE_READ || advice == MADV_POPULATE_WRITE) {
    const Access access = advice == MADV_POPULATE_READ ? Access::kRead : Access::kWrite;
    switch (populate(address, size, access)) {
      case FaultKind::kResolved:
        return {};
      case FaultKind::kNoAccess:
        return Error(EINVAL);
      case FaultKind::kBusError:
        return Error(EFAULT);
      default:
        return Error(ENOMEM);
    }
  }

  bool has_hole = kProgramTablesEnd < range.end;
  if (has_hole) range.end = kProgramTablesEnd;
  while (range.begin < range.end) {
    VirtualRange stretch = discards(advice) ? first_stretch(range) : range;
    const Result<void> result = advise_stretch(stretch, advice, has_hole);
    if (end != nullptr) *end = stretch.begin;
    DBOS_RETURN_IF_ERROR(result);
    range.begin = stretch.end;
  }
  return has_hole ? Result<void>(Error(ENOMEM)) : Result<void>();
}

// As in Linux, other calls may see a part of it done.
Result<void> AddressSpace::advise_stretch(VirtualRange& range, int advice, bool& has_hole) {
  DroppedWindows dropped;
  LockGuard guard(lock_);
  TlbBatch batch(*this, *line_, pins_);
  VirtualAddress at = range.begin;
  Result<void> result;
  while (at < range.end) {
    Vma* vma = vmas_.find_ending_after(at);
    if (vma == nullptr || vma->begin() >= range.end) {
      has_hole = true;
      break;
    }
    if (at < vma->begin()) {
      has_hole = true;
      at = vma->begin();
    }
    const VirtualRange piece = vma->range.intersect({at, range.end});
    result = advise_vma(vma, piece, advice, batch);
    if (result.is_error()) break;
    at = piece.end;
  }
  merge_range(range, dropped);
  range.begin = result.is_error() ? at : range.end;
  return result;
}

Result<void> AddressSpace::advise_vma(Vma* vma, VirtualRange range, int advice, TlbBatch& batch) {
  const bool is_locked = vma->has(VmaFlag::kLocked);
  const VmaFlags nothing;
  switch (advice) {
    case MADV_DONTNEED:
      return is_locked ? Error(EINVAL) : discard(range, batch);
    case kDontNeedLocked:
      return discard(range, batch);
    case MADV_FREE:  // may read as zero at once
      if (!vma->is_anonymous() || is_locked) return Error(EINVAL);
      return discard(range, batch);
    case MADV_REMOVE:
      if (is_locked || vma->is_anonymous()) return Error(EINVAL);
      if (!vma->is_shared() || !vma->protection.may_write()) return Error(EACCES);
      return discard(range, batch);
    case MADV_COLD:
    case MADV_PAGEOUT:
      return is_locked ? Result<void>(Error(EINVAL)) : Result<void>();
    case MADV_NORMAL:
      return change_flags(vma, range, VmaFlag::kRandom | VmaFlag::kSequential, nothing);
    case MADV_RANDOM:
      return change_flags(vma, range, VmaFlag::kSequential, VmaFlag::kRandom);
    case MADV_SEQUENTIAL:
      return change_flags(vma, range, VmaFlag::kRandom, VmaFlag::kSequential);
    case MADV_DONTFORK:
      return change_flags(vma, range, nothing, VmaFlag::kDontFork);
    case MADV_DOFORK:
      return change_flags(vma, range, VmaFlag::kDontFork, nothing);
    case MADV_WIPEONFORK:
      if (!vma->is_anonymous()) return Error(EINVAL);
      return change_flags(vma, range, nothing, VmaFlag::kWipeOnFork);
    case MADV_KEEPONFORK:
      return change_flags(vma, range, VmaFlag::kWipeOnFork, nothing);
    case MADV_DONTDUMP:
      return change_flags(vma, range, nothing, VmaFlag::kDontDump);
    case MADV_DODUMP:
      return change_flags(vma, range, VmaFlag::kDontDump, nothing);
    case MADV_HUGEPAGE:
      return change_flags(vma, range, VmaFlag::kNoHugePage, VmaFlag::kHugePage);
    case MADV_NOHUGEPAGE:
      return change_flags(vma, range, VmaFlag::kHugePage, VmaFlag::kNoHugePage);
    default:
      return {};
  }
}

Result<void> AddressSpace::discard(VirtualRange range, TlbBatch& batch) {
  const PageTree::Clearing prepared = DBOS_TRY(tree_.prepare_clear(range, range, batch));
  note_peaks();
  tree_.clear(prepared, batch);
  return {};
}

// EAGAIN where Linux has no memory, or no vma left, to split one.
Result<void> AddressSpace::change_flags(Vma* vma, VirtualRange range, VmaFlags clear,
                                        VmaFlags set) {
  const VmaFlags wanted = vma->flags.without(clear) | set;
  if (vma->flags == wanted) return {};
  if (split_at(range).is_error()) return Error(EAGAIN);
  vmas_.set_flags(vmas_.find(range.begin), wanted);
  return {};
}

// ---- mincore ----

Result<void> AddressSpace::in_core(VirtualAddress address, u64 length, u8* present) {
  if (!is_aligned(address.value(), kPageSize)) return Error(EINVAL);
  if (!is_program_range(address, length)) return Error(ENOMEM);
  LockGuard guard(lock_);
  const VirtualAddress end = address + align_up(length, kPageSize);
  const Vma* vma = nullptr;
  for (VirtualAddress at = address; at < end; at = at + kPageSize) {
    if (vma == nullptr || !vma->range.contains(at)) vma = vmas_.find(at);
    if (vma == nullptr) return Error(ENOMEM);
    const Walk walk = tree_.find(at);
    present[(at - address) / kPageSize] = walk.entry.is_empty() ? 0 : 1;
  }
  return {};
}

// ---- mlock ----

Result<void> AddressSpace::lock_memory(VirtualAddress address, u64 length, int flags) {
  if ((flags & ~MLOCK_ONFAULT) != 0) return Error(EINVAL);
  const VirtualAddress begin(align_down(address.value(), kPageSize));
  const u64 size = align_up(length + (address - begin), kPageSize);
  DroppedWindows dropped;
  LockGuard guard(lock_);
  if (limits_.locked == 0) return Error(EPERM);
  u64 already = 0;
  const VirtualRange range{begin, begin + size};
  if (range.end < range.begin) return Error(EINVAL);
  for (const Vma* vma = vmas_.find_ending_after(begin); vma != nullptr && vma->begin() < range.end;
       vma = vma->next) {
    if (vma->has(VmaFlag::kLocked)) already += vma->range.intersect(range).size();
  }
  const u64 others = vmas_.locked_bytes() - already;
  if (limits_.locked < others || size > limits_.locked - others) return Error(ENOMEM);
  const VmaFlags set =
      flags == 0 ? VmaFlags(VmaFlag::kLocked) : VmaFlag::kLocked | VmaFlag::kLockOnFault;
  return change_lock(range, set, dropped);
}

Result<void> AddressSpace::unlock_memory(VirtualAddress address, u64 length) {
  const VirtualAddress begin(align_down(address.value(), kPageSize));
  const u64 size = align_up(length + (address - begin), kPageSize);
  const VirtualRange range{begin, begin + size};
  if (range.end < range.begin) return Error(EINVAL);
  DroppedWindows dropped;
  LockGuard guard(lock_);
  return change_lock(range, VmaFlags(), dropped);
}

// Up to the first hole, as Linux does.
Result<void> AddressSpace::change_lock(VirtualRange range, VmaFlags set, DroppedWindows& dropped) {
  VirtualAddress at = range.begin;
  Result<void> result;
  while (at < range.end) {
    const Vma* vma = vmas_.find(at);
    if (vma == nullptr) {
      result = Error(ENOMEM);
      break;
    }
    const VirtualRange piece = vma->range.intersect({at, range.end});
    const VmaFlags wanted = vma->flags.without(VmaFlag::kLocked | VmaFlag::kLockOnFault) | set;
    if (vma->flags != wanted) {
      result = split_at(piece);
      if (result.is_error()) break;
      vmas_.set_flags(vmas_.find(at), wanted);
    }
    at = piece.end;
  }
  merge_range(range, dropped);
  return result;
}

Result<void> AddressSpace::lock_all(int flags) {
  if (flags == 0 || (flags & ~(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT)) != 0 ||
      flags == MCL_ONFAULT) {
    return Error(EINVAL);
  }
  DroppedWindows dropped;
  LockGuard guard(lock_);
  if (limits_.locked == 0) return Error(EPERM);
  if ((flags & MCL_CURRENT) != 0 && vmas_.bytes() > limits_.locked) return Error(ENOMEM);
  const VmaFlags set = (flags & MCL_ONFAULT) == 0 ? VmaFlags(VmaFlag::kLocked)
                                                  : VmaFlag::kLocked | VmaFlag::kLockOnFault;
  future_flags_ = (flags & MCL_FUTURE) != 0 ? set : VmaFlags();
  if ((flags & MCL_CURRENT) == 0) return {};
  for (Vma* vma = vmas_.first(); vma != nullptr; vma = vma->next) {
    vmas_.set_flags(vma, vma->flags.without(VmaFlag::kLocked | VmaFlag::kLockOnFault) | set);
  }
  merge_range({VirtualAddress(0), VirtualAddress(kProgramEnd)}, dropped);
  return {};
}

Result<void> AddressSpace::unlock_all() {
  DroppedWindows dropped;
  LockGuard guard(lock_);
  future_flags_ = VmaFlags();
  for (Vma* vma = vmas_.first(); vma != nullptr; vma = vma->next) {
    vmas_.set_flags(vma, vma->flags.without(VmaFlag::kLocked | VmaFlag::kLockOnFault));
  }
  merge_range({VirtualAddress(0), VirtualAddress(kProgramEnd)}, dropped);
  return {};
}

// ---- msync ----

Result<void> AddressSpace::check_sync(VirtualAddress address, u64 length, int flags) {
  if ((flags & ~(MS_ASYNC | MS_INVALIDATE | MS_SYNC)) != 0) return Error(EINVAL);
  if (!is_aligned(address.value(), kPageSize)) return Error(EINVAL);
  if ((flags & MS_ASYNC) != 0 && (flags & MS_SYNC) != 0) return Error(EINVAL);
  const VirtualAddress end = address + align_up(length, kPageSize);
  if (end < address) return Error(ENOMEM);
  LockGuard guard(lock_);
  bool has_hole = false;
  for (VirtualAddress at = address; at < end;) {
    const Vma* vma = vmas_.find_ending_after(at);
    if (vma == nullptr) return Error(ENOMEM);
    if (at < vma->begin()) {
      has_hole = true;
      at = vma->begin();
      if (at >= end) break;
    }
    if ((flags & MS_INVALIDATE) != 0 && vma->has(VmaFlag::kLocked)) return Error(EBUSY);
    at = vma->end();
  }
  if (has_hole) return Error(ENOMEM);
  return {};
}

void AddressSpace::window_ranges(VirtualAddress* from, VirtualAddress end, WindowRanges* out) {
  LockGuard guard(lock_);
  const Vma* vma = vmas_.find_ending_after(*from);
  for (; vma != nullptr && vma->begin() < end; vma = vma->next) {
    if (vma->is_anonymous()) continue;
    if (out->count == WindowRanges::kMax) {
      *from = vma->begin();
      return;
    }
    const VirtualRange piece = vma->range.intersect({*from, end});
    WindowRange& range = out->ranges[out->count++];
    range.begin = piece.begin;
    range.address = vma->window_address(piece.begin);
    range.length = piece.size();
    range.window.hold(*vma->window);
  }
  *from = end;
}

}  // namespace dbos
