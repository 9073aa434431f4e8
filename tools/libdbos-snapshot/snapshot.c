// The creator's side of include/dbos/dbos.h: a table of snapshots, each a child process.
//
// One lock, `table`, guards all slots. It is held during any fork() of the process (watch_forks),
// so that the child has a whole table, and otherwise never while something waits. A thread that
// waits is counted in its slot's `users`, and dbos_snapshot_release closes nothing before it has
// left.
// Epochs are given under it, too, in the order of the forks. No thread is cancelled while it is in
// here (WITHOUT_CANCELLATION): it would keep the lock, or count as a waiter for good.
//
// After a fork the child has a copy of the table. A slot there whose `owner` is not this process
// counts as free, and its mapping and descriptors are left alone: the child has not inherited the
// one, and may have closed the others and opened new ones.
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tools/libdbos-snapshot/child.h"
#include "tools/libdbos-snapshot/serve.h"

enum slot_state { kFree, kCreating, kAlive, kEnding };

struct run {
  uint64_t serial;  // 0: the place is free
  bool has_waiter;
};

struct slot {
  enum slot_state state;
  uint32_t users;
  uint64_t owner;
  uint64_t serial;
  uint64_t epoch;
  uint64_t request_ns;
  pid_t process;
  int process_descriptor;
  void* mapping;
  size_t mapping_size;
  struct serving serving;
  struct run runs[DBOS_RUNS_MAX + 1];  // the last one of run_count is for dbos_snapshot_cost_now
};

static struct slot slots[DBOS_SNAPSHOTS_MAX];
static pthread_mutex_t table = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;  // a slot's users or its last run
static uint64_t this_process;                              // counts the forks that led here
static uint64_t last_serial;  // of snapshots and runs, never used twice
static uint64_t last_epoch;
static _Thread_local struct slot* forking;  // what the thread forks for; null: the program forks

static void lock(void) {
  pthread_mutex_lock(&table);
}

static void unlock(void) {
  pthread_mutex_unlock(&table);
}

static int disable_cancellation(void) {
  int before;
  pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &before);
  return before;
}

static void restore_cancellation(const int* before) {
  pthread_setcancelstate(*before, NULL);
}

// To the end of the block.
#define WITHOUT_CANCELLATION                                                      \
  __attribute__((cleanup(restore_cancellation), unused)) const int cancellation = \
      disable_cancellation()

// ---- Forks of this process, by whomever

// A snapshot's own process alone inherits the mapping: another one could write there by mistake,
// and would keep it. Advice for the whole of a mapping takes no memory, so it does not fail.
static void begin_fork(void) {
  lock();
  if (forking != NULL) (void)madvise(forking->mapping, forking->mapping_size, MADV_DOFORK);
}

static void end_fork(void) {
  if (forking != NULL) {
    (void)madvise(forking->mapping, forking->mapping_size, MADV_DONTFORK);
    forking->epoch = ++last_epoch;
  }
  unlock();
}

static void begin_child(void) {
  // Nor do the children of a snapshot's own process.
  if (forking != NULL) (void)madvise(forking->mapping, forking->mapping_size, MADV_DONTFORK);
  ++this_process;
  last_epoch = 0;
  forking = NULL;
  // Threads that awaited it are not in the child.
  pthread_cond_init(&changed, NULL);
  unlock();
}

// Before any of the program's handlers is there: `table` is then taken after the program's own
// locks and, in a child, free before its handlers run.
__attribute__((constructor(101))) static void watch_forks(void) {
  pthread_atfork(begin_fork, end_fork, begin_child);
}

// ---- Handles: serial, slot, run

static uint64_t handle_of(uint64_t serial, const struct slot* slot, uint32_t run) {
  return serial << 16 | (uint64_t)(slot - slots) << 8 | run;
}

static dbos_error check_slot(const struct slot* slot) {
  if (slot->owner != this_process) return DBOS_ERROR_OTHER_PROCESS;
  return slot->state == kAlive ? DBOS_OK : DBOS_ERROR_STALE;
}

