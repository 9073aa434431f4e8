// --trace: a line for each system call of the program.
#pragma once

#include "guest/arch/trap_frame.h"
#include "guest/lib/types.h"

namespace dbos {

void enable_trace();
void trace_call(const TrapFrame& frame, i64 result);

}  // namespace dbos
