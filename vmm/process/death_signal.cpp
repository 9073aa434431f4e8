#include "vmm/process/death_signal.h"

#include <asm/unistd.h>
#include <linux/prctl.h>

#include "vmm/host/host_call.h"
#include "vmm/machine/machine.h"
#include "vmm/process/host_process.h"
#include "vmm/process/thread_reuse.h"

namespace dbos::vmm {
namespace {

int current_signal() {
  int signal = 0;
  raw_call(__NR_prctl, PR_GET_PDEATHSIG, reinterpret_cast<uint64_t>(&signal));
  return signal;
}

}  // namespace

bool is_death_signal_call(const Vcpu& vcpu, const Call& call) {
  if (call.number != __NR_prctl || vcpu.process->parent == nullptr) return false;
  const auto request = static_cast<uint32_t>(call.arguments[0]);
  return request == PR_SET_PDEATHSIG || request == PR_GET_PDEATHSIG;
}

int64_t perform_death_signal_call(Vcpu& vcpu, const Call& call) {
  std::atomic<uint32_t>& chosen = vcpu.process->death_signal;
  const uint64_t argument = call.arguments[1];
  if (static_cast<uint32_t>(call.arguments[0]) == PR_SET_PDEATHSIG) {
    if (argument > kSignalCount) return -EINVAL;
    chosen.store(static_cast<uint32_t>(argument));
    return 0;
  }
  if (!machine().memory().is_plain(argument, sizeof(uint32_t))) return -EFAULT;
  *reinterpret_cast<volatile uint32_t*>(argument) = chosen.load();
  return 0;
}

// The first thread alone has the VMM's: of two, the program's would be raised twice.
void keep_death_signal(HostProcess& process, uint32_t call_number) {
  if (process.parent == nullptr || !may_change_credentials(call_number)) return;
  if (own_thread_id() != process.process_id || current_signal() == kParentDeathSignal) return;
  process.death_signal.store(0);
  watch_parent(process);
}

int lend_death_signal(const HostProcess& process) {
  const int signal = current_signal();
  if (process.parent != nullptr) {
    raw_call(__NR_prctl, PR_SET_PDEATHSIG, process.death_signal.load());
  }
  return signal;
}

void restore_death_signal(HostProcess& process, int signal) {
  if (process.parent == nullptr) return;
  if (signal == kParentDeathSignal) {
    watch_parent(process);
  } else {
    raw_call(__NR_prctl, PR_SET_PDEATHSIG, static_cast<uint64_t>(signal));
  }
}

}  // namespace dbos::vmm
