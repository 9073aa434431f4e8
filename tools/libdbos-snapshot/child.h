// A snapshot's process as its creator sees it: a child, by its descriptor (pidfd). And what they
// share, and the clock that bounds waits.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

// Shared memory, zeroed, that a fork's child does not inherit (MADV_DONTFORK). No thread may fork
// meanwhile. Null: errno says why.
void* dbos_internal_map_unforked(size_t size);

// A descriptor that is closed on exec, or negative: errno says why.
int dbos_internal_open_child(pid_t process);

// Whether SIGKILL was sent.
bool dbos_internal_kill_child(int descriptor);

// Whether it has ended; negative times mean no bound.
bool dbos_internal_child_ends_within(int descriptor, int timeout_ms);

// Waits for the end of one that was told to end, or has ended, and reaps it if nobody else does.
void dbos_internal_reap_child(int descriptor);

// The monotonic clock.
uint64_t dbos_internal_now_ns(void);

// What is left of a time that began at `begin_ns`; a negative one is never over.
int dbos_internal_left_ms(uint64_t begin_ns, int timeout_ms);
