// Futexes: futex(2) on memory of the guest. Those in memory that processes share through the window
// are the host's, with its own queues; futex_calls.cpp tells them apart.
//
// Results and their conditions are Linux 6.1's: counts, or -errno, kInterrupted, kNotStarted.
#pragma once

#include "guest/process/futex_queue.h"

namespace dbos {

i64 futex_wait(Thread& thread, VirtualAddress address, u32 expected, u32 bitset,
               const FutexDeadline& deadline);

// Wakes up to `count` waiters (at least one, as Linux) whose bitset has a bit in common.
i64 futex_wake(AddressSpace* space, VirtualAddress address, i32 count, u32 bitset);

// FUTEX_REQUEUE, and FUTEX_CMP_REQUEUE when `expected` is given.
i64 futex_requeue(AddressSpace* space, VirtualAddress from, VirtualAddress to, i32 wake_count,
                  i32 requeue_count, const u32* expected);

// FUTEX_WAKE_OP.
i64 futex_wake_operation(AddressSpace* space, VirtualAddress address, VirtualAddress operand,
                         i32 wake_count, i32 operand_wake_count, u32 operation);

// Priority inheritance futexes. The guest has no priorities to inherit: the waiters get the futex
// in the order of their arrival.
i64 futex_lock_pi(Thread& thread, VirtualAddress address, const FutexDeadline& deadline);
i64 futex_try_lock_pi(Thread& thread, VirtualAddress address);
i64 futex_unlock_pi(Thread& thread, VirtualAddress address);
// The owner ended: the next waiter, if any, owns a futex that is marked FUTEX_OWNER_DIED.
void futex_abandon_pi(Thread& owner, VirtualAddress address);
// ... and all that have waiters, for a thread that ends.
void futex_abandon_all_pi(Thread& owner);

}  // namespace dbos
