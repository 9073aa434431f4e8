// Taking a snapshot of an address space: fork() without the process.

#include "guest/memory/address_space.h"
#include "guest/snapshot/ready.h"

namespace dbos {

// Constant time but for the vmas, which are copied, and the pages that host calls in flight write
// to. A ready copy of the tables is taken where there is one, else the tables are shared. Nothing
// can fail halfway: a snapshot that can't be finished ends like any other.
Result<AddressSpace*> AddressSpace::snapshot() {
  LockGuard guard(lock_);
  if (line_->may_adopt()) {
    TlbBatch batch(*this, *line_, pins_);
    adopt(batch);
  }
  const Epoch previous_departure = line_->newest_departure();
  AddressSpace* child = ready_ == nullptr ? nullptr : ready_->take();
  const bool is_ready = child != nullptr;
  if (!is_ready) child = DBOS_TRY(create(tree_.root()));
  child->is_copy_ = false;
  line_depart(*child->line_, *line_, is_ready ? Tables::kOwn : Tables::kShared, copied_pages_);
  const Result<void> shared = share_with(*child, is_ready, previous_departure);
  if (shared.is_error()) {
    // With the lock: what was pinned and not copied yet must not be taken for the child's.
    destroy(child);
    return shared.error();
  }
  platform::counters().count(is_ready ? Counter::kSnapshotReady : Counter::kSnapshotShared);
  return child;
}

Result<void> AddressSpace::share_with(AddressSpace& child, bool is_ready,
                                      Epoch previous_departure) {
  LockGuard child_guard(child.lock_);
  // 1. Both roots lose their right to write ...
  tree_.seal();
  if (!is_ready) child.tree_.share(tree_);
  child.tree_.counts().anonymous = tree_.counts().anonymous;
  child.tree_.counts().window = tree_.counts().window;
  // 2. ... and from here on nobody writes to what is shared, but for the host.
  platform::shootdown(*this, {VirtualAddress(0), VirtualAddress(kProgramEnd)});
  return child.inherit(*this, previous_departure);
}

// With both locks.
Result<void> AddressSpace::inherit(AddressSpace& parent, Epoch previous_departure) {
  mmap_base_ = parent.mmap_base_;
  brk_start_ = parent.brk_start_;
  brk_ = parent.brk_;
  limits_ = parent.limits_;
  large_pages_ = parent.large_pages_;

  // 3. What host calls in flight write to is the parent's, and a copy is the snapshot's.
  Result<void> result;
  parent.pins_.for_each_written([&](VirtualRange range) {
    VirtualAddress at(align_down(range.begin.value(), kPageSize));
    while (at < range.end && result.is_ok()) {
      const Result<VirtualAddress> next =
          tree_.copy_pinned(parent.tree_, at, previous_departure, line_->departure());
      if (next.is_error()) result = next.error();
      if (next.is_ok()) at = next.value();
    }
  });
  if (result.is_error()) return result;

  // 4. The vmas. Locks are not inherited, nor is what MADV_DONTFORK and MADV_WIPEONFORK say.
  Vma* first = nullptr;
  Vma** link = &first;
  u32 count = 0;
  bool is_complete = true;
  for (const Vma* vma = parent.vmas_.first(); vma != nullptr; vma = vma->next) {
    if (vma->has(VmaFlag::kDontFork)) continue;
    Vma* copy = heap_new<Vma>(*vma);
    if (copy == nullptr) {
      is_complete = false;
      break;
    }
    copy->next = nullptr;
    copy->flags = vma->flags.without(VmaFlag::kLocked | VmaFlag::kLockOnFault);
    if (copy->window != nullptr) copy->window->add_reference();
    *link = copy;
    link = &copy->next;
    ++count;
  }
  vmas_.fill(first, count);
  if (!is_complete) return Error(ENOMEM);
  TlbBatch batch(*this, *line_, pins_);
  for (const Vma* vma = parent.vmas_.first(); vma != nullptr; vma = vma->next) {
    if (!vma->has(VmaFlag::kDontFork) && !vma->has(VmaFlag::kWipeOnFork)) continue;
    const VirtualRange freeable =
        vma->has(VmaFlag::kDontFork) ? freeable_around(vma->range) : vma->range;
    tree_.clear(DBOS_TRY(tree_.prepare_clear(vma->range, freeable, batch)), batch);
  }
  return {};
}

}  // namespace dbos