// With the lock.
static dbos_error find_snapshot(dbos_snapshot snapshot, struct slot** found) {
  const uint32_t index = snapshot.handle >> 8 & 0xff;
  const uint64_t serial = snapshot.handle >> 16;
  if (serial == 0 || index >= DBOS_SNAPSHOTS_MAX || (snapshot.handle & 0xff) != 0) {
    return DBOS_ERROR_STALE;
  }
  if (slots[index].serial != serial) return DBOS_ERROR_STALE;
  *found = &slots[index];
  return check_slot(*found);
}

// With the lock.
static dbos_error find_run(dbos_run handle, struct slot** found, uint32_t* run) {
  const uint32_t index = handle.handle >> 8 & 0xff;
  const uint64_t serial = handle.handle >> 16;
  *run = handle.handle & 0xff;
  if (serial == 0 || index >= DBOS_SNAPSHOTS_MAX || *run > DBOS_RUNS_MAX) return DBOS_ERROR_STALE;
  if (slots[index].runs[*run].serial != serial) return DBOS_ERROR_STALE;
  *found = &slots[index];
  return check_slot(*found);
}

// ---- Creation and end

static dbos_error error_of(int number) {
  if (number == EMFILE || number == ENFILE) return DBOS_ERROR_LIMIT;
  return number == ENOMEM || number == EAGAIN ? DBOS_ERROR_MEMORY : DBOS_ERROR_SYSTEM;
}

static struct slot* take_slot(void) {
  struct slot* taken = NULL;
  lock();
  for (struct slot* slot = slots; slot != slots + DBOS_SNAPSHOTS_MAX && taken == NULL; ++slot) {
    if (slot->state == kFree || slot->owner != this_process) taken = slot;
  }
  if (taken != NULL) {
    memset(taken, 0, sizeof *taken);
    taken->state = kCreating;
    taken->owner = this_process;
    taken->process_descriptor = -1;
    taken->serving.doorbell = -1;
    for (uint32_t run = 0; run <= DBOS_RUNS_MAX; ++run) taken->serving.done[run] = -1;
  }
  unlock();
  return taken;
}

static void close_if_open(int descriptor) {
  if (descriptor >= 0) close(descriptor);
}

static void give_back(struct slot* slot) {
  const int error = errno;
  if (slot->mapping != NULL) munmap(slot->mapping, slot->mapping_size);
  close_if_open(slot->process_descriptor);
  close_if_open(slot->serving.doorbell);
  for (uint32_t run = 0; run <= DBOS_RUNS_MAX; ++run) close_if_open(slot->serving.done[run]);
  lock();
  memset(slot, 0, sizeof *slot);
  unlock();
  errno = error;
}

static bool make_event(int* descriptor) {
  *descriptor = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  return *descriptor >= 0;
}

// What creator and snapshot will share. On failure errno says why.
static bool prepare(struct slot* slot, const dbos_snapshot_options* options) {
  struct serving* const serving = &slot->serving;
  const size_t wanted = options->result_bytes_max > 0 ? options->result_bytes_max : 1;
  serving->creator = getpid();
  serving->run_count = options->runs_max + 1;
  serving->result_capacity = (wanted + kAlignment - 1) / kAlignment * kAlignment;
  slot->mapping_size = sizeof(struct shared_end) +
                       serving->run_count * (sizeof(struct shared_run) + serving->result_capacity);
  lock();  // no fork in between
  slot->mapping = dbos_internal_map_unforked(slot->mapping_size);
  unlock();
  if (slot->mapping == NULL) return false;
  serving->end = slot->mapping;
  serving->runs = (struct shared_run*)(serving->end + 1);
  serving->results = (unsigned char*)(serving->runs + serving->run_count);
  if (!make_event(&serving->doorbell)) return false;
  for (uint32_t run = 0; run < serving->run_count; ++run) {
    if (!make_event(&serving->done[run])) return false;
  }
  return true;
}

