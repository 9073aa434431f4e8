#include "guest/process/clock.h"

#include <asm/unistd_64.h>

#include "guest/hypercall.h"
#include "guest/platform.h"
#include "guest/vdso/clock_read.h"

namespace dbos {

namespace {

const ClockPage& clock_page() {
  return *static_cast<const ClockPage*>(platform::direct_map(PhysicalAddress(kClockPageAddress)));
}

}  // namespace

Result<u64> read_clock(u32 clock) {
  u64 nanoseconds = 0;
  ClockAnswer answer = read_clock_page(clock_page(), clock, read_tsc_ordered, nanoseconds);
  if (answer == ClockAnswer::kStale) {
    hypercall(Service::kClockRefresh);
    answer = read_clock_page(clock_page(), clock, read_tsc_ordered, nanoseconds);
  }
  if (answer != ClockAnswer::kRead) return Error(EINVAL);
  return nanoseconds;
}

u64 clock_now(u32 clock) {
  const Result<u64> read = read_clock(clock);
  if (read.is_ok()) return read.value();
  TimeSpec time{};
  // A signal that waits keeps host calls from starting. 0 does no harm then: what the time is
  // wanted for (a deadline) would not start either, and the system call is made again.
  hypercall(__NR_clock_gettime, clock, host_pointer(&time));
  return static_cast<u64>(time.seconds) * kNanosecondsPerSecond +
         static_cast<u64>(time.nanoseconds);
}

}  // namespace dbos
