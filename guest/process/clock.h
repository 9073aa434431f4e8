// Time in the guest kernel: from the clock page, or from Linux where that can't be trusted.
#pragma once

#include "guest/lib/result.h"
#include "guest/lib/types.h"

namespace dbos {

struct TimeSpec {  // struct timespec
  i64 seconds;
  i64 nanoseconds;
};

inline constexpr u64 kNanosecondsPerSecond = 1'000'000'000;

// A clock that the clock page knows; ns since its epoch. An exit only when the page is out of date.
// EINVAL: not such a clock, or the page is of no use: ask Linux.
Result<u64> read_clock(u32 clock);

// CLOCK_MONOTONIC or CLOCK_REALTIME, from Linux if need be. Never fails for these two.
u64 clock_now(u32 clock);

}  // namespace dbos
