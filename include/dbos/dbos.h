// Snapshots for database code: run functions on a frozen view of this process's memory while the
// process goes on. Link with libdbos-snapshot.a (pkg-config dbos-snapshot). docs/snapshot-api.md
// has the worked example.
//
// A snapshot is a child process made by fork(). Under dbos-run that takes constant time, whatever
// the size of the memory, and each function runs on a vCPU of its own; on plain Linux the same
// program works, at the price of Linux's fork. Valid C11 and C++20; needs Linux 5.4 or newer.
//
// All functions may be called by any thread at any time, in any order; handles are numbers that are
// never used twice, so a stale one is refused. Each function but dbos_error_text waits while
// another thread of the process is in fork(), the library's or the program's own, which on plain
// Linux takes longer the larger the memory is. The library takes no signals and starts no threads
// in the process that calls it. It is not for signal handlers. A thread is not cancelled
// (pthread_cancel) while it is in one of the functions, only behind it.
#pragma once

#include <stddef.h>  // NOLINT: C has no <cstddef>
#include <stdint.h>  // NOLINT: nor <cstdint>

#ifdef __cplusplus
extern "C" {
#endif

// What each function returns. Except for DBOS_OK and where a function says otherwise, nothing has
// changed and nothing was stored.
typedef enum dbos_error {
  DBOS_OK = 0,
  DBOS_ERROR_ARGUMENT = 1,       // a null pointer where one is needed, or a number out of range
  DBOS_ERROR_STALE = 2,          // the handle was released or taken already, or never was one
  DBOS_ERROR_OTHER_PROCESS = 3,  // the handle belongs to the process that this one was forked from
  DBOS_ERROR_MEMORY = 4,         // no memory, or no further process or thread
  DBOS_ERROR_LIMIT = 5,          // too many snapshots, runs in a snapshot, or open files
  DBOS_ERROR_TIMEOUT = 6,        // the run has not ended in time; it goes on
  DBOS_ERROR_DIED = 7,           // the snapshot's process has ended and its runs with it, or what
                                 // it shares with its creator is spoiled: release it all the same
  DBOS_ERROR_RESULT_SIZE = 8,    // the result is larger than the buffer; it is still there
  DBOS_ERROR_BUSY = 9,           // another thread waits for this run
  DBOS_ERROR_SYSTEM = 10,        // Linux refused a call otherwise; errno says why
} dbos_error;

#define DBOS_SNAPSHOTS_MAX 64                         // alive at a time, in one process
#define DBOS_RUNS_MAX 32                              // in one snapshot at a time
#define DBOS_ARGUMENT_MAX 1024                        // bytes
#define DBOS_RESULT_MAX ((size_t)1024 * 1024 * 1024)  // bytes

// Handles. {0} is none: every function refuses it with DBOS_ERROR_STALE.
typedef struct dbos_snapshot {
  uint64_t handle;
} dbos_snapshot;
typedef struct dbos_run {
  uint64_t handle;
} dbos_run;

typedef struct dbos_snapshot_options {
  uint32_t runs_max;        // runs at a time, 1 to DBOS_RUNS_MAX; each costs a descriptor
  size_t result_bytes_max;  // of each run, up to DBOS_RESULT_MAX; rounded up to a multiple of 64,
                            // at least 64; memory is used only for what is written. Under
                            // dbos-run, (runs_max + 1) times as much counts against the 128 GiB of
                            // mapped files and shared memory
} dbos_snapshot_options;

// 4 runs at a time, each with up to 64 KiB of result.
#define DBOS_SNAPSHOT_DEFAULTS \
  { 4, 65536 }

typedef struct dbos_snapshot_cost {
  uint64_t request_ns;  // how long fork() held the thread that called dbos_snapshot_create
  uint64_t held_bytes;  // memory that only this snapshot keeps: what the creator has overwritten or
                        // unmapped since, and what the snapshot's own functions wrote
  uint64_t seen_bytes;  // resident memory that the snapshot sees, shared or not
} dbos_snapshot_cost;

// Where a function leaves its result: `size` bytes, at most `capacity`, at `bytes`, which is
// aligned to 64 bytes. `size` is 0 at first; a larger one than `capacity` is cut.
typedef struct dbos_result {
  void* bytes;
  size_t capacity;
  size_t size;
} dbos_result;

// What runs in a snapshot. It sees all memory as it was when the snapshot was created, and may
// write: its writes are seen by the snapshot's other functions, and by nobody else. Only MAP_SHARED
// memory is still shared with the creator. What it returns is the run's status, of no meaning to
// the library.
//
// `argument` is a copy of what dbos_run_start was given, aligned to 64 bytes. It must return, and
// not end its thread. All signals are blocked. A lock that any thread held at the creation is held
// for ever here: take none, but for malloc's, which works. Descriptors are shared with the creator
// as after fork(): their position in a file, too. stdio's buffers are copies: a function that
// flushes one writes what was in it, too; the end of the snapshot writes nothing. A crash ends the
// snapshot with all its runs, and harms the creator in no way.
typedef int32_t (*dbos_function)(const void* argument, size_t argument_size, dbos_result* result);

// Takes a snapshot of the calling process. `options` may be null: DBOS_SNAPSHOT_DEFAULTS. What
// the calling thread has written is in it; of other threads' writes, those that happened before. So
// stop them between two transactions if half of one must not be seen.
// Blocks for as long as fork() takes: see dbos_snapshot_cost. Costs runs_max + 3 descriptors, one
// process, and the memory that dbos_snapshot_cost tells. The child holds the creator's descriptors
// open: a connection that the creator closes is closed when the snapshot has been released too.
// A SIGCHLD is sent when the child ends; a program that waits for any child may reap it.
// If the creator ends, so does the snapshot, but not if it executes another program: release all
// before that, or the program has them as children that it does not know.
// Errors: ARGUMENT, MEMORY, LIMIT, SYSTEM.
dbos_error dbos_snapshot_create(const dbos_snapshot_options* options, dbos_snapshot* snapshot);

// Begins function(argument, ...) in the snapshot, in a thread of its own. The function must be code
// that was loaded when the snapshot was created. `argument_size` is in bytes, at most
// DBOS_ARGUMENT_MAX; `argument` may be null if it is 0. Does not wait for the run.
// A run takes one of the snapshot's runs_max places until dbos_run_wait has taken its result.
// Errors: ARGUMENT, STALE, OTHER_PROCESS, LIMIT, DIED. That no thread could be had in the snapshot
// is told by dbos_run_wait.
dbos_error dbos_run_start(dbos_snapshot snapshot, dbos_function function, const void* argument,
                          size_t argument_size, dbos_run* run);

// Waits until the run has ended, and takes its result: the function's status, and its bytes, copied
// to `bytes`. `timeout_ms` bounds the time: negative means no bound, 0 does not wait for the run.
// `*size` is the number of bytes; the pointers may each be null if nothing is wanted there, `bytes`
// only with a `capacity` of 0. With DBOS_OK the run is over and its handle stale; with RESULT_SIZE,
// `*size` says what is needed and the run can be waited for again.
// Errors: ARGUMENT, STALE, OTHER_PROCESS, TIMEOUT, DIED, RESULT_SIZE, BUSY, SYSTEM; MEMORY if the
// snapshot could not make a thread for it, and then the run is over as well.
dbos_error dbos_run_wait(dbos_run run, int timeout_ms, int32_t* status, void* bytes,
                         size_t capacity, size_t* size);

// The snapshot's number among those that this process has created: 1, 2, ..., with a gap where
// Linux had no process for one. A snapshot with a larger one was taken later. It is the library's
// own count, not one of the kernel's.
// Errors: ARGUMENT, STALE, OTHER_PROCESS.
dbos_error dbos_snapshot_epoch(dbos_snapshot snapshot, uint64_t* epoch);

// What the snapshot costs at this moment. Blocks while the snapshot reads its own smaps_rollup,
// which grows with its memory (a walk over its page tables), and slows only the snapshot. A page
// that several snapshots share and the creator has overwritten counts in none of them on plain
// Linux, in each of them under dbos-run.
// Errors: ARGUMENT, STALE, OTHER_PROCESS, DIED, MEMORY, SYSTEM.
dbos_error dbos_snapshot_cost_now(dbos_snapshot snapshot, dbos_snapshot_cost* cost);

// Ends the snapshot and all that runs in it. Threads that wait for its runs return with STALE.
// Blocks until its process is gone. If no run was unfinished, its memory is back by then. Else the
// process is killed, and under dbos-run its memory is back some milliseconds later; so it is with a
// snapshot that has died, that has threads of its functions' own making, that does not answer for
// 100 ms, or that has answered and does not end for 10 s. Needed for one that has died, too: until
// then it counts, and keeps its descriptors. Errors: STALE, OTHER_PROCESS.
dbos_error dbos_snapshot_release(dbos_snapshot snapshot);

// A short English sentence for an error, never null; of static storage duration.
const char* dbos_error_text(dbos_error error);

#ifdef __cplusplus
}  // extern "C"
#endif
