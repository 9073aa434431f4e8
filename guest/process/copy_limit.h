// Memory that only snapshots keep: within bounds, and never at main's expense.
//
// What main writes after a fork is copied, and the old pages stay for the child. With --cow-limit
// main, the eldest process, is slowed down while they are more than the limit, or the child that
// keeps most is ended (--cow-policy). And where no frame is left at all for main, such a child is
// ended before main would be. A child that finds no frame ends alone.
#pragma once

#include "guest/lib/types.h"
#include "hypercall/abi.h"

namespace dbos {

// At boot, before the program runs.
void prepare_copy_limit(const BootInformation& boot);

// platform::limit_copies() and platform::make_room().
void keep_copy_limit(u64 kept, u32 copied_pages);
bool end_snapshot_for_memory(u64 free_before);

// How long so many copied pages keep main when `kept` bytes are more than `limit`: as Linux does
// for a cgroup beyond memory.high (mm/memcontrol.c, calculate_high_delay), it grows with the square
// of the excess, so that the limit is passed by some percent, and main never stands still.
constexpr u64 kCopyDelayMost_ns = 2'000'000'000;  // of one fault or system call, as there
constexpr u64 copy_delay_ns(u64 kept, u64 limit, u32 copied_pages) {
  constexpr u64 kLeast_ns = 1'000'000;
  constexpr u64 kMostOfPage_ns = 200'000'000;
  if (kept <= limit || limit == 0) return 0;
  const u64 permille = (kept - limit) / (limit / 1000 + 1);
  const u64 of_page =
      permille >= 1000 ? kMostOfPage_ns : kLeast_ns + permille * permille * 4000;  // 10 %: 41 ms
  const u64 delay = copied_pages * (of_page < kMostOfPage_ns ? of_page : kMostOfPage_ns);
  return delay < kCopyDelayMost_ns ? delay : kCopyDelayMost_ns;
}

}  // namespace dbos
