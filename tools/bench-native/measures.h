// What dbos-bench-native measures: the portable engine on this host, without traps and without a
// machine around it, and Linux's fork for reference.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tools/bench/samples.h"

namespace dbos::bench {

// With so much memory mapped in 4 KiB pages.
struct SizeResult {
  uint64_t gib = 0;
  uint64_t table_bytes = 0;
  Samples shared_us;  // taking a snapshot, strategy "shared"
  Samples ready_us;   // handing over a ready copy that is in step
  Samples noted_us;   // one that as many changes as can be noted are to be applied to
  Samples copy_ms;    // making a copy, of processor time
  Samples memcpy_ms;  // of as many bytes
};

struct FaultResult {
  std::string what;
  Samples ns;  // of processor time, for each page
};

struct TablesResult {
  std::vector<SizeResult> sizes;
  std::vector<FaultResult> faults;
};

struct TablesOptions {
  uint64_t gib_max = 128;  // a power of two
  int rounds = 5;
};

// The pages are faulted in one by one by the engine itself, so tables and the frame table are real.
// The frames' own memory is not touched but for a part of the first GiB, which the faults are
// measured on. Needs about 16 MiB of memory for each GiB, and 1 GiB beside.
TablesResult measure_tables(const TablesOptions& options);

struct ForkResult {
  uint64_t pages = 0;
  Samples fork_ms;  // until fork() has returned in the parent
  // The same for a process that shares its parent's memory: beside a snapshot and two passages
  // between guest and host, all that keeps the caller of a fork under dbos-run.
  Samples process_us;
  std::vector<FaultResult> faults;
};

// Forks a process of `bytes` of touched memory in 4 KiB pages. Throws std::runtime_error.
ForkResult measure_linux_fork(uint64_t bytes, int rounds);

// Nanoseconds, of this machine's clock or of this thread's processor time.
double wall_ns();
double processor_ns();

}  // namespace dbos::bench
