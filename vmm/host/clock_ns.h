// Linux's clocks in nanoseconds.
#pragma once

#include <time.h>

#include <cstdint>

namespace dbos::vmm {

// From any thread; by way of the vDSO, so it costs no system call.
inline uint64_t clock_ns(clockid_t clock) {
  timespec now = {};
  clock_gettime(clock, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}

}  // namespace dbos::vmm