// The child blocks all signals for good: the program's handlers have no business in a snapshot.
static bool fork_snapshot(struct slot* slot) {
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  forking = slot;
  const uint64_t begin_ns = dbos_internal_now_ns();
  slot->process = fork();
  if (slot->process == 0) dbos_internal_serve(&slot->serving);
  const int error = errno;
  slot->request_ns = dbos_internal_now_ns() - begin_ns;
  forking = NULL;
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  errno = error;
  return slot->process > 0;
}

// Of an ending snapshot, in which none can be asked for any more.
static bool has_unfinished_run(const struct slot* slot) {
  for (uint32_t run = 0; run < slot->serving.run_count; ++run) {
    const uint32_t state = atomic_load(&slot->serving.runs[run].state);
    if (state == kRunAsked || state == kRunStarted) return true;
  }
  return false;
}

static void ask_to_end(const struct slot* slot) {
  const uint64_t one = 1;
  atomic_store(&slot->serving.end->state, kEndAsked);
  (void)!write(slot->serving.doorbell, &one, sizeof one);
}

// A process that is killed gives its memory back later than it is gone, under dbos-run; one that
// ends by itself, before. It may hang, or take long to give much back.
static void let_end(const struct slot* slot) {
  enum { kAnswerMs = 100, kEndMs = 10000 };
  ask_to_end(slot);
  if (dbos_internal_child_ends_within(slot->process_descriptor, kAnswerMs)) return;
  if (atomic_load(&slot->serving.end->state) == kEndBegun) {
    (void)dbos_internal_child_ends_within(slot->process_descriptor, kEndMs);
  }
}

dbos_error dbos_snapshot_create(const dbos_snapshot_options* options, dbos_snapshot* snapshot) {
  static const dbos_snapshot_options defaults = DBOS_SNAPSHOT_DEFAULTS;
  if (options == NULL) options = &defaults;
  if (snapshot == NULL || options->runs_max == 0 || options->runs_max > DBOS_RUNS_MAX ||
      options->result_bytes_max > DBOS_RESULT_MAX) {
    return DBOS_ERROR_ARGUMENT;
  }
  WITHOUT_CANCELLATION;
  struct slot* const slot = take_slot();
  if (slot == NULL) return DBOS_ERROR_LIMIT;
  if (!prepare(slot, options) || !fork_snapshot(slot)) {
    const int error = errno;
    give_back(slot);
    return error_of(error);
  }
  slot->process_descriptor = dbos_internal_open_child(slot->process);
  if (slot->process_descriptor < 0) {
    const int error = errno;
    kill(slot->process, SIGKILL);
    while (waitpid(slot->process, NULL, 0) < 0 && errno == EINTR) continue;
    errno = error;
    give_back(slot);
    return error_of(error);
  }
  lock();
  slot->serial = ++last_serial;
  slot->state = kAlive;
  snapshot->handle = handle_of(slot->serial, slot, 0);
  unlock();
  return DBOS_OK;
}

dbos_error dbos_snapshot_release(dbos_snapshot snapshot) {
  WITHOUT_CANCELLATION;
  struct slot* slot;
  lock();
  const dbos_error error = find_snapshot(snapshot, &slot);
  if (error == DBOS_OK) slot->state = kEnding;
  pthread_cond_broadcast(&changed);
  unlock();
  if (error != DBOS_OK) return error;
  if (!has_unfinished_run(slot)) let_end(slot);
  // It fails if the snapshot is dead already, or if this process has another user's rights since.
  if (!dbos_internal_kill_child(slot->process_descriptor)) ask_to_end(slot);
  dbos_internal_reap_child(slot->process_descriptor);
  lock();
  while (slot->users != 0) pthread_cond_wait(&changed, &table);
  unlock();
  give_back(slot);
  return DBOS_OK;
}

// ---- Runs

static bool has_died(const struct slot* slot) {
  return dbos_internal_child_ends_within(slot->process_descriptor, 0);
}

