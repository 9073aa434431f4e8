// Counts one exit of a vCPU, and times one in kSamplePeriod, or each while somebody looks.
#pragma once

#include "vmm/process/exit_statistics.h"

namespace dbos::vmm {

inline ObserveControl& observe_control() {
  return *reinterpret_cast<ObserveControl*>(kObserveControlAddress);
}

class ExitWatch {
 public:
  ExitWatch(ExitStatistics& statistics, ExitKind kind,
            const ObserveControl& control = observe_control())
      : statistics_(statistics), control_(control), index_(static_cast<uint32_t>(kind)) {
    ++statistics.exits[index_];
    is_timed_ = (control_.flags.load(std::memory_order_relaxed) & kObserveTimeAll) != 0;
    if (statistics.until_sample-- == 0) {
      statistics.until_sample = kSamplePeriod - 1;
      is_timed_ = true;
    }
    if (is_timed_) begin_ticks_ = __builtin_ia32_rdtsc();
  }
  void finish() {
    if (!is_timed_) return;
    const uint64_t end = __builtin_ia32_rdtsc();
    const uint64_t passed = end > begin_ticks_ ? end - begin_ticks_ : 0;
    statistics_.handling[index_].add(ns_of(passed, control_.ns_multiplier));
  }

 private:
  ExitStatistics& statistics_;
  const ObserveControl& control_;
  uint32_t index_;
  bool is_timed_;
  uint64_t begin_ticks_ = 0;
};

}  // namespace dbos::vmm
