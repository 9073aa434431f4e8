#include "vmm/process/host_process.h"

#include <asm/unistd.h>
#include <linux/prctl.h>
#include <signal.h>

#include "vmm/process/host_call.h"
#include "vmm/process/vcpu_thread.h"

namespace dbos::vmm {
namespace {

constexpr uint32_t kProcessesMax = 1024;
HostProcess processes[kProcessesMax];

bool is_needed(const HostProcess& process) {
  for (const HostProcess& other : processes) {
    if (other.used.load() != 0 && other.parent == &process) return true;
  }
  VcpuPool& vcpus = machine().vcpus();
  for (uint32_t i = 0; i < vcpus.count(); ++i) {
    const Vcpu& vcpu = vcpus.at(i);
    if (vcpu.process == &process && vcpu.state.load() == VcpuState::kBusy) return true;
    if (vcpu.process == &process && vcpu.host_thread.load() != 0) return true;
  }
  return false;
}

// Takes back the records of processes that are gone. A vCPU that one of them made is lost with it.
void release_ended() {
  VcpuPool& vcpus = machine().vcpus();
  for (HostProcess& process : processes) {
    if (process.used.load() == 0 || is_needed(process)) continue;
    for (uint32_t i = 0; i < vcpus.count(); ++i) {
      Vcpu& vcpu = vcpus.at(i);
      if (vcpu.creator == &process) vcpu.state.store(VcpuState::kLost);
      if (vcpu.process == &process) vcpu.process = nullptr;
    }
    process.used.store(0);
  }
}

// The calling process's record.
const HostProcess* current_process() {
  const auto id = static_cast<uint32_t>(raw_call(__NR_getpid));
  for (const HostProcess& process : processes) {
    if (process.used.load() != 0 && process.process_id == id) return &process;
  }
  return nullptr;
}

void die_with_parent() {
  raw_call(__NR_kill, static_cast<uint64_t>(raw_call(__NR_getpid)), SIGKILL);
}

bool has_lost_parent(const HostProcess& process) {
  return raw_call(__NR_getppid) != process.parent_process_id;
}

}  // namespace

HostProcess* acquire_process(HostProcess* parent) {
  for (int attempt = 0; attempt < 2; ++attempt) {
    for (HostProcess& process : processes) {
      uint32_t expected = 0;
      if (!process.used.compare_exchange_strong(expected, 1)) continue;
      process.parent = parent;
      process.fork_sequence = 0;
      process.process_id = 0;
      process.parent_process_id = parent == nullptr ? 0 : parent->process_id;
      process.has_forked.store(0);
      process.ended_by_itself.store(0);
      process.changed_attributes.store(parent == nullptr ? 0 : parent->changed_attributes.load());
      if (parent != nullptr) process.signals.copy_from(parent->signals);
      return &process;
    }
    release_ended();
  }
  return nullptr;
}

const HostProcess* another_process(const HostProcess& than) {
  VcpuPool& vcpus = machine().vcpus();
  for (uint32_t i = 0; i < vcpus.count(); ++i) {
    const Vcpu& vcpu = vcpus.at(i);
    const HostProcess* const process = vcpu.process;
    const bool lives = vcpu.is_alive() && vcpu.host_thread.load() != 0;
    if (lives && process != nullptr && process != &than) return process;
  }
  return nullptr;
}

void watch_parent(HostProcess& process) {
  raw_call(__NR_prctl, PR_SET_PDEATHSIG, kParentDeathSignal);
  const bool was_killed = has_lost_parent(process) && process.parent->ended_by_itself.load() == 0;
  if (was_killed) die_with_parent();
}

bool take_parent_death_notice(const siginfo_t& info) {
  const HostProcess* const process = current_process();
  if (process == nullptr || process->parent == nullptr) return false;
  if (static_cast<uint32_t>(info.si_pid) != process->parent_process_id) return false;
  if (!has_lost_parent(*process)) return true;  // only the thread that forked us has ended
  if (process->parent->ended_by_itself.load() == 0) die_with_parent();
  return true;
}

}  // namespace dbos::vmm
