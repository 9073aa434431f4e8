// What a thread leaves behind when it ends: robust futexes that it owns (libc's list of them), and
// the word that says that it is gone.
#pragma once

#include "guest/process/thread.h"

namespace dbos {

// Marks the futexes of the thread's robust list FUTEX_OWNER_DIED and wakes a waiter of each.
void release_robust_futexes(Thread& thread);

// Everything a thread's end (or its exec) does to futexes: robust list, priority inheritance, and
// clear_child_tid set to 0 with a wake. The thread's address space is still active.
void release_futexes(Thread& thread);

}  // namespace dbos
