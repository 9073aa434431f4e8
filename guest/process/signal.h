// Delivering signals to the program.
//
// The guest kernel keeps the handlers (signal_actions.h) and what each thread blocks
// (Thread::blocked); Linux keeps everything else: see vmm/process/signals.h. A caught signal
// arrives in HypercallPage::signal, with the host thread's mask full. It is taken from there on the
// next way back to the program, which may build a signal frame for it; then Linux gets the mask
// that the program runs on with.
//
// Invariant: HypercallPage::signal.number == 0 and the program running imply that the host thread's
// mask is Thread::blocked.
#pragma once

#include "guest/arch/trap_frame.h"
#include "guest/process/process.h"
#include "guest/process/signal_types.h"
#include "guest/process/thread.h"

namespace dbos {

// The host thread is gone; another one runs this vCPU to release what the thread holds.
[[noreturn]] void exit_thread_dying();

// Whether deliver_pending_signal has anything to do: cheap, for every return path.
inline bool has_signal_work(const Thread& thread, const TrapFrame& frame) {
  const HypercallPage& page = current_hypercall_page();
  const bool restarts =
      frame.vector == kSystemCallVector && is_interrupted(static_cast<i64>(frame.rax));
  return page.signal.number != 0 || page.dying != 0 || thread.has_temporary_mask || restarts;
}

// Call on every way back to the program, with the system call's result in frame.rax (kInterrupted
// and kNotStarted included: they are resolved here). Sets frame.vector to kRestoredVector when all
// registers must be restored.
void deliver_pending_signal(Thread& thread, TrapFrame& frame);

// A fault of the program, to be delivered at once; it returns when a handler starts. Delivers what
// else is pending too, so the caller goes straight back to the program.
void force_fault_signal(Thread& thread, TrapFrame& frame, u32 signal, i32 code, u64 address,
                        u64 trap_number, u64 error_code);

// A debugger's step over rt_sigreturn, which takes the trap flag away, ends where that returns to.
void end_debugger_step();

// Changes what the thread blocks. kNotStarted, with nothing changed: a signal must be delivered
// first, and the system call made again.
i64 set_signal_mask(Thread& thread, u64 mask);

// For host calls that no signal may end: Linux keeps the thread's signals back until
// release_signals(). kNotStarted: a signal must be delivered first; nothing is held.
i64 hold_signals();
void release_signals(const Thread& thread);

// Boot: the handlers and the mask as dbos-run inherited them.
void initialize_signals(Process& process, Thread& thread, const BootInformation& boot);
// A new thread, in its parent's process or in a new one.
void inherit_signal_state(Thread& child, const Thread& parent, bool keep_alternate_stack);

// The mask of ppoll, pselect6, epoll_pwait, rt_sigsuspend: Linux swaps it in for the call alone.
//   DBOS_TRY(mask.read(address, size)); result = <the host call>; return mask.finish(result);
class TemporaryMask {
 public:
  explicit TemporaryMask(Thread& thread) : thread_(thread) {}

  // Takes the mask from the program; address 0: the call swaps none.
  Result<void> read(VirtualAddress address, u64 size);
  // To be passed on to Linux: the kernel's copy.
  const u64* mask() const { return &mask_; }
  // After the call, with its result. The handler of a signal that ended it runs with the temporary
  // mask, and its frame holds the original.
  i64 finish(i64 result);

 private:
  Thread& thread_;
  u64 mask_ = 0;
  bool is_given_ = false;
};

}  // namespace dbos
