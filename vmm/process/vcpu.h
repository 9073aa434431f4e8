// vCPUs: a pool of them, one for each thread of the program that runs.
//
// A vCPU is never destroyed, only used again: KVM has no way to take one back. Its descriptor
// exists only in the processes that were forked after its creation (and in its creator), so a
// process takes only vCPUs that it has the descriptor of.
#pragma once

#include <atomic>
#include <cstdint>

#include "hypercall/abi.h"
#include "vmm/host/host_lock.h"
#include "vmm/machine/kvm_vcpu.h"
#include "vmm/process/signals.h"

namespace dbos::vmm {

struct HostProcess;
struct ThreadBlock;
struct ExitStatistics;

inline constexpr uint32_t kNoCall = UINT32_MAX;
inline constexpr uint32_t kThreadBeingMade = UINT32_MAX;  // in the place of a thread's id

// kBusy: a host thread runs it, or ran it and was killed (host_thread is 0 then: it is adopted).
// kParked: the program's thread ended, and its host thread waits for the next one of its process.
// kIdle: nobody's. Both are free as soon as the life on it is over and host_thread is 0.
// kLost: made by a process that is gone, so that nobody has its descriptor.
// kTaken + i: a call of vCPU i has taken it, and neither announced it (making.h) nor released it
// yet. One exchange takes it and names the taker, who may be killed at any instant: whoever adopts
// vCPU i gives this one back. Beyond the last vCPU: a thread of the VMM's own.
enum class VcpuState : uint32_t { kAbsent, kIdle, kBusy, kParked, kLost, kTaken };

// What it runs, and with that what it may ask for (allowed_calls.h). kHelper: no program
// (helper.h). kAdopted: its own thread is dead, and another releases what that held (steward.h).
// kAgent: the debugger's, as if adopted.
enum class Role : uint32_t { kProgram, kHelper, kAdopted, kAgent };

struct Vcpu;

// See making.h.
struct Making {
  enum class Way { kClone, kRestart };

  std::atomic<Vcpu*> child;  // null: none
  Way way;
  uint32_t life_before;      // the child's
  std::atomic<uint32_t> id;  // kClone: Linux stores it when the child has come to be
};

// The uses of a vCPU by threads of the program, counted. `number` is odd while one lasts, and no
// two are the same: a look that took long can't hit the next one. `adopter` is the host thread that
// has ended the life of a dead one and is not done yet; 0: none.
struct alignas(8) Life {  // of one load or exchange
  uint32_t number;
  uint32_t adopter;
};

struct Vcpu : KvmVcpu, SignalContext {
  std::atomic<VcpuState> state;
  int made_as;  // its number in the creator, and in processes that it forked afterwards
  const HostProcess* creator;   // who has the descriptor, with those it forked later
  const HostProcess* receiver;  // who has it as well, as `handed_over` (handover.h); null: nobody
  int handed_over;
  uint64_t sequence;                            // creation order
  bool was_run;                                 // a host thread ran it once
  ExitStatistics* statistics;                   // written by the thread that runs it
  std::atomic<uint32_t> current_call{kNoCall};  // number of the host call that its thread is in
  std::atomic<ThreadBlock*> block;              // for its host threads, one after the other

  // Of the thread that uses it now.
  HostProcess* process;
  std::atomic<uint32_t>
      host_thread;  // its id; Linux sets 0 and wakes when it is gone (CHILD_CLEARTID)
  std::atomic<uint32_t> keeps_thread;  // its host thread may be used again (thread_reuse.h)
  std::atomic<uint32_t> has_forked;    // its host thread is the parent of processes
  std::atomic<uint32_t> wake_word;     // of a parked one: futex, 1: go on
  std::atomic<Life> life;              // see begin_life
  std::atomic<Role> role;
  std::atomic<uint32_t> is_unset;  // its registers are not yet those that its thread begins with

  Making making;                      // what its thread's call is making
  std::atomic<uint64_t> call_memory;  // what its call has for itself (call_memory.h); 0: nothing
  uint64_t call_memory_size;

  // A thread that is being made may never be: whoever makes it may be killed at that.
  bool has_host_thread() const {
    const uint32_t id = host_thread.load();
    return id != 0 && id != kThreadBeingMade;
  }
  bool is_adopted() const { return role.load() >= Role::kAdopted; }
  // In use, or taken for it.
  bool is_busy() const {
    const VcpuState now = state.load();
    return now == VcpuState::kBusy || now >= VcpuState::kTaken;
  }

