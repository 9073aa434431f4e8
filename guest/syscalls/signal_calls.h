// The system calls about signals. Handlers return the result (negative: -errno, or kInterrupted or
// kNotStarted, which deliver_pending_signal resolves).
#pragma once

#include "guest/arch/trap_frame.h"
#include "guest/process/thread.h"

namespace dbos {

i64 system_rt_sigaction(Thread& thread, u64 signal, VirtualAddress action, VirtualAddress old,
                        u64 mask_size);
i64 system_rt_sigprocmask(Thread& thread, u64 how, VirtualAddress set, VirtualAddress old,
                          u64 mask_size);
// Returns the restored rax; frame.vector says that all registers are to be restored.
i64 system_rt_sigreturn(Thread& thread, TrapFrame& frame);
i64 system_sigaltstack(Thread& thread, const TrapFrame& frame, VirtualAddress stack,
                       VirtualAddress old);

// These are Linux's: the host thread has the program's mask and pending signals.
i64 system_rt_sigpending(VirtualAddress set, u64 mask_size);
i64 system_rt_sigtimedwait(VirtualAddress set, VirtualAddress info, VirtualAddress timeout,
                           u64 mask_size);
i64 system_rt_sigsuspend(Thread& thread, VirtualAddress mask, u64 mask_size);

}  // namespace dbos