// With the lock; the place `run` is free.
static dbos_error ask(struct slot* slot, uint32_t run, dbos_function function, const void* argument,
                      size_t argument_size, dbos_run* handle) {
  const uint64_t one = 1;
  struct shared_run* const shared = &slot->serving.runs[run];
  if (has_died(slot)) return DBOS_ERROR_DIED;
  shared->function = function;
  shared->argument_size = argument_size;
  if (argument_size != 0) memcpy(shared->argument, argument, argument_size);
  atomic_store_explicit(&shared->state, kRunAsked, memory_order_release);
  slot->runs[run] = (struct run){++last_serial, false};
  handle->handle = handle_of(last_serial, slot, run);
  // Can't fail: the counter never comes near its limit.
  (void)!write(slot->serving.doorbell, &one, sizeof one);
  return DBOS_OK;
}

dbos_error dbos_run_start(dbos_snapshot snapshot, dbos_function function, const void* argument,
                          size_t argument_size, dbos_run* run) {
  if (function == NULL || run == NULL || argument_size > DBOS_ARGUMENT_MAX ||
      (argument == NULL && argument_size != 0)) {
    return DBOS_ERROR_ARGUMENT;
  }
  WITHOUT_CANCELLATION;
  struct slot* slot;
  lock();
  dbos_error error = find_snapshot(snapshot, &slot);
  if (error == DBOS_OK) {
    const uint32_t count = slot->serving.run_count - 1;
    uint32_t place = 0;
    while (place < count && slot->runs[place].serial != 0) ++place;
    error = place == count ? DBOS_ERROR_LIMIT
                           : ask(slot, place, function, argument, argument_size, run);
  }
  unlock();
  return error;
}

static bool is_done(struct slot* slot, uint32_t run) {
  return atomic_load_explicit(&slot->serving.runs[run].state, memory_order_acquire) == kRunDone;
}

// Without the lock, as one of the slot's users.
static dbos_error await_run(struct slot* slot, uint32_t run, int timeout_ms) {
  const uint64_t begin_ns = dbos_internal_now_ns();
  const int done = slot->serving.done[run];
  struct pollfd events[2] = {{done, POLLIN, 0}, {slot->process_descriptor, POLLIN, 0}};
  while (!is_done(slot, run)) {
    const int wait_ms = dbos_internal_left_ms(begin_ns, timeout_ms);
    const int ready = poll(events, 2, wait_ms);
    if (ready < 0 && errno != EINTR) return DBOS_ERROR_SYSTEM;
    if (ready < 0) continue;
    if (ready == 0) {
      // Linux may round down; only our own clock ends the wait.
      if (wait_ms != 0) continue;
      return is_done(slot, run) ? DBOS_OK : DBOS_ERROR_TIMEOUT;
    }
    uint64_t ignored;
    // A place's last ring may still be there from the run before: what counts is the state.
    if (events[0].revents != 0) (void)!read(done, &ignored, sizeof ignored);
    if (events[1].revents != 0 && !is_done(slot, run)) return DBOS_ERROR_DIED;
  }
  return DBOS_OK;
}

// The run is done, and its place this thread's. The snapshot is not trusted: its size is looked at
// once.
static dbos_error take_result(const struct slot* slot, uint32_t run, int32_t* status, void* bytes,
                              size_t capacity, size_t* size) {
  const struct shared_run* const shared = &slot->serving.runs[run];
  const dbos_error error = shared->error;
  if (error != DBOS_OK) return DBOS_ERROR_MEMORY;
  const size_t result_size = *(const volatile size_t*)&shared->result_size;
  if (result_size > slot->serving.result_capacity) return DBOS_ERROR_DIED;
  if (size != NULL) *size = result_size;
  if (bytes != NULL && result_size > capacity) return DBOS_ERROR_RESULT_SIZE;
  if (bytes != NULL && result_size != 0) {
    memcpy(bytes, slot->serving.results + run * slot->serving.result_capacity, result_size);
  }
  if (status != NULL) *status = shared->status;
  return DBOS_OK;
}

