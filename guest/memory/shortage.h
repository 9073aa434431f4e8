// What an operation that found no frame does before it fails.
#pragma once

#include "guest/memory/address_space.h"
#include "guest/memory/frame_allocator.h"

namespace dbos {

// One for all tries of one operation, without locks.
class Shortage {
 public:
  explicit Shortage(AddressSpace& space) : space_(space) {}

  // Whether another try is worth it. Frames that somebody has given back meanwhile come first: no
  // snapshot is ended for what is there already. They may be too few, or what the operation itself
  // took and gave back: then it is made room for, and that may end a snapshot.
  bool try_again() {
    const u64 free_before = frame_allocator.counts().free;
    just_looked_ = !just_looked_ && frame_allocator.ensure_frames();
    if (just_looked_) return true;
    if (space_.make_room(free_before)) return true;
    // What ended while it looked.
    if (last_try_used_) return false;
    last_try_used_ = true;
    return frame_allocator.ensure_frames();
  }

 private:
  AddressSpace& space_;
  bool just_looked_ = false;  // and found frames: the last answer
  bool last_try_used_ = false;
};

}  // namespace dbos
