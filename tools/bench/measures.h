// What `dbos-bench --measure NAME` does: small programs that run unchanged on Linux and in guest
// ring 0, and print what they measured as one line of JSON.
#pragma once

#include <span>
#include <string_view>

#include "tools/bench/samples.h"
#include "tools/bench/timing.h"

namespace dbos::bench {

struct Measured {
  Samples samples;     // for one operation, in the measure's unit
  Samples first = {};  // the same before any memory was used; only for the first writes of a page
  Samples with_writes = {};  // with the pages that parent and child wrote; only for snapshot-idle

  void add(const Measured& more) {
    samples.add(more.samples);
    first.add(more.first);
    with_writes.add(more.with_writes);
  }
};

struct Measure {
  std::string_view name;
  Measured (*run)(Seconds budget);
  std::string_view unit = "ns";
};

std::span<const Measure> measures();

Measured measure_getpid(Seconds budget);
Measured measure_getppid(Seconds budget);
Measured measure_signal(Seconds budget);
Measured measure_futex(Seconds budget);
Measured measure_pipe(Seconds budget);
Measured measure_thread(Seconds budget);
Measured measure_fork(Seconds budget);
Measured measure_process_stall(Seconds budget);
Measured measure_fork_stall_64m(Seconds budget);
Measured measure_fork_stall_256m(Seconds budget);
Measured measure_fork_stall_1g(Seconds budget);
Measured measure_fork_stall_2g(Seconds budget);
Measured measure_fork_next_call(Seconds budget);
Measured measure_write_fault_snapshot(Seconds budget);
Measured measure_write_fault_random(Seconds budget);
Measured measure_snapshot_idle(Seconds budget);
Measured measure_first_write_4k(Seconds budget);
Measured measure_first_write_2m(Seconds budget);
Measured measure_watch(Seconds budget);

}  // namespace dbos::bench
