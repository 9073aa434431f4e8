#include "vmm/process/allowed_calls.h"

#include <asm/unistd.h>
#include <linux/futex.h>

namespace dbos::vmm {
namespace {

// What a dead thread's robust futexes need: others wait for them.
bool is_futex_wake(const Call& call) {
  return call.number == __NR_futex && (call.arguments[1] & FUTEX_CMD_MASK) == FUTEX_WAKE;
}

// What releases memory and keeps the guest kernel's locks and books right.
bool is_upkeep(const Call& call) {
  switch (static_cast<Service>(call.number)) {
    case Service::kLog:
    case Service::kPanic:
    case Service::kArenaGrow:
    case Service::kMemoryRelease:
    case Service::kWindowUnmap:
    case Service::kWake:
    case Service::kInterrupt:
    case Service::kYield:
      return true;
    default:
      return is_futex_wake(call);
  }
}

// The helper sleeps, reads the time, ends, and ends snapshots that keep too much (--cow-limit).
bool is_of_helper(const Call& call) {
  if (call.number == __NR_clock_gettime) return true;
  const auto service = static_cast<Service>(call.number);
  return service == Service::kPark || service == Service::kClockRefresh ||
         service == Service::kThreadExit || service == Service::kEndFork;
}

}  // namespace

bool is_allowed(const Vcpu& vcpu, const Call& call) {
  switch (vcpu.role.load()) {
    case Role::kProgram:
      return true;
    case Role::kHelper:
      return is_upkeep(call) || is_of_helper(call);
    case Role::kAdopted:
      return is_upkeep(call);  // and waits for no file: who adopts has others to release
    case Role::kAgent:
      return is_upkeep(call) || is(call, Service::kWindowPopulate);
  }
  return false;
}

}  // namespace dbos::vmm
