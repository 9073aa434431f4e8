// Reading the clock page (ClockPage in hypercall/abi.h): the one algorithm of the vDSO, the guest
// kernel and the tests.
#pragma once

#include "guest/lib/types.h"
#include "hypercall/abi.h"

namespace dbos {

namespace clock_id {  // Linux's
inline constexpr u32 kRealtime = 0;
inline constexpr u32 kMonotonic = 1;
inline constexpr u32 kRealtimeCoarse = 5;
inline constexpr u32 kMonotonicCoarse = 6;
inline constexpr u32 kBoottime = 7;
}  // namespace clock_id

// LFENCE keeps RDTSC from running ahead of the loads before it, as Linux's rdtsc_ordered() does:
// else a thread could see another one's later time and then read an earlier one itself.
inline u64 read_tsc_ordered() {
  u32 low;
  u32 high;
  asm volatile("lfence\n\trdtsc" : "=a"(low), "=d"(high) : : "memory");
  return (static_cast<u64>(high) << 32) | low;
}

// time() and CLOCK_REALTIME_COARSE are of Linux's last tick, and so are the times of files, which
// must not lie before them. A second that has just begun may not have begun there.
inline constexpr u64 kTickNanoseconds = 20'000'000;  // 100 Hz at least, and one that comes late

// The field of the clock's offset; false: not a clock of the page. CLOCK_MONOTONIC_COARSE is as
// fine as the others: nothing else tells its time.
inline bool select_clock(const ClockParameters& parameters, u32 clock, i64& offset) {
  switch (clock) {
    case clock_id::kMonotonic:
    case clock_id::kMonotonicCoarse:
      offset = 0;
      return true;
    case clock_id::kRealtime:
      offset = __atomic_load_n(&parameters.realtime_offset_ns, __ATOMIC_ACQUIRE);
      return true;
    case clock_id::kBoottime:
      offset = __atomic_load_n(&parameters.boottime_offset_ns, __ATOMIC_ACQUIRE);
      return true;
    default:
      return false;
  }
}

// Elapsed ns after `ticks` of the time stamp counter.
inline u64 scale_ticks(u64 ticks, u32 multiplier, u32 shift) {
  return static_cast<u64>((static_cast<unsigned __int128>(ticks) * multiplier) >> shift);
}

enum class ClockAnswer { kRead, kStale, kUnknown };

// ns of `clock` since its epoch. kStale: ask for a refresh, or Linux. kUnknown: ask Linux.
template <typename ReadTsc>
[[gnu::always_inline]] inline ClockAnswer read_clock_page(const ClockPage& page, u32 clock,
                                                          ReadTsc read_tsc, u64& nanoseconds) {
  if (__atomic_load_n(&page.enabled, __ATOMIC_ACQUIRE) == 0) return ClockAnswer::kUnknown;
  for (;;) {
    const u64 generation = __atomic_load_n(&page.generation, __ATOMIC_ACQUIRE);
    const ClockParameters& now = page.parameters[generation & 1];
    const u64 tsc = read_tsc();
    // Acquire, so that the generation is looked at again after them.
    const u64 base_tsc = __atomic_load_n(&now.tsc_base, __ATOMIC_ACQUIRE);
    const u64 base_ns = __atomic_load_n(&now.monotonic_base_ns, __ATOMIC_ACQUIRE);
    const u64 valid_ticks = __atomic_load_n(&now.tsc_valid_ticks, __ATOMIC_ACQUIRE);
    const u32 multiplier = __atomic_load_n(&now.multiplier, __ATOMIC_ACQUIRE);
    const u32 shift = __atomic_load_n(&now.shift, __ATOMIC_ACQUIRE);
    i64 offset = 0;
    if (!select_clock(now, clock, offset)) return ClockAnswer::kUnknown;
    if (__atomic_load_n(&page.generation, __ATOMIC_ACQUIRE) != generation) continue;
    // A CPU whose counter lags a little may be before the base.
    const u64 ticks = static_cast<i64>(tsc - base_tsc) > 0 ? tsc - base_tsc : 0;
    if (ticks > valid_ticks) return ClockAnswer::kStale;
    nanoseconds = base_ns + scale_ticks(ticks, multiplier, shift) + static_cast<u64>(offset);
    return ClockAnswer::kRead;
  }
}

}  // namespace dbos
