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
  bool is_over() {
    const u64 free_before = frame_allocator.counts().free;
    has_looked_ = !has_looked_;
    if (has_looked_ && frame_allocator.ensure_frames()) return true;
    has_looked_ = false;
    if (space_.make_room(free_before)) return true;
    // What ended while it looked.
    const bool is_last = !was_last_;
    was_last_ = true;
    return is_last && frame_allocator.ensure_frames();
  }

 private:
  AddressSpace& space_;
  bool has_looked_ = false;
  bool was_last_ = false;
};

}  // namespace dbos
