// What the creator of a snapshot and the snapshot's process share, and the process's part of it.
//
// A place for a run goes free -> asked -> started -> done -> free. The creator makes the first and
// the last step, the snapshot the other two; whoever makes a step owns the place's other fields
// until then. So neither needs a lock that the other one could leave held by dying.
#pragma once

#include <stdatomic.h>
#include <sys/types.h>

#include "dbos/dbos.h"

enum { kAlignment = 64 };

enum run_state { kRunFree, kRunAsked, kRunStarted, kRunDone };

struct shared_run {
  _Alignas(kAlignment) _Atomic uint32_t state;
  int32_t status;
  dbos_error error;  // DBOS_OK if the function has run
  dbos_function function;
  size_t argument_size;
  size_t result_size;
  _Alignas(kAlignment) unsigned char argument[DBOS_ARGUMENT_MAX];
};

// Whether the snapshot is to end, which the creator asks for, and whether it is about to.
enum end_state { kEndNone, kEndAsked, kEndBegun };

struct shared_end {
  _Alignas(kAlignment) _Atomic uint32_t state;
};

// All that the snapshot's process uses, by value: the creator's table means nothing there.
struct serving {
  pid_t creator;
  uint32_t run_count;
  size_t result_capacity;       // bytes of each run
  struct shared_end* end;       // in shared memory
  struct shared_run* runs;      // run_count of them, in shared memory
  unsigned char* results;       // run_count times result_capacity, in shared memory
  int doorbell;                 // eventfd: the creator has asked for runs, or for the end
  int done[DBOS_RUNS_MAX + 1];  // eventfds: a run is done
};

// The life of the snapshot's process: starts what is asked for until the creator asks for the end,
// or has ended.
_Noreturn void dbos_internal_serve(const struct serving* serving);

// A dbos_function whose result is this. Its status is 0, or the errno of what failed.
struct memory_held {
  uint64_t private_bytes;
  uint64_t resident_bytes;
};
int32_t dbos_internal_measure(const void* argument, size_t argument_size, dbos_result* result);
