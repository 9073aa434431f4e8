// Linux's signal frame on the program's stack: what a handler finds there, and what rt_sigreturn
// takes from it.
//
// From high addresses to low: the interrupted stack, its red zone (128 bytes), the extended state
// (64-byte aligned), struct rt_sigframe (16-byte aligned but for the return address).
#pragma once

#include "guest/arch/trap_frame.h"
#include "guest/lib/result.h"
#include "guest/process/signal_types.h"
#include "guest/process/thread.h"

namespace dbos {

// Whether the stack pointer lies on the thread's alternate stack (false while it is disarmed by
// SS_AUTODISARM), and the flags that sigaltstack shows for it.
bool is_on_alternate_stack(const Thread& thread, u64 stack_pointer);
u32 alternate_stack_flags(const Thread& thread, u64 stack_pointer);

// sigaltstack(2): takes over `wanted` as the program at `stack_pointer` may ask for it.
Result<void> set_alternate_stack(Thread& thread, const AlternateStack& wanted, u64 stack_pointer);

// Writes the frame and sets the registers to start the handler. Nothing but the program's stack has
// changed when it fails.
Result<void> push_signal_frame(Thread& thread, TrapFrame& frame, u32 signal,
                               const SignalAction& action, const SignalInfo& info,
                               u64 interrupted_mask);

// The mask in the frame that rt_sigreturn shall end.
Result<u64> signal_frame_mask(const TrapFrame& frame);

// Takes the registers, the extended state and the alternate stack from the frame.
Result<void> pop_signal_frame(Thread& thread, TrapFrame& frame);

// Where the program stands at an `iretq` whose selectors are those that a signal frame shows, ring
// 3's: takes the registers from the stack, as the instruction does under Linux. .NET leaves its
// handlers so. False: it does not stand at one, and nothing has changed.
bool perform_native_return(TrapFrame& frame);

}  // namespace dbos
