// A process of the program: Linux's process (id, descriptors, parent, wait) plus what the guest
// kernel keeps for it.
//
// Lock order: Process::lock before AddressSpace's before the frame allocator's.
#pragma once

#include <atomic>

#include "guest/lib/spinlock.h"
#include "guest/process/signal_types.h"
#include "guest/process/thread.h"

namespace dbos {

struct InheritedActions;

struct ResourceLimit {  // struct rlimit64
  u64 soft;
  u64 hard;
};

// How many processes use an address space: more than one after vfork or clone(CLONE_VM).
struct SpaceUse {
  std::atomic<u32> processes{1};
  bool has_owner = true;  // one that did not borrow it; with the process table's lock
};

struct Process {
  Spinlock lock;                // guards the fields below but for those that signal_lock guards
  std::atomic<i32> process_id;  // 0: it has not begun. Read without the lock
  AddressSpace* space;
  bool is_first;                  // dbos-run's own
  std::atomic<bool> is_main;      // the eldest, whose memory comes before that of its snapshots
  bool borrows_space;             // its parent's, as after vfork
  std::atomic<bool> is_dumpable;  // it said so (PR_SET_DUMPABLE); if not, Linux knows
  SpaceUse* space_use;
  Thread* threads;
  u32 thread_count;
  // Guarded by signal_lock, see signal_actions.h. Bit n - 1 is signal n.
  Spinlock signal_lock;
  SignalAction actions[kSignalCount];  // of signal i + 1
  u64 untold_signals;                  // Linux does not know their actions yet
  u64 signals_being_told;
  InheritedActions* heirs;  // of children that are being made
  // Guarded by the process table's lock:
  Process* previous;  // of all processes
  Process* next;
  ResourceLimit address_space_limit;  // RLIMIT_AS, RLIMIT_DATA, RLIMIT_STACK: memory is the guest's
  ResourceLimit data_limit;
  ResourceLimit stack_limit;
  u64 lock_limit;       // bytes that may be locked, as of the last call that locks: see
                        // apply_lock_limit()
  u64 condemned_at_ns;  // when it was told to end, for the memory that it keeps; 0: it was not
};

// With its lock. Null: it has none with this id.
inline const Thread* find_thread(const Process& process, i32 thread_id) {
  const Thread* thread = process.threads;
  while (thread != nullptr && thread->thread_id != thread_id) thread = thread->next_in_process;
  return thread;
}

inline u32 count_threads(Process& process) {
  const LockGuard guard(process.lock);
  return process.thread_count;
}

inline Process& current_process() {
  return *current_thread().process;
}

}  // namespace dbos
