#include "guest/syscalls/clock_calls.h"

#include <asm/unistd_64.h>

#include "guest/hypercall.h"
#include "guest/memory/user_copy.h"
#include "guest/process/clock.h"
#include "guest/vdso/clock_read.h"

namespace dbos {

namespace {

struct TimeValue {  // struct timeval
  i64 seconds;
  i64 microseconds;
};
struct TimeZone {  // struct timezone
  i32 minutes_west;
  i32 daylight_saving;
};

TimeSpec to_timespec(u64 nanoseconds) {
  return {static_cast<i64>(nanoseconds / kNanosecondsPerSecond),
          static_cast<i64>(nanoseconds % kNanosecondsPerSecond)};
}

// 0, or the negative result of the host call.
i64 get_time(u64 clock, TimeSpec& time) {
  const Result<u64> read = read_clock(static_cast<u32>(clock));
  if (read.is_ok()) {
    time = to_timespec(read.value());
    return 0;
  }
  return hypercall(__NR_clock_gettime, clock, host_pointer(&time));
}

}  // namespace

i64 system_clock_gettime(u64 clock, VirtualAddress address) {
  TimeSpec time{};
  const i64 result = get_time(clock, time);
  if (result < 0) return result;
  return result_of(write_program(address, time));
}

i64 system_gettimeofday(VirtualAddress address, VirtualAddress zone_address) {
  if (address.value() != 0) {
    TimeSpec time{};
    const i64 result = get_time(clock_id::kRealtime, time);
    if (result < 0) return result;
    const TimeValue value{time.seconds, time.nanoseconds / 1000};
    DBOS_TRY_CALL(write_program(address, value));
  }
  if (zone_address.value() != 0) {
    TimeZone zone{};
    const i64 result = hypercall(__NR_gettimeofday, 0, host_pointer(&zone));
    if (result < 0) return result;
    DBOS_TRY_CALL(write_program(zone_address, zone));
  }
  return 0;
}

i64 system_time(VirtualAddress address) {
  TimeSpec time{};
  const i64 result = get_time(clock_id::kRealtimeCoarse, time);
  if (result < 0) return result;
  DBOS_TRY_CALL(write_if_given(address, time.seconds));
  return time.seconds;
}

}  // namespace dbos
