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

// What its space has not mapped yet of a dead thread's robust list. Who adopts has others to
// release, and reads no file for one; a guest kernel that is refused several pages asks for the one
// that it needs.
bool is_populate_of_page_in_memory(const Call& call, const Window& window) {
  return is(call, Service::kWindowPopulate) && call.arguments[1] == kPageSize &&
         window.is_in_memory(call.arguments[0]);
}

}  // namespace

bool is_allowed(const Vcpu& vcpu, const Call& call, const Window& window) {
  switch (vcpu.role.load()) {
    case Role::kProgram:
      return true;
    case Role::kHelper:
      return is_upkeep(call) || is_of_helper(call);
    case Role::kAdopted:
      return is_upkeep(call) || is_populate_of_page_in_memory(call, window);
    case Role::kAgent:
      return is_upkeep(call) || is(call, Service::kWindowPopulate);
  }
  return false;
}

}  // namespace dbos::vmm
