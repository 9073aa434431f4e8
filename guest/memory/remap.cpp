// mremap.

#include <linux/mman.h>

#include "guest/memory/address_space.h"

namespace dbos {
namespace {

// Whether the vma's window has `length` bytes from `address` on.
bool fits_window(const Vma& vma, VirtualAddress address, u64 length) {
  if (vma.window == nullptr) return true;
  return vma.window_offset + (address - vma.begin()) + length <= vma.window->length();
}

// Whether `longer` shows the same file from the vma's first byte on, and has so many bytes.
bool fits_longer(const LongerWindow* longer, const Vma& vma, VirtualAddress address, u64 length) {
  if (longer == nullptr || longer->of != vma.window) return false;
  if (vma.window_offset < longer->offset) return false;
  const u64 offset = vma.window_offset - longer->offset + (address - vma.begin());
  return offset + length <= longer->object->length();
}

}  // namespace

Result<VirtualAddress> AddressSpace::remap(VirtualAddress address, u64 old_length, u64 new_length,
                                           int flags, VirtualAddress new_address,
                                           const LongerWindow* longer) {
  const bool may_move = (flags & MREMAP_MAYMOVE) != 0;
  if ((flags & ~(MREMAP_FIXED | MREMAP_MAYMOVE | MREMAP_DONTUNMAP)) != 0) return Error(EINVAL);
  if ((flags & MREMAP_FIXED) != 0 && !may_move) return Error(EINVAL);
  if ((flags & MREMAP_DONTUNMAP) != 0 && (!may_move || old_length != new_length)) {
    return Error(EINVAL);
  }
  if (!is_aligned(address.value(), kPageSize)) return Error(EINVAL);
  old_length = align_up(old_length, kPageSize);
  new_length = align_up(new_length, kPageSize);
  if (new_length == 0) return Error(EINVAL);
  // Linux finds the ends of what is unmapped (EINVAL) or of what would be mapped (ENOMEM) outside.
  if (address.value() >= kProgramEnd) return Error(EFAULT);
  if (old_length > kProgramEnd - address.value()) {
    return Error(old_length >= new_length ? EINVAL : EFAULT);
  }
  if (new_length > kProgramEnd) return Error((flags & MREMAP_FIXED) != 0 ? EINVAL : ENOMEM);
  DroppedWindows dropped;
  LockGuard guard(lock_);
  return remap_locked(address, old_length, new_length, flags, new_address, longer, dropped);
}

Result<VirtualAddress> AddressSpace::remap_locked(VirtualAddress address, u64 old_length,
                                                  u64 new_length, int flags,
                                                  VirtualAddress new_address,
                                                  const LongerWindow* longer,
                                                  DroppedWindows& dropped) {
  if (vmas_.find(address) == nullptr) return Error(EFAULT);

  // 1. To a place of the caller's choice, or anywhere else.
  if ((flags & (MREMAP_FIXED | MREMAP_DONTUNMAP)) != 0) {
    return remap_to(address, old_length, new_length, flags, new_address, longer, dropped);
  }

  // 2. Shrinking, which may cut off other vmas than this one.
  if (old_length >= new_length) {
    if (old_length != new_length) {
      TlbBatch batch(*this, *line_, pins_);
      DBOS_RETURN_IF_ERROR(
          unmap_range({address + new_length, address + old_length}, batch, dropped));
    }
    return address;
  }

  // 3. Growing where it is.
  Vma* vma = DBOS_TRY(check_growth(address, old_length, new_length, longer));
  const VirtualAddress new_end = address + new_length;
  if (address + old_length == vma->end() && new_end.value() <= kProgramEnd &&
      vmas_.is_free({vma->end(), new_end})) {
    DBOS_RETURN_IF_ERROR(extend(vma, address, new_length, longer, dropped));
    return address;
  }

  // 4. Growing elsewhere.
  if ((flags & MREMAP_MAYMOVE) == 0) return Error(ENOMEM);
  new_address = DBOS_TRY(find_gap(new_length));
  return move_vma(vma, address, old_length, new_length, new_address, false, longer, dropped);
}

Result<VirtualAddress> AddressSpace::remap_to(VirtualAddress address, u64 old_length,
                                              u64 new_length, int flags, VirtualAddress new_address,
                                              const LongerWindow* longer, DroppedWindows& dropped) {
  const bool keep_old = (flags & MREMAP_DONTUNMAP) != 0;
  const bool is_fixed = (flags & MREMAP_FIXED) != 0;
  if (!is_aligned(new_address.value(), kPageSize)) return Error(EINVAL);
  if (new_address.value() > kProgramEnd - new_length) return Error(EINVAL);
  if (address + old_length > new_address && new_address + new_length > address) {
    return Error(EINVAL);
  }
  if (vmas_.count() + 2 >= memory_options().vma_count_max - 3) return Error(ENOMEM);
  // Whatever the host has to be asked for comes before the first change.
  const u64 kept = old_length < new_length ? old_length : new_length;
  Result<Vma*> vma = check_growth(address, kept, new_length, longer);
  if (vma.is_error() && vma.error() == Error(kWindowTooShort)) return vma.error();
  if (is_fixed) {
    if (new_address < kLowestAddress) return Error(EPERM);
    TlbBatch batch(*this, *line_, pins_);
    DBOS_RETURN_IF_ERROR(unmap_range({new_address, new_address + new_length}, batch, dropped));
  }
  if (old_length > new_length) {
    TlbBatch batch(*this, *line_, pins_);
    DBOS_RETURN_IF_ERROR(unmap_range({address + new_length, address + old_length}, batch, dropped));
    old_length = new_length;
  }
  Vma* source = DBOS_TRY(check_growth(address, old_length, new_length, longer));
  if (keep_old && !may_expand(*source, old_length)) return Error(ENOMEM);
  if (!is_fixed) new_address = DBOS_TRY(place(new_address, new_length, 0));
  return move_vma(source, address, old_length, new_length, new_address, keep_old, longer, dropped);
}

// Linux's may_expand_vm().
bool AddressSpace::may_expand(const Vma& vma, u64 bytes) const {
  return may_grow_by(bytes) && (!vma.is_data() || may_grow_data_by(bytes));
}

// Linux's vma_to_resize().
Result<Vma*> AddressSpace::check_growth(VirtualAddress address, u64 old_length, u64 new_length,
                                        const LongerWindow* longer) const {
  Vma* vma = vmas_.find(address);
  if (vma == nullptr) return Error(EFAULT);
  if (old_length == 0 && !vma->is_shared()) return Error(EINVAL);
  if (old_length > vma->end() - address) return Error(EFAULT);
  if (new_length == old_length) return vma;
  const u64 growth = new_length - old_length;
  if (vma->has(VmaFlag::kLocked) && vmas_.locked_bytes() + growth > limits_.locked) {
    return Error(EAGAIN);
  }
  if (!may_expand(*vma, growth)) return Error(ENOMEM);
  const bool is_charged =
      !vma->is_shared() && vma->protection.may_write() && !vma->has(VmaFlag::kNoReserve);
  if (is_charged && growth > limits_.at_once) return Error(ENOMEM);
  if (!fits_window(*vma, address, new_length) && !fits_longer(longer, *vma, address, new_length)) {
    return Error(kWindowTooShort);
  }
  return vma;
}

// Makes the vma end `new_length` bytes behind `address`. Where its window is too short, all of it
// shows the longer one from then on.
Result<void> AddressSpace::extend(Vma* vma, VirtualAddress address, u64 new_length,
                                  const LongerWindow* longer, DroppedWindows& dropped) {
  if (!fits_window(*vma, address, new_length)) {
    DBOS_RETURN_IF_ERROR(drop_window_pages(vma->range));
    dropped.drop_reference(vma->window);
    longer->object->add_reference();
    vma->window = longer->object;
    vma->window_offset -= longer->offset;
  }
  const VirtualAddress new_end = address + new_length;
  vmas_.set_range(vma, {vma->begin(), new_end});
  merge_around(vma, dropped);
  return {};
}

// To a free place. With `keep_old` the old vma stays, empty. Where the window is too short, what
// moves shows the longer one, and the rest of the vma the one that it had.
Result<VirtualAddress> AddressSpace::move_vma(Vma* vma, VirtualAddress address, u64 old_length,
                                              u64 new_length, VirtualAddress new_address,
                                              bool keep_old, const LongerWindow* longer,
                                              DroppedWindows& dropped) {
  if (vmas_.count() >= memory_options().vma_count_max - 3) return Error(ENOMEM);
  const VirtualRange source{address, address + old_length};
  const VirtualRange target{new_address, new_address + new_length};
  const bool changes_window = !fits_window(*vma, address, new_length);
  Vma moved = *vma;
  moved.range = target;
  if (moved.window != nullptr) moved.window_offset += address - vma->begin();
  if (changes_window) {
    moved.window = longer->object;
    moved.window_offset -= longer->offset;
  }

  // 1. All that can fail.
  Result<void> result = old_length == 0 ? Result<void>() : split_at(source);
  if (result.is_ok() && old_length != 0 && changes_window) result = drop_window_pages(source);
  if (result.is_ok() && insert_vma(moved).is_error()) result = Error(ENOMEM);
  if (result.is_ok() && old_length != 0) {
    result = move_pages(source, target, keep_old);
    if (result.is_error()) remove_vma(vmas_.find(target.begin), dropped);
  }
  if (result.is_error()) {
    merge_range(source, dropped);
    return result.error();
  }

  // 2. What can't. The peak does not count twice what has moved.
  if (old_length != 0) leave_behind(vmas_.find(address), keep_old, dropped);
  note_peaks();
  merge_range(target, dropped);
  return new_address;
}

// The pages that the range shows of windows. They come back by faults, from the window that their
// vma has then; so what fails halfway has changed nothing that the program sees.
Result<void> AddressSpace::drop_window_pages(VirtualRange range) {
  TlbBatch batch(*this, *line_, pins_);
  note_peaks();
  return tree_.clear_windows(range, batch);
}

// All or none, to where `target` begins. Neither is to be freed around: the vmas are there, at both
// places.
Result<void> AddressSpace::move_pages(VirtualRange source, VirtualRange target, bool keep_old) {
  TlbBatch batch(*this, *line_, pins_);
  const VirtualRange moved_to{target.begin, target.begin + source.size()};
  const VirtualRange freeable = keep_old ? source : freeable_around(source);
  const PageTree::Clearing left = DBOS_TRY(tree_.prepare_clear(source, freeable, batch));
  const PageTree::Clearing made =
      DBOS_TRY(tree_.prepare_clear(moved_to, freeable_around(target), batch));
  const Result<void> moved = tree_.move(source, target.begin, batch);
  if (moved.is_error()) {
    tree_.clear(made, batch);
    return moved;
  }
  if (!pins_.is_empty()) pins_.follow(source, target.begin);
  tree_.clear(left, batch);
  return {};
}

// The vma whose pages have moved stays, empty and not locked, or goes.
void AddressSpace::leave_behind(Vma* vma, bool keep_old, DroppedWindows& dropped) {
  if (keep_old) {
    vmas_.set_flags(vma, vma->flags.without(VmaFlag::kLocked | VmaFlag::kLockOnFault));
    merge_around(vma, dropped);
  } else {
    remove_vma(vma, dropped);
  }
}

}  // namespace dbos
