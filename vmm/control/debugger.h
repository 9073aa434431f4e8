// The thread that debugs the program for dbos-dbg. It sleeps until the control thread hands it a
// client; it alone of the two has the program's descriptor table, and so the vCPUs' descriptors.
//
// One client at a time debugs; another one is told in one sentence who does. When a client goes,
// whichever way, its breakpoints are taken out and the program runs on.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "vmm/control/debug_channel.h"
#include "vmm/control/passed_file.h"

namespace dbos::vmm {

// Starts the thread, with all signals blocked; /proc/self/task does not show it. Debugging must be
// enabled (stop.h). Once, before the first vCPU runs and before start_control(). Throws StartError.
void start_debugger();

// Hands a client over, with what came from it: the debugger's thread answers. `who` names it for
// others. Null: start_debugger() was not called. Any thread; does not wait.
std::shared_ptr<DebugChannel> open_debug_channel(std::string who, std::string_view input);

// By which the control thread and the debugger's wake each other, and the former passes files on:
// -1 without start_debugger().
DebuggerSockets debugger_sockets();
// The control thread has its end in its own table, under the same number: the program's is rid of
// it.
void give_up_control_end();

}  // namespace dbos::vmm
