// A host for the lives of processes and threads: each of the program's threads is a host thread and
// a vCPU, processes end and are killed as Linux does it, and vCPUs of the dead are adopted. The
// address spaces are real; see tests/unit/memory/machine.h.
#pragma once

#include <random>
#include <stdexcept>

#include "guest/process/process.h"
#include "guest/process/thread.h"
#include "hypercall/abi.h"

namespace dbos::life {

// What every thread of the program runs, once it has begun. It never returns: it ends itself.
extern void (*program)();

// Runs `program` in the first thread of a first process; returns when all threads have ended.
void run(Process& first, u32 seed);

// The calling thread's own.
std::mt19937& random_numbers();
TrapFrame& frame();

// kill(2) with SIGKILL. Whoever is killed notices it in its next host call, or here:
void kill(i32 process_id);
bool is_killed();
// A process that lives, of all that there are; 0: none.
i32 any_process();
// Waits until the process has ended, or the caller is killed.
void wait_for(i32 process_id);

// What Linux does with a signal of the calling thread's process.
SignalDisposition disposition(u32 signal);

struct Counts {
  u64 processes, threads, killed, killed_while_making;
};
Counts counts();

}  // namespace dbos::life
