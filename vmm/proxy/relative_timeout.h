// The relative timeout of a waiting call, which is made again after a signal of the VMM's own.
#pragma once

#include <ctime>

#include <cstdint>

#include "vmm/proxy/guest_memory.h"

namespace dbos::vmm {

class RelativeTimeout {
 public:
  // Before the call is made for the first time.
  RelativeTimeout(const GuestMemory& memory, uint32_t number, const uint64_t* arguments);

  // Puts what is left of it in the arguments, for as long as this is there.
  void shorten(uint64_t* arguments);

 private:
  enum class Kind { kNone, kMilliseconds, kTimespec };
  struct Place {
    Kind kind;
    uint32_t argument;
  };
  static Place place_of(uint32_t number, const uint64_t* arguments);

  Place place_;
  int64_t end_ns_ = 0;
  timespec left_ = {};
};

}  // namespace dbos::vmm
