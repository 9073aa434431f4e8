// The host processes that share the VMM's memory: the first, and one for each fork of the program.
#pragma once

#include <atomic>
#include <cstdint>

#include "vmm/process/signals.h"

namespace dbos::vmm {

// HostProcess::has_forked.
inline constexpr uint32_t kHasForked = 1;
inline constexpr uint32_t kTidyingUp = 2;

struct HostProcess {
  HostProcess* parent;     // null: the first
  uint64_t fork_sequence;  // vCPUs that the parent had before this sequence number are ours too
  std::atomic<uint32_t> used;
  uint32_t process_id;
  uint32_t parent_process_id;
  ProcessSignals signals;
  std::atomic<uint32_t> changed_attributes;  // of its threads, see thread_reuse.h
  std::atomic<uint32_t> has_forked;          // kHasForked or kTidyingUp; 0: no, or all is tidy
  std::atomic<uint32_t> ended_by_itself;     // exit or a signal of its own: its children live on
};

// A record for a new process. `parent` null: the first. Null at the limit.
HostProcess* acquire_process(HostProcess* parent);

// One of the program's other processes that lives, and runs in the guest. Null: there is none.
const HostProcess* another_process(const HostProcess& than);

// In the new process: asks Linux to tell when the parent dies. A process of ours whose parent was
// killed (kill -9 of dbos-run) must not stay behind; one whose parent ended by itself must.
void watch_parent(HostProcess& process);

// A ParentDeathHook (signals.h) for the calling process: whether signal 64 is the notice of the
// parent's death. Acts on it if so. Async-signal-safe.
bool take_parent_death_notice(const siginfo_t& info);

}  // namespace dbos::vmm
