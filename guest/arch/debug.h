// The guest kernel's part of debugging: hypercall/debug.h.
#pragma once

#include "guest/arch/trap_frame.h"
#include "guest/lib/types.h"

namespace dbos::arch {

// On the way back to the program, with no lock held: stops the thread, until the debugger lets it
// go on, if it wants that. Returns whether it did.
bool stop_for_debugger(TrapFrame& frame);

// Whether a trap of the program was the debugger's doing (a breakpoint, a step), and is done with.
bool is_debugger_trap(const TrapFrame& frame);

// Whether this vCPU was started to perform a DebugRequest; performs it.
bool is_debug_agent();
[[noreturn]] void run_debug_agent();

}  // namespace dbos::arch
