// The limits on memory. The host's own would hit the VMM, whose address space holds the whole
// arena; so the guest keeps them for each process, and Linux keeps all others.
#pragma once

#include "guest/process/process.h"

namespace dbos {

struct MemoryLimits {
  ResourceLimit address_space, data, stack;
};
MemoryLimits memory_limits(Process& process);

// Hands the limits of the process to its address space. A child that shares its parent's memory
// (vfork) has limits of its own, which hold once it has executed a program. With the process
// table's lock.
void apply_memory_limits(Process& process);

// How much private memory may be asked for at once. Linux's heuristic refuses what is more than all
// memory, unless it was told to refuse nothing.
u64 memory_at_once_max();

// What the program is told of the machine's memory is no more than --memory: databases size their
// caches, and the limits by which they refuse work in time, by it.
struct MemoryBounds {
  u64 total;  // bytes
  u64 free;
};
MemoryBounds memory_bounds();

// Before a call that locks memory: asks Linux for RLIMIT_MEMLOCK, and whether CAP_IPC_LOCK lifts
// it. Linux keeps both, because io_uring and others that it does for the program count against
// them.
void apply_lock_limit(Process& process);

// At the program's start: what dbos-run was started with.
void inherit_memory_limits(Process& process);

// Whether Linux says that the calling thread has it (CAP_...).
bool has_capability(u32 capability);

}  // namespace dbos
