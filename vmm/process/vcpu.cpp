#include "vmm/process/vcpu.h"

#include <atomic>
#include <cerrno>

#include "vmm/kvm/kvm_api.h"
#include "vmm/log.h"
#include "vmm/machine/machine.h"
#include "vmm/process/exit_statistics.h"
#include "vmm/process/handover.h"
#include "vmm/process/host_process.h"
#include "vmm/process/steward.h"
#include "vmm/process/thread_block.h"

namespace dbos::vmm {
namespace {

// Whether a vCPU found in `state` can be taken.
bool is_free_in(VcpuState state, const Vcpu& vcpu) {
  return (state == VcpuState::kIdle || state == VcpuState::kParked) && !vcpu.has_life() &&
         vcpu.host_thread.load() == 0;
}

bool is_parked_in(VcpuState state, const Vcpu& vcpu, const HostProcess* process) {
  return state == VcpuState::kParked && vcpu.process == process && !vcpu.has_life() &&
         vcpu.host_thread.load() != 0;
}

// Never freed: other processes and threads use it until the very end.
VcpuPool* the_pool = nullptr;

// Not from the heap: whoever makes a vCPU may be killed, and would leave malloc's lock behind.
ExitStatistics exit_statistics[kVcpuCountMax];

// For a process that may be killed while others live on, the steward makes it (thread_block.h), as
// long as it answers: its process may be stopped.
ThreadBlock* new_thread_block(const HostProcess& process) {
  ThreadBlock* const block = process.parent != nullptr ? ask_for_spare_block() : nullptr;
  return block != nullptr ? block : make_thread_block(process);
}

void tell_limit() {
  static std::atomic<bool> is_told{false};
  log_once(is_told, LogLevel::kWarning,
           "all {} virtual CPUs are in use, of which each thread and fork takes one: another one "
           "gets EAGAIN",
           kVcpuCountMax);
}

}  // namespace

// The state that was judged is the one that is exchanged: taken twice, a vCPU has two threads.
template <typename Condition>
bool VcpuPool::take_if(Vcpu& vcpu, const Vcpu* taker, Condition condition) {
  VcpuState state = vcpu.state.load();
  VcpuState taken = taken_by(taker);
  if (!condition(state, vcpu) || !vcpu.state.compare_exchange_strong(state, taken)) return false;
  if (condition(state, vcpu) && vcpu.state.load() == taken) return true;
  // A whole life has passed since it was judged, and is not quite over. If its thread was killed
  // there and is adopted, the state is the adopter's.
  vcpu.state.compare_exchange_strong(taken, state);
  return false;
}

bool VcpuPool::take(Vcpu& vcpu, const Vcpu* taker) {
  return take_if(vcpu, taker, is_free_in);
}

bool VcpuPool::take_parked(Vcpu& vcpu, const Vcpu& taker) {
  return take_if(vcpu, &taker, [&taker](VcpuState state, const Vcpu& seen) {
    return is_parked_in(state, seen, taker.process);
  });
}

bool VcpuPool::is_usable(const Vcpu& vcpu, const HostProcess& process) const {
  uint64_t bound = UINT64_MAX;
  for (const HostProcess* p = &process; p != nullptr; p = p->parent) {
    if (vcpu.creator == p) return vcpu.sequence < bound;
    bound = p->fork_sequence < bound ? p->fork_sequence : bound;
  }
  return false;
}

Vcpu* VcpuPool::find(const HostProcess& process, Kind kind, const Vcpu* taker) {
  for (Vcpu& vcpu : *this) {
    if (kind == Kind::kFresh && vcpu.was_run) continue;
    if (!is_usable(vcpu, process) || !take(vcpu, taker)) continue;
    if (is_usable(vcpu, process)) return &vcpu;
    release(vcpu);  // it went to another process meanwhile
  }
  return nullptr;
}

Vcpu* VcpuPool::acquire(const HostProcess& process, const Vcpu* taker) {
  Vcpu* vcpu = find(process, Kind::kFresh, taker);
  if (vcpu == nullptr && count() < kFreshMax) vcpu = create(process, taker);
  if (vcpu == nullptr) vcpu = find(process, Kind::kAny, taker);
  return vcpu != nullptr ? vcpu : create(process, taker);
}

bool VcpuPool::has_free(const HostProcess& process, uint32_t wanted) {
  uint32_t fresh = 0;
  uint32_t idle = 0;
  for (const Vcpu& vcpu : *this) {
    if (!is_free_in(vcpu.state.load(), vcpu) || !is_usable(vcpu, process)) continue;
    ++idle;
    if (!vcpu.was_run) ++fresh;
  }
  return idle >= wanted && (fresh >= wanted || count() >= kFreshMax);
}

void VcpuPool::prepare(const HostProcess& process, uint32_t wanted, const Vcpu* taker) {
  while (!has_free(process, wanted)) {
    Vcpu* const vcpu = create(process, taker);
    if (vcpu == nullptr) return;
    release(*vcpu);
  }
}

bool VcpuPool::prepare_one(const Vcpu& taker, uint32_t wanted) {
  const HostProcess& process = *taker.process;
  if (has_free(process, wanted)) return true;
  if (!has_spare_block()) return false;
  Vcpu* const vcpu = create(process, &taker);
  if (vcpu == nullptr) return true;  // there can be no more
  release(*vcpu);
  return has_free(process, wanted);
}

// Sees to it that the vCPU which will be vcpus_[index] has a thread block. Made here and not when a
// thread starts: a fork must find everything ready. One that a failed attempt left serves the next,
// and where two come together, the second's serves the vCPU behind. False: Linux gives no thread.
bool VcpuPool::bring_block(uint32_t index, const HostProcess& process) {
  if (vcpus_[index].block.load() != nullptr) return true;
  ThreadBlock* block = take_spare_block();
  if (block == nullptr) block = new_thread_block(process);
  if (block == nullptr) return false;
  for (; index < kVcpuCountMax; ++index) {
    ThreadBlock* expected = nullptr;
    if (vcpus_[index].block.compare_exchange_strong(expected, block)) break;
  }
  return true;
}

// 0 or -errno. The caller has the lock.
int64_t VcpuPool::make(Vcpu& vcpu, const HostProcess& process) {
  vcpu.creator = &process;
  vcpu.statistics = &exit_statistics[vcpu.index];
  vcpu.current_call.store(kNoCall);
  // First, because the guest may name a vCPU that is lost as well.
  vcpu.page = reinterpret_cast<HypercallPage*>(vcpu_block(vcpu.index) + kVcpuHypercallOffset);
  const int64_t result = machine().initialize_vcpu(vcpu, process.moves);
  if (result < 0) return result;
  vcpu.made_as = vcpu.descriptor;
  vcpu.immediate_exit = &vcpu.run->immediate_exit;
  vcpu.page->abi_version = kAbiVersion;
  vcpu.page->vcpu_index = vcpu.index;
  return 0;
}

Vcpu* VcpuPool::create(const HostProcess& process, const Vcpu* taker) {
  for (uint32_t index = count(); index < kVcpuCountMax; index = count()) {
    // Before the lock, for which all processes wait: libc may take its time.
    if (!bring_block(index, process)) {
      note_failure(-EAGAIN);
      return nullptr;
    }
    const HostLockGuard guard(create_lock_);
    if (index != count()) continue;  // another was faster
    Vcpu& vcpu = vcpus_[index];
    vcpu.index = index;
    const int64_t result = make(vcpu, process);
    // Somebody was killed while he made it, and its descriptor is gone with him.
    const bool is_lost = result == -EEXIST;
    if (result < 0 && !is_lost) {
      note_failure(result);
      return nullptr;
    }
    // Now that the descriptor is there: a fork that sees the number copies the descriptor.
    if (!is_lost) vcpu.sequence = take_sequence();
    vcpu.state.store(is_lost ? VcpuState::kLost : taken_by(taker));
    count_.store(index + 1);
    if (is_lost) continue;
    if (process.parent == nullptr || hand_over(vcpu)) return &vcpu;
    // Killed with a lock held, its thread would keep the lock for ever.
    vcpu.state.store(VcpuState::kLost);
    note_failure(-EAGAIN);
    return nullptr;
  }
  tell_limit();
  return nullptr;
}

// Said once: the program sees no more than a thread that can't be made.
void VcpuPool::note_failure(int64_t result) {
  static std::atomic<bool> is_told{false};
  failure_.store(result);
  log_once(is_told, LogLevel::kInfo, "a vCPU could not be made: errno {}", -result);
}

VcpuPool& vcpus() {
  return *the_pool;
}

void make_vcpu_pool() {
  the_pool = new VcpuPool;
}

}  // namespace dbos::vmm
