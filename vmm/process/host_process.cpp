#include "vmm/process/host_process.h"

#include <asm/unistd.h>
#include <fcntl.h>
#include <linux/prctl.h>
#include <signal.h>

#include <atomic>
#include <bitset>

#include "vmm/host/host_call.h"
#include "vmm/host/host_lock.h"
#include "vmm/host/signal_mask.h"
#include "vmm/process/vcpu.h"

namespace dbos::vmm {
namespace {

constexpr uint32_t kProcessesMax = 1024;
// All zero, so that they cost no memory before they are used.
constinit HostProcess processes[kProcessesMax];
DescriptorGuard descriptors[kProcessesMax];
HostLock release_lock;  // of whoever takes records back

size_t index_of(const HostProcess& process) {
  return static_cast<size_t>(&process - processes);
}

RecordState changing_by(const Vcpu* maker) {
  if (maker == nullptr) return RecordState::kChanging;
  return RecordState{static_cast<uint32_t>(RecordState::kChanging) + 1 + maker->index};
}

using Records = std::bitset<kProcessesMax>;

bool holds(const Records& records, const HostProcess* process) {
  return process != nullptr && records.test(index_of(*process));
}

// Those that another record or a vCPU in use refers to.
Records needed_records() {
  Records needed;
  const auto add = [&needed](const HostProcess* process) {
    if (process != nullptr) needed.set(index_of(*process));
  };
  for (const HostProcess& process : processes) {
    if (process.record.load() == RecordState::kFree) continue;
    add(process.parent);
    add(process.guardian.load());
  }
  for (const Vcpu& vcpu : vcpus()) {
    if (vcpu.is_used()) add(vcpu.process);
  }
  return needed;
}

// Claims the records of processes that are gone. Between the look and the claim one may have become
// another process's; then it is needed now.
Records claim_ended() {
  const Records seen_as_needed = needed_records();
  Records ended;
  for (HostProcess& process : processes) {
    RecordState live = RecordState::kLive;
    const size_t i = index_of(process);
    if (seen_as_needed.test(i)) continue;
    ended[i] = process.record.compare_exchange_strong(live, RecordState::kEnding);
  }
  const Records needed = needed_records();
  for (HostProcess& process : processes) {
    const size_t i = index_of(process);
    if (ended.test(i) && needed.test(i)) process.record.store(RecordState::kLive);
  }
  return ended & ~needed;
}

// Whoever takes the vCPU meanwhile writes its process, or has given it another creator.
void forget_processes(Vcpu& vcpu, const Records& ended, const Vcpu* taker) {
  if (holds(ended, vcpu.creator) && vcpus().take(vcpu, taker)) {
    if (holds(ended, vcpu.creator)) {
      vcpu.state.store(VcpuState::kLost);
    } else {
      vcpus().release(vcpu);
    }
  }
  HostProcess* process = vcpu.process;
  if (holds(ended, process)) {
    std::atomic_ref(vcpu.process).compare_exchange_strong(process, nullptr);
  }
}

// Of a fork that was killed in release_ended().
void give_back_claims() {
  for (HostProcess& process : processes) {
    RecordState ending = RecordState::kEnding;
    process.record.compare_exchange_strong(ending, RecordState::kLive);
  }
}

// Takes back the records of processes that are gone, all in one pass: it is a fork that waits for
// this. A vCPU that one of them made is lost with it.
void release_ended(const Vcpu* maker) {
  const HostLockGuard guard(release_lock);
  if (guard.is_from_the_dead()) give_back_claims();
  const Records ended = claim_ended();
  for (Vcpu& vcpu : vcpus()) forget_processes(vcpu, ended, maker);
  for (HostProcess& process : processes) {
    if (ended.test(index_of(process))) process.record.store(RecordState::kFree);
  }
}

// The record of a process with a host thread that is there, because the record of one that is gone
// stays for a while, and Linux may have given its id away again. Null: it is none of ours.
HostProcess* process_with_id(uint32_t id) {
  for (const Vcpu& vcpu : vcpus()) {
    HostProcess* const process = vcpu.process;
    const bool is_there = process != nullptr && vcpu.has_host_thread();
    if (is_there && process->process_id == id) return process;
  }
  return nullptr;
}

void die_with_parent() {
  raw_call(__NR_kill, own_process_id(), SIGKILL);
}

uint32_t current_parent() {
  return static_cast<uint32_t>(raw_call(__NR_getppid));
}

bool has_lost_guardian(const HostProcess& process) {
  return current_parent() != process.guardian_id.load();
}

bool was_guardian_killed(const HostProcess& process) {
  const HostProcess* const guardian = process.guardian.load();
  return has_lost_guardian(process) && guardian != nullptr && guardian->ended_by_itself.load() == 0;
}

// The parent is the next to be told of. A notice that waits is the end of one in between, which
// had adopted the process and is gone as well: until it was taken, the old one stays.
void follow_parent(HostProcess& process) {
  // Before the look for a notice: one that comes after that is this parent's.
  const uint32_t id = current_parent();
  const bool is_notice_pending = (pending_signals() & signal_bit(kParentDeathSignal)) != 0;
  if (is_notice_pending || id == process.guardian_id.load()) return;
  process.guardian.store(process_with_id(id));
  process.guardian_id.store(id);
}

// Linux changes the parent before it sends the notice (kernel/exit.c: forget_original_parent), so
// that one in between may be passed over, and its notice comes late. Null: it is none of that kind.
const HostProcess* passed_over(uint32_t id) {
  for (const HostProcess& process : processes) {
    const bool is_it = process.record.load() == RecordState::kLive && process.process_id == id;
    if (is_it && !has_thread(process)) return &process;
  }
  return nullptr;
}

template <typename Condition>
bool has_vcpu(const HostProcess& process, Condition condition) {
  for (const Vcpu& vcpu : vcpus()) {
    if (vcpu.process == &process && condition(vcpu)) return true;
  }
  return false;
}

}  // namespace

bool uses_vcpus(const HostProcess& process) {
  return has_vcpu(process, [](const Vcpu& vcpu) { return vcpu.is_used(); });
}

bool has_thread(const HostProcess& process) {
  return has_vcpu(process, [](const Vcpu& vcpu) { return vcpu.has_host_thread(); });
}

HostProcess* acquire_process(const Vcpu* maker) {
  HostProcess* const parent = maker == nullptr ? nullptr : maker->process;
  for (int attempt = 0; attempt < 2; ++attempt) {
    for (HostProcess& process : processes) {
      RecordState expected = RecordState::kFree;
      if (!process.record.compare_exchange_strong(expected, changing_by(maker))) continue;
      process.parent = parent;
      process.fork_sequence = 0;
      process.process_id = 0;
      process.moves.unlock();  // the one before may have been killed with it
      process.thread_making.unlock();
      process.lent_limits.lock.unlock();
      process.lent_limits.users = 0;
      process.lent_limits.were_lent.store(false);
      process.guardian_id.store(parent == nullptr ? 0 : parent->process_id);
      process.guardian.store(parent);
      process.after_fork.store(AfterFork::kNothing);
      process.ended_by_itself.store(0);
      process.death_signal.store(0);
      process.changed_attributes.store(parent == nullptr ? 0 : parent->changed_attributes.load());
      process.descriptors =
          parent == nullptr ? &own_descriptors() : &descriptors[index_of(process)];
      if (parent != nullptr) {
        process.signals.copy_from(parent->signals);
        process.descriptors->copy_from(*parent->descriptors);
      }
      return &process;
    }
    release_ended(maker);
  }
  return nullptr;
}

void give_back_record(HostProcess& process) {
  RecordState live = RecordState::kLive;
  process.record.compare_exchange_strong(live, RecordState::kFree);
}

// Looks before it writes, because what was never written costs no memory.
void give_back_records(const Vcpu& maker) {
  const RecordState taken = changing_by(&maker);
  for (HostProcess& process : processes) {
    if (process.record.load() == taken) process.record.store(RecordState::kFree);
  }
}

// What another thread of the parent kept while Linux copied the table is here only if it came
// first.
void inherit_descriptors(HostProcess& process) {
  const DescriptorGuard& theirs = *process.parent->descriptors;
  DescriptorGuard& ours = *process.descriptors;
  for (int d = theirs.next_ours(0); d >= 0; d = theirs.next_ours(d + 1)) {
    const bool is_here =
        ours.is_ours(d) || raw_call(__NR_fcntl, static_cast<uint64_t>(d), F_GETFD) == FD_CLOEXEC;
    if (is_here) ours.add(d);
  }
}

bool is_fork_of_ours(uint32_t process_id) {
  const HostProcess* const process = process_id == 0 ? nullptr : process_with_id(process_id);
  return process != nullptr && process->parent != nullptr;
}

const HostProcess* another_process(const HostProcess& than) {
  for (const Vcpu& vcpu : vcpus()) {
    const HostProcess* const process = vcpu.process;
    const bool lives = vcpu.is_alive() && vcpu.has_host_thread();
    if (lives && process != nullptr && process != &than) return process;
  }
  return nullptr;
}

void watch_parent(HostProcess& process) {
  raw_call(__NR_prctl, PR_SET_PDEATHSIG, kParentDeathSignal);
  if (was_guardian_killed(process)) die_with_parent();
  follow_parent(process);  // it may have ended before this
}

bool take_parent_death_notice(const siginfo_t& info) {
  const uint32_t id = own_process_id();
  HostProcess* const process = process_with_id(id);
  if (process == nullptr || process->parent == nullptr) return false;
  // PDEATHSIG's has this code (kernel/exit.c: SEND_SIG_NOINFO). kill(2) by a parent that lives
  // looks the same, and is lost; what it sends with sigqueue or tgkill is not.
  if (info.si_code != SI_USER) return false;
  const auto sender = static_cast<uint32_t>(info.si_pid);
  const bool is_guardians = sender == process->guardian_id.load() || has_lost_guardian(*process);
  const HostProcess* const late = is_guardians ? nullptr : passed_over(sender);
  if (!is_guardians && late == nullptr) return false;
  const bool was_killed =
      is_guardians ? was_guardian_killed(*process) : late->ended_by_itself.load() == 0;
  if (was_killed) die_with_parent();
  // Otherwise the parent, or only the thread of it that forked us, has ended by itself.
  follow_parent(*process);
  const uint32_t chosen = process->death_signal.load();
  if (chosen == kParentDeathSignal) return false;
  if (chosen != 0) send_to_process(static_cast<int>(chosen), info);
  return true;
}

}  // namespace dbos::vmm
