// Another process with our memory, as a forked child of the program is, that is killed before it is
// done.
#pragma once

#include <asm/unistd.h>
#include <sched.h>
#include <sys/wait.h>

#include <catch2/catch.hpp>
#include <csignal>

#include "vmm/host/host_call.h"

namespace dbos::vmm {

inline void die() {
  raw_call(__NR_kill, own_process_id(), SIGKILL);
}

// Runs `what` there, which must die.
inline void start_beside_us(void (*what)()) {
  alignas(16) static char stack[1 << 16];
  const auto run = [](void* argument) {
    reinterpret_cast<void (*)()>(argument)();
    return 0;
  };
  const int child = clone(run, stack + sizeof stack, CLONE_VM | CLONE_VFORK | SIGCHLD,
                          reinterpret_cast<void*>(what));
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  REQUIRE(status == SIGKILL);
}

}  // namespace dbos::vmm