  // A thread of the program begins on it. host_thread is set by then, and becomes 0 only by the
  // host thread's death: who finds it 0 may adopt the vCPU by ending the life that it saw.
  void begin_life() { life.store({life.load().number + 1, 0}); }
  // First what comes after it: whoever is killed in between leaves a life to be adopted.
  void end_life(VcpuState next) {
    state.store(next);
    life.store({(life.load().number + 1) & ~1u, 0});
  }
  bool is_alive() const { return life.load().number % 2 != 0; }
  // Alive, or being adopted. A lost one is neither, even if its adopter was killed.
  bool has_life() const {
    const Life seen = life.load();
    return state.load() != VcpuState::kLost && (seen.number % 2 != 0 || seen.adopter != 0);
  }
  // Or left by somebody who was killed.
  bool is_used() const { return is_busy() || host_thread.load() != 0 || has_life(); }
  // Makes the calling thread, `adopter`, the one that adopts it. True: its host thread is dead, or
  // whoever adopted it was killed before it was done. To be ended by end_life().
  bool begin_adoption(uint32_t adopter) {
    Life seen = life.load();
    const bool is_free = seen.adopter == 0
                             ? seen.number % 2 != 0 && host_thread.load() == 0
                             : state.load() != VcpuState::kLost && !shares_our_memory(seen.adopter);
    if (!is_free || !life.compare_exchange_strong(seen, {(seen.number + 1) & ~1u, adopter})) {
      return false;
    }
    state.store(VcpuState::kBusy);  // the dead one may have stored what was to come after it
    return true;
  }
};

// The state of what a call of `taker` takes. Null: a thread of the VMM's own takes it, or the start
// of the first process. All ends with that, or else one vCPU stays taken: where the first process
// had gone, and the one that its steward was in is killed at that.
inline VcpuState taken_by(const Vcpu* taker) {
  const uint32_t index = taker == nullptr ? kVcpuCountMax : taker->index;
  return VcpuState{static_cast<uint32_t>(VcpuState::kTaken) + index};
}

// `taker`: see taken_by().
class VcpuPool {
 public:
  // A vCPU for a new host thread of `process`. One that was never run is taken first: KVM waits for
  // an RCU grace period (10 to 20 ms) when a vCPU changes its thread. Null at the limit.
  Vcpu* acquire(const HostProcess& process, const Vcpu* taker);
  // Makes sure that `wanted` free vCPUs are there for `process`, up to kFreshMax fresh ones.
  void prepare(const HostProcess& process, uint32_t wanted, const Vcpu* taker);
  // One step of it, for the process of `taker`: makes one vCPU, if a thread block is there for it.
  // Returns whether enough are.
  bool prepare_one(const Vcpu& taker, uint32_t wanted);
  void release(Vcpu& vcpu) { vcpu.state.store(VcpuState::kIdle); }
  // Takes it if it is free.
  bool take(Vcpu& vcpu, const Vcpu* taker);
  // Takes it with its parked host thread, if it has one of the process of `taker`.
  bool take_parked(Vcpu& vcpu, const Vcpu& taker);

  // Whether `process` has the descriptor of `vcpu`.
  bool is_usable(const Vcpu& vcpu, const HostProcess& process) const;

  // for (Vcpu& vcpu : pool): all that are there, and those that are made meanwhile.
  struct Iterator {
    Vcpu* vcpu;
    Vcpu& operator*() const { return *vcpu; }
    void operator++() { ++vcpu; }
    bool operator!=(const VcpuPool* pool) const { return vcpu < pool->vcpus_ + pool->count(); }
  };
  Iterator begin() { return {vcpus_}; }
  const VcpuPool* end() const { return this; }

  Vcpu& at(uint32_t index) { return vcpus_[index]; }
  uint32_t count() const { return count_.load(); }
  uint64_t next_sequence() const { return next_sequence_.load(); }
  // Of the last one that could not be made: -errno.
  int64_t failure() const { return failure_.load(); }
  uint64_t take_sequence() { return next_sequence_.fetch_add(1); }

 private:
  // Beyond this many vCPUs the ones that have been run are used again before a new one is made.
  static constexpr uint32_t kFreshMax = 48;
  enum class Kind { kFresh, kAny };

  template <typename Condition>
  bool take_if(Vcpu& vcpu, const Vcpu* taker, Condition condition);
  Vcpu* find(const HostProcess& process, Kind kind, const Vcpu* taker);
  bool has_free(const HostProcess& process, uint32_t wanted);
  Vcpu* create(const HostProcess& process, const Vcpu* taker);
  bool bring_block(uint32_t index, const HostProcess& process);
  void note_failure(int64_t result);
  int64_t make(Vcpu& vcpu, const HostProcess& process);

  HostLock create_lock_;  // guards the making of vCPUs
  std::atomic<int64_t> failure_{0};
  Vcpu vcpus_[kVcpuCountMax] = {};
  std::atomic<uint32_t> count_{0};
  std::atomic<uint64_t> next_sequence_{1};
};

// The one pool of this dbos-run, which the first thread makes.
VcpuPool& vcpus();
void make_vcpu_pool();

}  // namespace dbos::vmm
