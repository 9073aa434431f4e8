// New threads and processes.
#pragma once

#include "guest/arch/trap_frame.h"
#include "guest/lib/types.h"
#include "guest/process/thread.h"

namespace dbos {

// The system calls. Results: the child's id, or -errno.
i64 system_clone(Thread& thread, TrapFrame& frame, u64 flags, u64 stack, u64 parent_id_address,
                 u64 child_id_address, u64 thread_pointer);
i64 system_clone3(Thread& thread, TrapFrame& frame, VirtualAddress arguments, u64 size);
i64 system_fork(Thread& thread, TrapFrame& frame);
i64 system_vfork(Thread& thread, TrapFrame& frame);

// Where a vCPU that was made by these begins (kernel_main).
[[noreturn]] void start_thread(u64 start_argument);

}  // namespace dbos
