// The creator's side: what it shares with a snapshot's process, and the end of that.
#include "tools/libdbos-snapshot/child.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

uint64_t dbos_internal_now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000U + (uint64_t)now.tv_nsec;
}

int dbos_internal_left_ms(uint64_t begin_ns, int timeout_ms) {
  if (timeout_ms < 0) return -1;
  const uint64_t gone_ms = (dbos_internal_now_ns() - begin_ns) / 1000000U;
  return gone_ms >= (uint64_t)timeout_ms ? 0 : timeout_ms - (int)gone_ms;
}

void* dbos_internal_map_unforked(size_t size) {
  void* const mapping =
      mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapping == MAP_FAILED) return NULL;
  if (madvise(mapping, size, MADV_DONTFORK) == 0) return mapping;
  const int error = errno;
  munmap(mapping, size);
  errno = error;
  return NULL;
}

int dbos_internal_open_child(pid_t process) {
  return (int)syscall(SYS_pidfd_open, process, 0);
}

bool dbos_internal_kill_child(int descriptor) {
  return syscall(SYS_pidfd_send_signal, descriptor, SIGKILL, NULL, 0) == 0;
}

bool dbos_internal_child_ends_within(int descriptor, int timeout_ms) {
  const uint64_t begin_ns = dbos_internal_now_ns();
  struct pollfd event = {descriptor, POLLIN, 0};
  int ready;
  do {
    ready = poll(&event, 1, dbos_internal_left_ms(begin_ns, timeout_ms));
  } while (ready < 0 && errno == EINTR);
  return ready > 0;
}

void dbos_internal_reap_child(int descriptor) {
  siginfo_t info;
  (void)dbos_internal_child_ends_within(descriptor, -1);
  while (waitid(P_PIDFD, (id_t)descriptor, &info, WEXITED) < 0 && errno == EINTR) continue;
}
