// Children of a measure, made by fork().
#pragma once

#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <stdexcept>

namespace dbos::bench {

inline pid_t fork_that_exits() {
  const pid_t child = fork();
  if (child == 0) _exit(0);
  return child;
}

// Throws unless it was made and ends with 0.
inline void await(pid_t child) {
  int status = 0;
  if (child < 0 || waitpid(child, &status, 0) != child || status != 0) {
    throw std::runtime_error("fork or its child failed");
  }
}

}  // namespace dbos::bench
