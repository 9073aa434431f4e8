// Waiting for another vCPU: for a lock, or for its flush.
#include "guest/arch/cpu.h"
#include "guest/hypercall.h"
#include "guest/platform.h"

namespace dbos {
namespace {

// Longer than a lock is held, or a running vCPU takes to come out of the program and flush: some
// 10 us on hardware. By the clock, since a PAUSE takes 10 cycles on one processor, 140 on another.
constexpr u64 kWaitBeforeYield_us = 50;
constexpr u64 kUsualTscKhz = 2'000'000;

constinit u64 wait_before_yield_ticks = kUsualTscKhz / 1000 * kWaitBeforeYield_us;

}  // namespace

void arch::prepare_waiting(u64 tsc_khz) {
  if (tsc_khz != 0) wait_before_yield_ticks = tsc_khz * kWaitBeforeYield_us / 1000;
}

void platform::pause() {
  arch::serve_flush_request();
  arch::pause();
}

void platform::Wait::turn() {
  arch::serve_flush_request();
  const u64 now_ticks = __builtin_ia32_rdtsc();
  if (began_ticks == 0) began_ticks = now_ticks;
  if (now_ticks - began_ticks < wait_before_yield_ticks) {
    arch::pause();
    return;
  }
  hypercall(Service::kYield);
  began_ticks = __builtin_ia32_rdtsc();
}

}  // namespace dbos
