// The vDSO: the shared object that the guest kernel maps into every program, in place of Linux's.
// It reads time from the clock page, which lies in the page before this image.
//
// Program code: no kernel flags, no data, no relocations; the link script checks what it can.
#include <asm/unistd_64.h>

#include "guest/vdso/clock_read.h"

namespace {

using namespace dbos;  // NOLINT: this file is one program

// The page before the image; placed by the link script.
extern "C" [[gnu::visibility("hidden")]] const ClockPage dbos_vdso_clock_page;

constexpr u64 kNanosecondsPerSecond = 1'000'000'000;

struct TimeSpec {
  i64 seconds;
  i64 nanoseconds;
};
struct TimeValue {
  i64 seconds;
  i64 microseconds;
};

long system_call(long number, const void* a0, const void* a1 = nullptr, const void* a2 = nullptr) {
  long result;
  asm volatile("syscall"
               : "=a"(result)
               : "a"(number), "D"(a0), "S"(a1), "d"(a2)
               : "rcx", "r11", "memory");
  return result;
}

const void* as_argument(u64 value) {
  return reinterpret_cast<const void*>(value);
}

bool read(u32 clock, u64& nanoseconds) {
  return read_clock_page(dbos_vdso_clock_page, clock, read_tsc_ordered, nanoseconds) ==
         ClockAnswer::kRead;
}

}  // namespace

extern "C" {

// Linux exports each of them under two names.
#define DBOS_VDSO_ALIAS(name) [[gnu::weak, gnu::alias("__vdso_" #name)]]

int __vdso_clock_gettime(int clock, TimeSpec* time) {
  u64 now;
  if (!read(static_cast<u32>(clock), now))
    return static_cast<int>(
        system_call(__NR_clock_gettime, as_argument(static_cast<u32>(clock)), time));
  time->seconds = static_cast<i64>(now / kNanosecondsPerSecond);
  time->nanoseconds = static_cast<i64>(now % kNanosecondsPerSecond);
  return 0;
}
DBOS_VDSO_ALIAS(clock_gettime) int clock_gettime(int clock, TimeSpec* time);

int __vdso_gettimeofday(TimeValue* value, void* zone) {
  u64 now;
  if (zone != nullptr || !read(clock_id::kRealtime, now))
    return static_cast<int>(system_call(__NR_gettimeofday, value, zone));
  if (value == nullptr) return 0;
  value->seconds = static_cast<i64>(now / kNanosecondsPerSecond);
  value->microseconds = static_cast<i64>(now % kNanosecondsPerSecond / 1000);
  return 0;
}
DBOS_VDSO_ALIAS(gettimeofday) int gettimeofday(TimeValue* value, void* zone);

long __vdso_time(long* seconds) {
  u64 now;
  const bool is_known =
      read(clock_id::kRealtime, now) && now % kNanosecondsPerSecond >= kTickNanoseconds;
  if (!is_known) return system_call(__NR_time, seconds);
  const long answer = static_cast<long>(now / kNanosecondsPerSecond);
  if (seconds != nullptr) *seconds = answer;
  return answer;
}
DBOS_VDSO_ALIAS(time) long time(long* seconds);

int __vdso_clock_getres(int clock, TimeSpec* resolution) {
  const u32 id = static_cast<u32>(clock);
  const bool is_fine =
      id == clock_id::kRealtime || id == clock_id::kMonotonic || id == clock_id::kBoottime;
  if (!is_fine)
    return static_cast<int>(system_call(__NR_clock_getres, as_argument(id), resolution));
  if (resolution != nullptr) *resolution = {0, 1};
  return 0;
}
DBOS_VDSO_ALIAS(clock_getres) int clock_getres(int clock, TimeSpec* resolution);

// A vCPU is a thread, not a CPU: only Linux knows where it runs.
long __vdso_getcpu(unsigned* cpu, unsigned* node, void* unused) {
  return system_call(__NR_getcpu, cpu, node, unused);
}
DBOS_VDSO_ALIAS(getcpu) long getcpu(unsigned* cpu, unsigned* node, void* unused);

}  // extern "C"
