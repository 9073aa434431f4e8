// What the helper does ahead of snapshots and after them, in steps.

#include "guest/memory/address_space.h"
#include "guest/memory/frame_allocator.h"
#include "guest/snapshot/ready.h"

namespace dbos {

Result<void> AddressSpace::keep_ready(u32 copies) {
  if (copies > kReadyCopiesMax) return Error(EINVAL);
  LockGuard guard(lock_);
  if (ready_ == nullptr) {
    if (copies == 0) return {};
    ready_ = heap_new<ReadyTables>(tree_, copies);
    if (ready_ == nullptr) return Error(ENOMEM);
    tree_.set_follower(ready_);
  }
  ready_->set_wanted(copies);
  return {};
}

namespace {

// Left for others when a copy is begun after memory was short.
constexpr u64 kFramesForOthers = 16 * kMiB / kPageSize;

}  // namespace

// One step. No memory for a copy is not an error: a later call tries again.
bool AddressSpace::refill(u32 tables_max) {
  AddressSpace* useless = nullptr;
  bool is_done = true;
  bool has_memory = true;
  {
    LockGuard guard(lock_);
    if (ready_ == nullptr) return false;
    if (ready_->is_paused() && has_room_for_ready()) ready_->resume();
    useless = ready_->remove_useless();
    if (ready_->wants_another()) {
      const Result<AddressSpace*> copy = create(tree_.root());
      has_memory = copy.is_ok();
      if (has_memory) {
        copy.value()->is_copy_ = true;
        ready_->add(copy.value());
      }
    }
    ready_->advance(tables_max);
    is_done = ready_->is_done();
  }
  if (useless != nullptr) destroy(useless);
  return !is_done && has_memory;
}

bool AddressSpace::has_room_for_ready() const {
  const u64 frames_for_copies = 2 * ready_->wanted() * tree_.counts().nodes;
  return frame_allocator.counts().free >= frames_for_copies + kFramesForOthers;
}

bool AddressSpace::yield_ready() {
  AddressSpace* copies[kReadyCopiesMax];
  u32 count = 0;
  {
    LockGuard guard(lock_);
    if (ready_ == nullptr) return false;
    ready_->pause();
    while (AddressSpace* copy = ready_->remove_any()) copies[count++] = copy;
  }
  for (u32 i = 0; i < count; ++i) destroy(copies[i]);
  return count != 0;
}

void AddressSpace::give_up_ready() {
  if (ready_ == nullptr) return;
  (void)yield_ready();
  tree_.set_follower(nullptr);
  heap_delete(ready_);
  ready_ = nullptr;
}

ReadyCounts AddressSpace::ready_counts() {
  LockGuard guard(lock_);
  return ready_ == nullptr ? ReadyCounts{} : ready_->counts();
}

}  // namespace dbos
