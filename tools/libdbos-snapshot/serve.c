// The snapshot's side: a loop that starts a thread for each run, and what a snapshot knows of its
// own memory.
#include "tools/libdbos-snapshot/serve.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static struct serving served;

static void finish(uint32_t index, dbos_error error) {
  struct shared_run* const run = &served.runs[index];
  const uint64_t one = 1;
  run->error = error;
  // From here on the place is the creator's.
  atomic_store_explicit(&run->state, kRunDone, memory_order_release);
  if (write(served.done[index], &one, sizeof one) != sizeof one) _exit(1);
}

static void* perform(void* index_as_pointer) {
  const uint32_t index = (uint32_t)(uintptr_t)index_as_pointer;
  struct shared_run* const run = &served.runs[index];
  dbos_result result = {served.results + index * served.result_capacity, served.result_capacity, 0};
  run->status = run->function(run->argument, run->argument_size, &result);
  run->result_size = result.size < served.result_capacity ? result.size : served.result_capacity;
  finish(index, DBOS_OK);
  return NULL;
}

static void start_run(uint32_t index, const pthread_attr_t* detached) {
  pthread_t thread;
  uint32_t expected = kRunAsked;
  if (!atomic_compare_exchange_strong(&served.runs[index].state, &expected, kRunStarted)) return;
  if (pthread_create(&thread, detached, perform, (void*)(uintptr_t)index) != 0) {
    finish(index, DBOS_ERROR_MEMORY);
  }
}

// At most size - 1 bytes of a file. Returns 0, or the errno of what failed.
static int read_file(const char* path, char* text, size_t size) {
  size_t length = 0;
  ssize_t got;
  const int file = open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) return errno;
  while ((got = read(file, text + length, size - 1 - length)) > 0) length += (size_t)got;
  const int error = got < 0 ? errno : 0;
  close(file);
  text[length] = 0;
  return error;
}

// Of this process; 0: it does not tell.
static unsigned long count_threads(void) {
  enum { kNameField = 2, kThreadsField = 20 };
  char text[1024];
  if (read_file("/proc/self/stat", text, sizeof text) != 0) return 0;
  // A name may have anything in it, so what counts is where its last parenthesis is.
  const char* at = strrchr(text, ')');
  for (int field = kNameField; field < kThreadsField && at != NULL; ++field) {
    at = strchr(at + 1, ' ');
  }
  return at == NULL ? 0 : strtoul(at, NULL, 10);
}

// No run is unfinished, but the threads of the last ones may be on their way out still. Under
// dbos-run a process gives its memory back before it is gone only if it has a single thread. Those
// that functions have left behind may stay for ever, and are not waited for.
_Noreturn static void leave(void) {
  enum { kWaits = 50, kWaitMs = 1 };
  atomic_store_explicit(&served.end->state, kEndBegun, memory_order_release);
  for (int wait = 0; wait < kWaits && count_threads() > 1; ++wait) poll(NULL, 0, kWaitMs);
  _exit(0);
}

void dbos_internal_serve(const struct serving* serving) {
  served = *serving;
  pthread_attr_t detached;
  const int creator = (int)syscall(SYS_pidfd_open, served.creator, 0);
  // Looked at after the descriptor is there: a later end of the creator shows in the descriptor.
  if (creator < 0 || getppid() != served.creator) _exit(1);
  if (pthread_attr_init(&detached) != 0) _exit(1);
  pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
  for (;;) {
    struct pollfd events[2] = {{served.doorbell, POLLIN, 0}, {creator, POLLIN, 0}};
    uint64_t rings;
    if (poll(events, 2, -1) < 0 && errno != EINTR) _exit(1);
    if (events[1].revents != 0) _exit(0);
    if (events[0].revents == 0) continue;
    // A function may have closed it, and opened another file.
    const ssize_t got = read(served.doorbell, &rings, sizeof rings);
    if (got != sizeof rings && !(got < 0 && errno == EAGAIN)) _exit(1);
    // Looked at after the rings are taken: whoever asks for the end after that, rings again.
    if (atomic_load_explicit(&served.end->state, memory_order_acquire) == kEndAsked) leave();
    for (uint32_t index = 0; index < served.run_count; ++index) start_run(index, &detached);
  }
}

// The number of bytes in a line 'name   123 kB', 0 if there is none.
static uint64_t bytes_in(const char* text, const char* name) {
  const char* const line = strstr(text, name);
  return line == NULL ? 0 : strtoull(line + strlen(name), NULL, 10) * 1024;
}

int32_t dbos_internal_measure(const void* argument, size_t argument_size, dbos_result* result) {
  (void)argument, (void)argument_size;
  char text[4096];
  const int error = read_file("/proc/self/smaps_rollup", text, sizeof text);
  if (error != 0) return error;
  const struct memory_held held = {
      bytes_in(text, "\nPrivate_Clean:") + bytes_in(text, "\nPrivate_Dirty:"),
      bytes_in(text, "\nRss:"),
  };
  memcpy(result->bytes, &held, sizeof held);
  result->size = sizeof held;
  return 0;
}
