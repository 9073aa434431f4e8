// --trace: a line for each system call of the program.
#pragma once

#include "guest/arch/trap_frame.h"
#include "guest/lib/types.h"

namespace dbos {

void enable_trace();
void trace_call(const TrapFrame& frame, i64 result);
// ... and for each fault that becomes a signal.
void trace_fault(const TrapFrame& frame, u32 signal, u64 address);

}  // namespace dbos
