// All that is counted, summed over the vCPUs: what `dbos-dbg exits`, `calls`, `frames` and
// `snapshots` show, and what --metrics serves.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "vmm/observe/kernel_reader.h"
#include "vmm/process/exit_statistics.h"

namespace dbos::vmm {

class Machine;

struct CallFigures {
  uint64_t count;
  uint64_t failed;
  LatencyHistogram latency;  // of those that were timed

  uint64_t timed() const;
};

uint64_t count_of(const LatencyHistogram& histogram);

struct Figures {
  std::vector<CallFigures> calls;  // by call_index()
  LatencyHistogram other_calls;    // of vCPUs whose rows were used up
  ExitStatistics exits;
  std::array<uint64_t, kCounterCount> events;
  std::array<int64_t, static_cast<size_t>(GaugeName::kCount)> gauges;
  std::vector<SpaceView> spaces;
  uint32_t vcpus;
  uint32_t vcpus_busy;
  uint64_t window_bytes;
  uint64_t lost_trace_events;
  uint64_t memory_limit_bytes;
  uint64_t now_ticks;
  uint32_t ns_multiplier;  // ns_of()

  int64_t gauge(GaugeName name) const { return gauges[static_cast<size_t>(name)]; }
  uint64_t event(Counter counter) const { return events[static_cast<size_t>(counter)]; }
};

// Adds one vCPU's counters. The guest is not trusted: any content will do.
void add_counters(Figures& figures, const VcpuCounters& counters);
void add_exits(ExitStatistics& sum, const ExitStatistics& part);

Figures collect_figures(Machine& machine);

// Names of what the figures count.
const char* call_name(uint32_t index);  // "others": unknown numbers
const char* service_name(uint32_t index);
struct CounterName {
  Counter counter;
  const char* family;
  const char* label;
  const char* meaning;
};
std::span<const CounterName> counter_names();

// Frames that are neither pages, nor page tables, nor the kernel's.
int64_t free_frames(const Figures& figures);

// Nanoseconds since the snapshot was taken.
uint64_t age_ns(const Figures& figures, const SpaceView& snapshot);

}  // namespace dbos::vmm
