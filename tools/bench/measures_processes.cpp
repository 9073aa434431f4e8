// Threads and processes that are made and end.
#include <sys/syscall.h>

#include <thread>

#include "tools/bench/child.h"
#include "tools/bench/measures.h"
#include "tools/bench/memory.h"

namespace dbos::bench {
namespace {

Measured measure_fork_stall(Seconds budget, size_t size) {
  Memory memory(size, Pages::kSmall);
  return {time_single(
              budget, [&] { memory.write(0, size); },
              [] {
                pid_t child = -1;
                const double taken = time_ns([&] { child = fork_that_exits(); });
                await(child);
                return taken;
              }),
          {}};
}

// What fork() leaves to do for the next call that leaves the guest keeps its caller, too.
Measured measure_next_call(Seconds budget, size_t size) {
  Memory memory(size, Pages::kSmall);
  return {time_single(
              budget, [&] { memory.write(0, size); },
              [] {
                const pid_t child = fork_that_exits();
                const double taken = time_ns([] { syscall(SYS_getppid); });
                await(child);
                return taken;
              }),
          {}};
}

}  // namespace

// What each fork() has in it: a process of Linux's, here one without any memory of its own.
Measured measure_process_stall(Seconds budget) {
  return {time_single(
              budget, [] {},
              [] {
                pid_t child = -1;
                const double taken = time_ns([&] { child = sharing_process_that_exits(); });
                await(child);
                return taken;
              }),
          {}};
}

Measured measure_thread(Seconds budget) {
  return {time_batches(budget,
                       [](uint64_t count) {
                         for (uint64_t i = 0; i < count; ++i) std::thread([] {}).join();
                       }),
          {}};
}

Measured measure_fork(Seconds budget) {
  return {time_batches(budget,
                       [](uint64_t count) {
                         for (uint64_t i = 0; i < count; ++i) await(fork_that_exits());
                       }),
          {}};
}

Measured measure_fork_stall_64m(Seconds budget) {
  return measure_fork_stall(budget, 64 * kMiB);
}
Measured measure_fork_stall_256m(Seconds budget) {
  return measure_fork_stall(budget, 256 * kMiB);
}
Measured measure_fork_stall_1g(Seconds budget) {
  return measure_fork_stall(budget, 1024 * kMiB);
}
Measured measure_fork_stall_2g(Seconds budget) {
  return measure_fork_stall(budget, 2048 * kMiB);
}

Measured measure_fork_next_call(Seconds budget) {
  return measure_next_call(budget, 64 * kMiB);
}

}  // namespace dbos::bench
