// System calls of the VMM on the program's behalf, made without libc: no errno, no cancellation,
// and no lost wake-up between looking for a signal and sleeping in the kernel.
#pragma once

#include <asm/unistd.h>
#include <linux/time_types.h>

#include <cstdint>

#include "hypercall/abi.h"
#include "vmm/host/host_call_results.h"

namespace dbos::vmm {

static_assert(DBOS_HOST_CALL_INTERRUPTED == kInterrupted);
static_assert(DBOS_HOST_CALL_NOT_STARTED == kNotStarted);
inline constexpr int64_t kMakeAgain = DBOS_HOST_CALL_AGAIN;

// Makes Linux system call `number`. If *pending is not 0 before the call starts, or a signal for
// the program arrives first, the call is not made and the result is kNotStarted (hypercall/abi.h).
// When Linux would restart the call after a handler with SA_RESTART, it is kInterrupted. EINTR:
// Linux would not restart it. kMakeAgain: it would not, but the signal was none of the program's.
extern "C" int64_t dbos_host_call(const volatile uint32_t* pending, uint64_t number,
                                  const uint64_t arguments[6]);

// For calls without a relative timeout.
inline int64_t host_call(const volatile uint32_t* pending, uint64_t number,
                         const uint64_t arguments[6]) {
  int64_t result = kMakeAgain;
  while (result == kMakeAgain) result = dbos_host_call(pending, number, arguments);
  return result;
}

// A system call that no signal interrupts or that does not block. Result: value or -errno.
inline int64_t raw_call(long number, uint64_t a0 = 0, uint64_t a1 = 0, uint64_t a2 = 0,
                        uint64_t a3 = 0, uint64_t a4 = 0, uint64_t a5 = 0) {
  register uint64_t r10 asm("r10") = a3;
  register uint64_t r8 asm("r8") = a4;
  register uint64_t r9 asm("r9") = a5;
  int64_t result;
  asm volatile("syscall"
               : "=a"(result)
               : "a"(number), "D"(a0), "S"(a1), "d"(a2), "r"(r10), "r"(r8), "r"(r9)
               : "rcx", "r11", "memory");
  return result;
}

inline uint32_t own_thread_id() {
  return static_cast<uint32_t>(raw_call(__NR_gettid));
}

inline uint32_t own_process_id() {
  return static_cast<uint32_t>(raw_call(__NR_getpid));
}

// Less than a second; a signal ends the sleep early.
inline void sleep_for(long nanoseconds) {
  const __kernel_timespec time = {0, nanoseconds};
  raw_call(__NR_nanosleep, reinterpret_cast<uint64_t>(&time), 0);
}

}  // namespace dbos::vmm
