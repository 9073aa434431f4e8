// A thread of a program. One thread runs on one vCPU, which one host thread runs: the thread's
// structure lies in its vCPU's block and is found from the kernel stack pointer.
#pragma once

#include <atomic>

#include "guest/arch/trap_frame.h"
#include "guest/lib/types.h"
#include "guest/process/signal_types.h"
#include "hypercall/abi.h"

namespace dbos {

class AddressSpace;
struct Process;

struct Thread {
  u32 vcpu;       // index; fixed
  i32 thread_id;  // the host thread's
  Process* process;
  // The process's; fixed. A thread that has a SharedSpace uses it after the process was released.
  AddressSpace* space;

  TrapFrame* frame;  // the program's registers while in the kernel

  // Signals. `blocked` is what the program set. Linux holds the same mask for the host thread, but
  // for the time between a signal's arrival and its handler's start.
  u64 blocked;
  u64 temporary_blocked;  // while has_temporary_mask: of a call that swaps the mask (ppoll ...)
  bool has_temporary_mask;
  AlternateStack alternate_stack;
  // Of the thread's last fault: every signal frame shows them.
  u64 fault_trap_number;
  u64 fault_error_code;
  u64 fault_address;

  u64 copies_delayed_ns;  // by --cow-limit, in this fault or system call

  // What Linux keeps per thread for libc.
  VirtualAddress clear_child_tid;
  VirtualAddress robust_list_head;

  // Futex wait queue; guarded by the bucket's lock (futex_queue.h).
  Thread* futex_next;
  Thread* futex_previous;
  std::atomic<u64> futex_address;  // the waiter itself reads it to find its bucket
  u32 futex_bitset;
  bool futex_is_pi;
  std::atomic<bool> futex_queued;
  std::atomic<bool> releases_futexes;  // it ends: from before it looks for those that wait for it

  Thread* next_in_process;  // guarded by Process::lock
};

Thread& current_thread();

// This vCPU's hypercall page.
HypercallPage& current_hypercall_page();

}  // namespace dbos
