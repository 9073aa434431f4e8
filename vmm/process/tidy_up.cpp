#include "vmm/process/tidy_up.h"

#include <asm/unistd.h>
#include <poll.h>

#include "vmm/host/host_call.h"
#include "vmm/process/helper.h"
#include "vmm/process/host_process.h"
#include "vmm/process/steward.h"

namespace dbos::vmm {
namespace {

// One for the next child, and some for its threads: those that a child makes itself cost it time,
// and a message each (handover.h).
constexpr uint32_t kReadyVcpus = 4;
// Fewer than that are topped up at once. A child keeps no more: nobody else has their descriptors.
constexpr uint32_t kReadyAtLeast = 1;

uint32_t ready_vcpus(const HostProcess& process) {
  return process.parent == nullptr ? kReadyVcpus : kReadyAtLeast;
}

bool has_events(uint64_t epoll_descriptor) {
  pollfd watched = {static_cast<int>(epoll_descriptor), POLLIN, 0};
  return raw_call(__NR_poll, reinterpret_cast<uint64_t>(&watched), 1, 0) != 0;
}

// Whether nothing is kept waiting by what is done before the call.
bool is_about_to_wait(const Call& call) {
  switch (call.number) {
    case __NR_epoll_wait:
    case __NR_epoll_pwait:
    case __NR_epoll_pwait2:
      return !has_events(call.arguments[0]);
    case __NR_nanosleep:
    case __NR_clock_nanosleep:
    case __NR_wait4:
    case __NR_waitid:
    case static_cast<uint32_t>(Service::kPark):
      return true;
    default:
      return false;
  }
}

}  // namespace

void tidy_up_after_fork(Vcpu& vcpu, const Call& call) {
  if (is(call, Service::kProcessFork)) return;
  HostProcess& process = *vcpu.process;
  const bool is_idle = is_about_to_wait(call);
  if (process.after_fork.exchange(AfterFork::kTidyingUp) == AfterFork::kForked) {
    start_steward(process);
    ring_steward();
    if (!is_idle) return;
  }
  if (!vcpus().prepare_one(vcpu, is_idle ? ready_vcpus(process) : kReadyAtLeast) || !is_idle)
    return;
  start_waiting_helper(vcpu);
  AfterFork expected = AfterFork::kTidyingUp;  // unless it has forked again
  process.after_fork.compare_exchange_strong(expected, AfterFork::kNothing);
}

}  // namespace dbos::vmm
