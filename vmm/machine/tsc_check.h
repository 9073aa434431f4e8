// Whether the time stamp counter can tell time: it must tick at a steady rate, and alike on all
// CPUs.
#pragma once

#include <cstdint>

namespace dbos::vmm {

enum class TscTrust {
  kUsedByLinux,  // it is Linux's own clock source
  kInvariant,    // the CPU says that it is steady, and Linux has not found otherwise
  kMeasured,     // neither, but it passed our test
  kUnsteady,
  kSkewed,  // differs between CPUs
};

inline bool is_trusted(TscTrust trust) {
  return trust == TscTrust::kUsedByLinux || trust == TscTrust::kInvariant ||
         trust == TscTrust::kMeasured;
}

// One reading of Linux's clocks and the counter, taken together.
struct ClockSample {
  uint64_t tsc = 0;
  uint64_t uncertainty_ticks = 0;  // the readings lie at most that far apart
  uint64_t monotonic_ns = 0;
  int64_t realtime_offset_ns = 0;  // CLOCK_REALTIME - CLOCK_MONOTONIC
  int64_t boottime_offset_ns = 0;
};

uint64_t read_host_tsc();
ClockSample sample_clocks();

// Asks Linux and the CPU, which takes microseconds; measures, for some 15 ms, where they don't say.
TscTrust check_tsc();

// The measuring part. `rate_samples` were taken in order on any CPU, at least 1 ms apart;
// `cpu_samples` one on each CPU.
TscTrust judge_samples(const ClockSample* rate_samples, uint32_t rate_count,
                       const ClockSample* cpu_samples, uint32_t cpu_count);

}  // namespace dbos::vmm
