#include "vmm/process/thread_reuse.h"

#include <asm/unistd.h>
#include <linux/capability.h>
#include <linux/futex.h>
#include <linux/prctl.h>
#include <linux/time_types.h>

#include <cerrno>

#include "vmm/debug/stop.h"
#include "vmm/host/futex.h"
#include "vmm/host/host_call.h"
#include "vmm/host/signal_mask.h"
#include "vmm/process/host_process.h"
#include "vmm/process/vcpu_thread.h"

namespace dbos::vmm {
namespace {

// A parked thread shows in the process's list of threads, so it does not stay for ever.
constexpr __kernel_timespec kPatience = {1, 0};
constexpr uint32_t kParkedMax = 16;

// What the next thread of a vCPU is to be called.
constexpr size_t kNameSize = 16;
char names[kVcpuCountMax][kNameSize];

// Linux gives a priority inheritance futex to its waiter when the host thread that owns it ends.
// The owner need not have made a call, only the waiter has; so one call is enough for all threads.
std::atomic<uint32_t> has_inheritance_futexes;

bool locks_inheritance_futex(uint64_t operation) {
  const auto command = static_cast<int32_t>(operation) & FUTEX_CMD_MASK;
  return command == FUTEX_LOCK_PI || command == FUTEX_LOCK_PI2 || command == FUTEX_TRYLOCK_PI;
}

void change_name(long request, const Vcpu& vcpu) {
  raw_call(__NR_prctl, static_cast<uint64_t>(request),
           reinterpret_cast<uint64_t>(names[vcpu.index]));
}

uint32_t parked_count(const HostProcess& process) {
  uint32_t count = 0;
  for (const Vcpu& vcpu : vcpus()) {
    if (vcpu.process == &process && vcpu.state.load() == VcpuState::kParked) ++count;
  }
  return count;
}

bool may_park(const Vcpu& vcpu) {
  return vcpu.keeps_thread.load() != 0 && vcpu.process->changed_attributes.load() == 0 &&
         vcpu.has_forked.load() == 0 && has_inheritance_futexes.load() == 0 &&
         vcpu.host_thread.load() != vcpu.process->process_id &&
         parked_count(*vcpu.process) < kParkedMax;
}

// Sleeps until somebody takes the vCPU. False: nobody did.
bool wait_for_restart(Vcpu& vcpu) {
  while (vcpu.wake_word.load() == 0) {
    const int64_t result = futex_wait(vcpu.wake_word, 0, &kPatience);
    if (result != -ETIMEDOUT) continue;
    VcpuState seen = VcpuState::kParked;
    const bool gives_up = vcpu.state.compare_exchange_strong(seen, VcpuState::kIdle);
    // kIdle: somebody was killed who had taken it, or had looked whether he might.
    if (gives_up || seen == VcpuState::kIdle) return false;
  }
  return true;
}

bool takes_rights(int32_t prctl_option) {
  switch (prctl_option) {
    case PR_SET_NO_NEW_PRIVS:
    case PR_SET_KEEPCAPS:
    case PR_SET_SECUREBITS:
    case PR_CAPBSET_DROP:
    case PR_CAP_AMBIENT:
      return true;
    default:
      return false;
  }
}

// Before a thread gives up capabilities or groups: where its user stays the same, Linux would let
// in whoever has no more than this thread to the VMM's memory, where other threads have all that
// dbos-run began with. A thread without capabilities has nothing to give up that way.
void close_memory() {
  __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct sets[_LINUX_CAPABILITY_U32S_3] = {};
  const int64_t result =
      raw_call(__NR_capget, reinterpret_cast<uint64_t>(&header), reinterpret_cast<uint64_t>(sets));
  const bool has_none = result == 0 && (sets[0].permitted | sets[1].permitted) == 0;
  if (!has_none) raw_call(__NR_prctl, PR_SET_DUMPABLE, 0);
}

// A thread that is used again gets its creator's name in any case.
bool is_about_name(const Call& call) {
  const auto option = static_cast<int32_t>(call.arguments[0]);
  return option == PR_SET_NAME || option == PR_GET_NAME;
}

}  // namespace

bool may_change_credentials(uint32_t call_number) {
  switch (call_number) {
    case __NR_setuid:
    case __NR_setgid:
    case __NR_setreuid:
    case __NR_setregid:
    case __NR_setresuid:
    case __NR_setresgid:
    case __NR_setfsuid:
    case __NR_setfsgid:
    case __NR_unshare:
    case __NR_setns:
      return true;
    default:
      return false;
  }
}

void note_thread_attributes(Vcpu& vcpu, const Call& call) {
  switch (call.number) {
    case __NR_prctl:
      // The threads that it makes inherit all of them, also by way of others.
      if (takes_rights(static_cast<int32_t>(call.arguments[0]))) {
        vcpu.process->changed_attributes.store(1);
      }
      if (!is_about_name(call)) vcpu.keeps_thread.store(0);
      return;
    case __NR_sched_setaffinity:
    case __NR_sched_setscheduler:
    case __NR_sched_setparam:
    case __NR_sched_setattr:
    case __NR_setpriority:
    case __NR_ioprio_set:
    case __NR_personality:
      vcpu.process->changed_attributes.store(1);
      return;
    case __NR_setgroups:
    case __NR_capset:
      close_memory();
      vcpu.process->changed_attributes.store(1);
      return;
    case __NR_futex:
      if (locks_inheritance_futex(call.arguments[1])) has_inheritance_futexes.store(1);
      return;
    default:
      if (may_change_credentials(call.number)) vcpu.process->changed_attributes.store(1);
  }
}

bool park_thread(Vcpu& vcpu) {
  if (!may_park(vcpu)) return false;
  block_all_signals();
  give_back_signal(vcpu);
  // What is queued for this thread ends with it, and is not for the next one.
  if (pending_signals() != 0) return false;
  vcpu.wake_word.store(0);
  vcpu.end_life(VcpuState::kParked);
  if (!wait_for_restart(vcpu)) return false;
  change_name(PR_SET_NAME, vcpu);
  if (set_first_registers(vcpu) < 0) return false;
  begin_debugging(vcpu);
  signal_mask(vcpu, vcpu.program_mask.load());
  return true;
}

Vcpu* take_parked_thread(const Vcpu& creator) {
  const bool is_plain =
      creator.keeps_thread.load() != 0 && creator.process->changed_attributes.load() == 0;
  if (!is_plain) return nullptr;
  for (Vcpu& vcpu : vcpus()) {
    if (!vcpus().take_parked(vcpu, creator)) continue;
    change_name(PR_GET_NAME, vcpu);  // of the creator: this thread's may be another's gift
    return &vcpu;
  }
  return nullptr;
}

void wake_parked_thread(Vcpu& vcpu) {
  vcpu.wake_word.store(1);
  futex_wake(vcpu.wake_word);
}

}  // namespace dbos::vmm
