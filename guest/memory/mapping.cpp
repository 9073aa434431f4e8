// mmap, munmap, mprotect and brk.

#include <linux/mman.h>

#include "guest/memory/address_space.h"

namespace dbos {
namespace {

// Where MAP_32BIT looks on x86-64.
constexpr VirtualAddress kLow32Begin{0x4000'0000};
constexpr VirtualAddress kLow32End{0x8000'0000};

constexpr VirtualRange range_of(VirtualAddress begin, u64 length) {
  return {begin, begin + length};
}

}  // namespace

// ---- mmap ----

Result<VirtualAddress> AddressSpace::map_anonymous(VirtualAddress hint, u64 length, int protection,
                                                   int flags, VmaName name) {
  DroppedWindows dropped;
  Vma description;
  description.protection = Protection(protection);
  description.name = name;
  if ((flags & MAP_GROWSDOWN) != 0) description.flags = description.flags | VmaFlag::kGrowsDown;
  if ((flags & MAP_STACK) != 0) description.flags = description.flags | VmaFlag::kNoHugePage;
  LockGuard guard(lock_);
  return map(hint, length, flags, description, dropped);
}

Result<VirtualAddress> AddressSpace::map_window(VirtualAddress hint, u64 length, int protection,
                                                int flags, const WindowMapping& mapping) {
  DroppedWindows dropped;
  Vma description;
  description.protection = Protection(protection);
  description.kind = mapping.is_shared ? VmaKind::kWindowShared : VmaKind::kWindowPrivate;
  description.window = mapping.object;
  description.window_offset = mapping.offset;
  if (!mapping.may_write && mapping.is_shared) {
    if (description.protection.may_write()) return Error(EACCES);
    description.flags = description.flags | VmaFlag::kMayNotWrite;
  }
  if (!mapping.may_execute) {
    if (description.protection.may_execute()) return Error(EPERM);
    description.flags = description.flags | VmaFlag::kMayNotExecute;
  }
  DBOS_ASSERT(align_up(length, kPageSize) <= mapping.object->length() - mapping.offset);
  LockGuard guard(lock_);
  return map(hint, length, flags, description, dropped);
}

Result<VirtualAddress> AddressSpace::find_free(VirtualAddress hint, u64 length) {
  LockGuard guard(lock_);
  return place(hint, align_up(length, kPageSize), 0);
}

Result<VirtualAddress> AddressSpace::map(VirtualAddress hint, u64 length, int flags,
                                         Vma description, DroppedWindows& dropped) {
  if (length == 0) return Error(EINVAL);
  length = align_up(length, kPageSize);
  if (length == 0 || vmas_.count() > memory_options().vma_count_max) return Error(ENOMEM);
  const VirtualAddress address = DBOS_TRY(place(hint, length, flags));
  const VirtualRange range = range_of(address, length);
  const bool is_free = vmas_.is_free(range);
  if (!is_free && (flags & MAP_FIXED_NOREPLACE) != 0) return Error(EEXIST);

  if ((flags & MAP_NORESERVE) != 0) description.flags = description.flags | VmaFlag::kNoReserve;
  if ((flags & MAP_LOCKED) != 0) {
    if (limits_.locked == 0) return Error(EPERM);
    description.flags = description.flags | VmaFlag::kLocked;
  }
  description.flags = description.flags | future_flags_;
  if (description.has(VmaFlag::kLocked) && vmas_.locked_bytes() + length > limits_.locked) {
    return Error(EAGAIN);
  }
  u64 replaced = 0;
  if (!is_free) {
    for (Vma* vma = vmas_.find_ending_after(address); vma != nullptr && vma->begin() < range.end;
         vma = vma->next) {
      replaced += vma->range.intersect(range).size();
    }
  }
  if (!may_grow_by(length - replaced)) return Error(ENOMEM);
  if (description.is_data() && !may_grow_data_by(length - replaced)) return Error(ENOMEM);
  if (!is_free) {
    TlbBatch batch(*this, *line_, pins_);
    DBOS_RETURN_IF_ERROR(unmap_range(range, batch, dropped));
  }
  description.range = range;
  Vma* vma = DBOS_TRY(insert_vma(description));
  merge_around(vma, dropped);
  return address;
}

// Where a mapping goes. Linux's get_unmapped_area(), with the order of its checks.
Result<VirtualAddress> AddressSpace::place(VirtualAddress hint, u64 length, int flags) const {
  if (length > kProgramEnd) return Error(ENOMEM);
  if ((flags & (MAP_FIXED | MAP_FIXED_NOREPLACE)) != 0) {
    if (hint.value() > kProgramEnd - length) return Error(ENOMEM);
    if (!is_aligned(hint.value(), kPageSize)) return Error(EINVAL);
    if (hint < kLowestAddress) return Error(EPERM);
    return hint;
  }
  VirtualAddress wanted(align_down(hint.value(), kPageSize));
  if (wanted.value() != 0) {
    if (wanted < kLowestAddress) wanted = kLowestAddress;
    const u64 limit = (flags & MAP_32BIT) != 0 ? kLow32End.value() : kProgramEnd;
    if (length <= limit && wanted.value() <= limit - length) {
      const Vma* vma = vmas_.find_ending_after(wanted);
      if (vma == nullptr || wanted + length <= VmaTree::guarded_begin(*vma)) return wanted;
    }
  }
  if ((flags & MAP_32BIT) != 0) return vmas_.find_gap_bottom_up(length, kLow32Begin, kLow32End);
  return find_gap(length);
}

Result<VirtualAddress> AddressSpace::find_gap(u64 length) const {
  const Result<VirtualAddress> found = vmas_.find_gap_top_down(length, kLowestAddress, mmap_base_);
  if (found.is_ok()) return found;
  const VirtualAddress bottom(align_down(kProgramEnd / 3, kPageSize));  // TASK_UNMAPPED_BASE
  return vmas_.find_gap_bottom_up(length, bottom, VirtualAddress(kProgramEnd));
}

bool AddressSpace::may_grow_by(u64 bytes) const {
  return bytes <= limits_.address_space && vmas_.bytes() <= limits_.address_space - bytes;
}

// Whether `bytes` of the vma may have this protection: RLIMIT_DATA counts what becomes writable.
bool AddressSpace::may_become(const Vma& vma, Protection wanted, u64 bytes) const {
  Vma changed = vma;
  changed.protection = wanted;
  return vma.is_data() || !changed.is_data() || may_grow_data_by(bytes);
}

// Walks the vmas, but hardly a program has such a limit.
bool AddressSpace::may_grow_data_by(u64 bytes) const {
  if (limits_.data == kUnlimited) return true;
  u64 total = bytes;
  const Vma* vma = vmas_.find_ending_after(VirtualAddress(0));
  for (; vma != nullptr; vma = vma->next) {
    if (vma->is_data()) total += vma->size();
  }
  return total <= limits_.data;
}

// ---- Vmas ----

Result<Vma*> AddressSpace::insert_vma(const Vma& description) {
  Vma* vma = heap_new<Vma>(description);
  if (vma == nullptr) return Error(ENOMEM);
  if (vma->window != nullptr) vma->window->add_reference();
  vmas_.insert(vma);
  return vma;
}

void AddressSpace::remove_vma(Vma* vma, DroppedWindows& dropped) {
  vmas_.remove(vma);
  if (vma->window != nullptr) dropped.drop_reference(vma->window);
  heap_delete(vma);
}

// The vma keeps what is below `at`; returns the other one.
Result<Vma*> AddressSpace::split_vma(Vma* vma, VirtualAddress at, CountLimit limit) {
  if (limit == CountLimit::kKept && vmas_.count() >= memory_options().vma_count_max)
    return Error(ENOMEM);
  Vma upper = *vma;
  upper.range.begin = at;
  if (upper.window != nullptr) upper.window_offset += at - vma->begin();
  Vma* added = heap_new<Vma>(upper);
  if (added == nullptr) return Error(ENOMEM);
  if (added->window != nullptr) added->window->add_reference();
  vmas_.set_range(vma, {vma->begin(), at});
  vmas_.insert(added);
  return added;
}

Result<void> AddressSpace::split_at(VirtualRange range, CountLimit limit) {
  for (const VirtualAddress at : {range.begin, range.end}) {
    Vma* vma = vmas_.find(at);
    if (vma != nullptr && vma->begin() < at) {
      static_cast<void>(DBOS_TRY(split_vma(vma, at, limit)));
    }
  }
  return {};
}

// Merges with both neighbours where that is possible; returns the vma that `vma` became.
Vma* AddressSpace::merge_around(Vma* vma, DroppedWindows& dropped) {
  if (vma->previous != nullptr && vma->previous->can_merge(*vma)) {
    vma = vma->previous;
    absorb_next(vma, dropped);
  }
  if (vma->next != nullptr && vma->can_merge(*vma->next)) absorb_next(vma, dropped);
  return vma;
}

void AddressSpace::absorb_next(Vma* vma, DroppedWindows& dropped) {
  const VirtualAddress end = vma->next->end();
  remove_vma(vma->next, dropped);
  vmas_.set_range(vma, {vma->begin(), end});
}

// Merges what split_at() and a change of the vmas in the range left.
void AddressSpace::merge_range(VirtualRange range, DroppedWindows& dropped) {
  Vma* vma = vmas_.find_ending_after(range.begin);
  while (vma != nullptr && vma->begin() <= range.end) {
    vma = merge_around(vma, dropped);
    vma = vma->next;
  }
}

// The range between the vmas around `range`, whose own vmas are about to go.
VirtualRange AddressSpace::freeable_around(VirtualRange range) const {
  const Vma* before = vmas_.find_beginning_before(range.begin);
  const Vma* after = vmas_.find_ending_after(range.end);
  return {before == nullptr ? VirtualAddress(0) : before->end(),
          after == nullptr ? VirtualAddress(kProgramEnd + kPageSize) : after->begin()};
}

// ---- munmap ----

Result<void> AddressSpace::unmap(VirtualAddress address, u64 length) {
  if (!is_aligned(address.value(), kPageSize) || !is_program_range(address, length)) {
    return Error(EINVAL);
  }
  length = align_up(length, kPageSize);
  if (length == 0) return Error(EINVAL);
  DroppedWindows dropped;
  LockGuard guard(lock_);
  TlbBatch batch(*this, *line_, pins_);
  return unmap_range(range_of(address, length), batch, dropped);
}

Result<PageTree::Clearing> AddressSpace::prepare_unmap(VirtualRange range, TlbBatch& batch) {
  DBOS_RETURN_IF_ERROR(split_at(range, CountLimit::kExceeded));
  return tree_.prepare_clear(range, freeable_around(range), batch);
}

// After an error nothing is unmapped.
Result<void> AddressSpace::unmap_range(VirtualRange range, TlbBatch& batch,
                                       DroppedWindows& dropped) {
  if (vmas_.is_free(range)) return {};
  // A hole in a vma makes two of it; while it is made there are three.
  const Vma* around = vmas_.find(range.begin);
  if (around != nullptr && around->begin() < range.begin && range.end < around->end() &&
      vmas_.count() >= memory_options().vma_count_max) {
    return Error(ENOMEM);
  }
  const Result<PageTree::Clearing> prepared = prepare_unmap(range, batch);
  if (prepared.is_error()) {
    merge_range(range, dropped);
    return prepared.error();
  }
  note_peaks();
  tree_.clear(prepared.value(), batch);
  Vma* vma = vmas_.find_ending_after(range.begin);
  while (vma != nullptr && vma->begin() < range.end) {
    Vma* next = vma->next;
    remove_vma(vma, dropped);
    vma = next;
  }
  return {};
}

// ---- mprotect ----

Result<void> AddressSpace::protect(VirtualAddress address, u64 length, int protection) {
  const int growth = protection & (PROT_GROWSDOWN | PROT_GROWSUP);
  if (growth == (PROT_GROWSDOWN | PROT_GROWSUP)) return Error(EINVAL);
  if (!is_aligned(address.value(), kPageSize)) return Error(EINVAL);
  if (length == 0) return {};
  length = align_up(length, kPageSize);
  VirtualRange range = range_of(address, length);
  if (range.end <= range.begin) return Error(ENOMEM);
  protection &= ~growth;
  if ((protection & ~(PROT_READ | PROT_WRITE | PROT_EXEC | PROT_SEM)) != 0) return Error(EINVAL);

  DroppedWindows dropped;
  LockGuard guard(lock_);
  range.begin = DBOS_TRY(protect_begin(range, growth));
  TlbBatch batch(*this, *line_, pins_);
  VirtualAddress at = range.begin;
  Result<void> result;
  while (at < range.end) {
    Vma* vma = vmas_.find(at);
    if (vma == nullptr) {
      result = Error(ENOMEM);
      break;
    }
    const VirtualRange piece = vma->range.intersect({at, range.end});
    result = protect_piece(vma, piece, Protection(protection), batch);
    if (result.is_error()) break;
    at = piece.end;
  }
  merge_range({range.begin, at}, dropped);
  return result;
}

// Where the rights change from: PROT_GROWSDOWN means from where the stack begins.
Result<VirtualAddress> AddressSpace::protect_begin(VirtualRange range, int growth) const {
  const Vma* vma = vmas_.find_ending_after(range.begin);
  if (vma == nullptr) return Error(ENOMEM);
  if (growth == PROT_GROWSDOWN) {
    if (vma->begin() >= range.end) return Error(ENOMEM);
    if (!vma->has(VmaFlag::kGrowsDown)) return Error(EINVAL);
    return vma->begin();
  }
  if (range.begin < vma->begin()) return Error(ENOMEM);
  if (growth == PROT_GROWSUP) return Error(EINVAL);  // no mapping does
  return range.begin;
}

// What the limits count depends on the pieces before this one, so it is checked only now.
Result<void> AddressSpace::protect_piece(Vma* vma, VirtualRange piece, Protection wanted,
                                         TlbBatch& batch) {
  if ((wanted.may_write() && vma->has(VmaFlag::kMayNotWrite)) ||
      (wanted.may_execute() && vma->has(VmaFlag::kMayNotExecute))) {
    return Error(EACCES);
  }
  if (vma->protection == wanted) return {};
  if (!may_become(*vma, wanted, piece.size())) return Error(ENOMEM);
  DBOS_RETURN_IF_ERROR(split_at(piece));
  vma = vmas_.find(piece.begin);
  DBOS_RETURN_IF_ERROR(tree_.protect(piece, vma->protection, wanted, batch));
  vma->protection = wanted;
  return {};
}

// ---- brk ----

VirtualAddress AddressSpace::set_brk(VirtualAddress address) {
  DroppedWindows dropped;
  LockGuard guard(lock_);
  if (address < brk_start_ || address.value() > kProgramEnd) return brk_;
  if (address - brk_start_ > limits_.data) return brk_;
  const VirtualAddress new_end(align_up(address.value(), kPageSize));
  const VirtualAddress old_end(align_up(brk_.value(), kPageSize));
  if (new_end == old_end) {
    brk_ = address;
    return brk_;
  }
  if (new_end < old_end) {
    TlbBatch batch(*this, *line_, pins_);
    if (unmap_range({new_end, old_end}, batch, dropped).is_error()) return brk_;
    brk_ = address;
    return brk_;
  }
  const Vma* next = vmas_.find_ending_after(old_end);
  if (next != nullptr && new_end + kPageSize > VmaTree::guarded_begin(*next)) return brk_;
  Vma description;
  description.protection = Protection(PROT_READ | PROT_WRITE);
  description.name = VmaName::kHeap;
  const Result<VirtualAddress> mapped = map(
      old_end, new_end - old_end, MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, description, dropped);
  if (mapped.is_error()) return brk_;
  brk_ = address;
  return brk_;
}

}  // namespace dbos
