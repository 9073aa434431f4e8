// The host processes that share the VMM's memory: the first, and one for each fork of the program.
#pragma once

#include <atomic>
#include <cstdint>

#include "hypercall/abi.h"
#include "vmm/host/descriptor_guard.h"
#include "vmm/host/host_lock.h"
#include "vmm/process/signals.h"

namespace dbos::vmm {

// What a fork has left to be done (tidy_up.h). kForked: all of it. kTidyingUp: the steward was
// told, a vCPU or the helper may be missing.
enum class AfterFork : uint32_t { kNothing, kForked, kTidyingUp };

// Of HostProcess::ended_by_itself, a flag and a count. Bit 0: the process has begun to end by exit
// or a signal of its own. Above: how many of its threads are in execve, which may succeed.
inline constexpr uint32_t kEnded = 1;
inline constexpr uint32_t kExecutes = 2;

struct Vcpu;

// kEnding: its process is gone, and it is being taken back.
// From kChanging on: a fork has taken the record and no vCPU refers to it yet. kChanging + 1 + i:
// the fork is a call of vCPU i; kChanging: of none, because it makes the first process's.
enum class RecordState : uint32_t { kFree, kLive, kEnding, kChanging };

// The soft limits that the guest keeps, which would hit the VMM: set while the process executes a
// program.
struct MemoryLimits {
  uint64_t soft[kExecuteLimitCount];
};
struct LentLimits {
  HostLock lock;                // whoever has it while there are no users has the VMM's own limits
  uint32_t users = 0;           // threads in execve
  MemoryLimits own = {};        // the VMM's
  std::atomic<bool> were_lent;  // `own` is known
};

struct HostProcess {
  HostProcess* parent = nullptr;  // null: the first
  uint64_t fork_sequence = 0;     // vCPUs that the parent had before it are ours too
  std::atomic<RecordState> record;
  uint32_t process_id = 0;
  // Whose end Linux tells: the parent, then each process that adopts its orphan.
  std::atomic<uint32_t> guardian_id;
  std::atomic<HostProcess*> guardian;  // null: a process that is none of ours
  ProcessSignals signals;
  DescriptorGuard* descriptors = nullptr;  // the VMM's own in its table
  // Held while one of them still has the low number that Linux gave it, and while a fork copies the
  // table: the copy would keep a number that no guard knows.
  mutable HostLock moves;
  mutable HostLock thread_making;  // see thread_making.h
  LentLimits lent_limits;
  std::atomic<uint32_t> changed_attributes;  // of its threads, see thread_reuse.h
  std::atomic<AfterFork> after_fork;
  std::atomic<uint32_t> ended_by_itself;  // 0: if it is gone, it was killed
  std::atomic<uint32_t> death_signal;     // the program's, see death_signal.h; 0: none
};

// A record for a child of the process of `maker`, whose call this is, in a state from kChanging on.
// `maker` null: the first. Null at the limit. Once a vCPU is of this process, the caller makes it
// kLive: a record that no vCPU and no child refers to goes back.
HostProcess* acquire_process(const Vcpu* maker);
// Frees the kLive record of a process that has not come to be. If another fork is taking it back
// already (kEnding), that goes on.
void give_back_record(HostProcess& process);
// The maker was killed: frees what it had acquired and not made kLive. Sound to do again.
void give_back_records(const Vcpu& maker);

// Whether it has a host thread, or a vCPU that is still to be adopted. If not, it is gone.
bool uses_vcpus(const HostProcess& process);
// Whether a thread of it is there; its first one may have ended before others, and one that is
// being made does not count yet.
bool has_thread(const HostProcess& process);

// In the new process, before anything else: it has the descriptors that its parent had kept by
// then.
void inherit_descriptors(HostProcess& process);
// Whether it is a process that the program forked, alive and not gone into another program. An id
// that Linux has given to somebody else is not.
bool is_fork_of_ours(uint32_t process_id);
// One of the program's other processes that lives, and runs in the guest. Null: there is none.
const HostProcess* another_process(const HostProcess& than);

// In the new process: asks Linux to tell when the parent dies, and when one dies that adopted it. A
// process of ours whose parent was killed (kill -9 of dbos-run) must end as well; one whose parent
// ended by itself must live on.
void watch_parent(HostProcess& process);

// A ParentDeathHook (signals.h) for the calling process: whether signal 64 is the notice of the
// parent's death. Acts on it if so. Async-signal-safe.
bool take_parent_death_notice(const siginfo_t& info);

}  // namespace dbos::vmm
