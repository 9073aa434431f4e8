// Children of a measure, made by fork().
#pragma once

#include <sched.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <stdexcept>

namespace dbos::bench {

inline pid_t fork_that_exits() {
  const pid_t child = fork();
  if (child == 0) _exit(0);
  return child;
}

inline int end_at_once(void*) {
  _exit(0);
}

// A process of Linux's without memory of its own: what dbos-run makes for each fork of its program.
// One at a time: they share a stack.
inline pid_t sharing_process_that_exits() {
  static std::array<char, 1 << 16> stack;
  return clone(end_at_once, stack.end(), CLONE_VM | SIGCHLD, nullptr);
}

// Throws unless it was made and ends with 0.
inline void await(pid_t child) {
  int status = 0;
  if (child < 0 || waitpid(child, &status, 0) != child || status != 0) {
    throw std::runtime_error("fork or its child failed");
  }
}

}  // namespace dbos::bench
