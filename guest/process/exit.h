// The ends of threads and processes.
#pragma once

#include "guest/lib/types.h"

namespace dbos {

// exit(2): this thread ends; the process too, when it is the last one.
[[noreturn]] void exit_thread(i32 status);

// exit_group(2). What the process holds in the machine is released afterwards, by whoever adopts
// its vCPUs (HypercallPage::dying): that works for a process that is killed as well, so it is the
// one way.
[[noreturn]] void exit_process(i32 status);

// Ends the process by a signal's default action.
[[noreturn]] void die(u32 signal);

// What Linux's OOM killer does to a process that touches memory when there is none, be it by itself
// or in a system call. Comes back only when another host thread has adopted the vCPU: the call then
// goes on to its end, which releases what it holds, and the thread ends on its way out.
void kill_for_memory();

}  // namespace dbos