dbos_error dbos_run_wait(dbos_run run, int timeout_ms, int32_t* status, void* bytes,
                         size_t capacity, size_t* size) {
  if (bytes == NULL && capacity != 0) return DBOS_ERROR_ARGUMENT;
  WITHOUT_CANCELLATION;
  struct slot* slot;
  uint32_t place;
  lock();
  dbos_error error = find_run(run, &slot, &place);
  if (error == DBOS_OK && slot->runs[place].has_waiter) error = DBOS_ERROR_BUSY;
  if (error == DBOS_OK) {
    slot->runs[place].has_waiter = true;
    ++slot->users;
  }
  unlock();
  if (error != DBOS_OK) return error;

  error = await_run(slot, place, timeout_ms);
  if (error == DBOS_OK) error = take_result(slot, place, status, bytes, capacity, size);

  lock();
  slot->runs[place].has_waiter = false;
  if (error == DBOS_OK || error == DBOS_ERROR_MEMORY) slot->runs[place].serial = 0;
  if (error == DBOS_ERROR_DIED && slot->state == kEnding) error = DBOS_ERROR_STALE;
  --slot->users;
  pthread_cond_broadcast(&changed);
  unlock();
  return error;
}

// ---- Questions

dbos_error dbos_snapshot_epoch(dbos_snapshot snapshot, uint64_t* epoch) {
  if (epoch == NULL) return DBOS_ERROR_ARGUMENT;
  struct slot* slot;
  lock();
  const dbos_error error = find_snapshot(snapshot, &slot);
  if (error == DBOS_OK) *epoch = slot->epoch;
  unlock();
  return error;
}

// A run in the place kept for it; one thread at a time asks, the others queue.
static dbos_error ask_memory(dbos_snapshot snapshot, dbos_run* run, uint64_t* request_ns) {
  struct slot* slot;
  dbos_error error;
  lock();
  for (;;) {
    error = find_snapshot(snapshot, &slot);
    if (error != DBOS_OK || slot->runs[slot->serving.run_count - 1].serial == 0) break;
    if (has_died(slot)) {
      error = DBOS_ERROR_DIED;
      break;
    }
    pthread_cond_wait(&changed, &table);
  }
  if (error == DBOS_OK) {
    *request_ns = slot->request_ns;
    error = ask(slot, slot->serving.run_count - 1, dbos_internal_measure, NULL, 0, run);
  }
  unlock();
  return error;
}

// Takes back the place of a run that is over, whatever the snapshot says there.
static void drop_run(dbos_run run) {
  struct slot* slot;
  uint32_t place;
  lock();
  if (find_run(run, &slot, &place) == DBOS_OK) slot->runs[place].serial = 0;
  pthread_cond_broadcast(&changed);
  unlock();
}

dbos_error dbos_snapshot_cost_now(dbos_snapshot snapshot, dbos_snapshot_cost* cost) {
  if (cost == NULL) return DBOS_ERROR_ARGUMENT;
  WITHOUT_CANCELLATION;
  dbos_run run;
  uint64_t request_ns;
  int32_t status;
  size_t size;
  struct memory_held held;
  dbos_error error = ask_memory(snapshot, &run, &request_ns);
  if (error != DBOS_OK) return error;
  error = dbos_run_wait(run, -1, &status, &held, sizeof held, &size);
  if (error == DBOS_OK && status == 0 && size != sizeof held) error = DBOS_ERROR_DIED;
  if (error == DBOS_ERROR_RESULT_SIZE) error = DBOS_ERROR_DIED;
  // One that nobody waits for any more may still write there: the same as the next.
  if (error == DBOS_ERROR_DIED || error == DBOS_ERROR_SYSTEM) drop_run(run);
  if (error != DBOS_OK) return error;
  if (status != 0) {
    errno = status;
    return DBOS_ERROR_SYSTEM;
  }
  *cost = (dbos_snapshot_cost){request_ns, held.private_bytes, held.resident_bytes};
  return DBOS_OK;
}
