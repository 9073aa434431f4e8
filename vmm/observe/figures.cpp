#include "vmm/observe/figures.h"

namespace dbos::vmm {
namespace {

void add(LatencyHistogram& sum, const LatencyHistogram& part) {
  for (uint32_t i = 0; i < LatencyHistogram::kBuckets; ++i) sum.buckets[i] += part.buckets[i];
  sum.total_ns += part.total_ns;
}

constexpr const char* kServiceNames[] = {
#define DBOS_SERVICE(number, name, ...) name,
#include "hypercall/services.def"
#undef DBOS_SERVICE
};

constexpr CounterName kCounterNames[] = {
#define DBOS_COUNTER(constant, family, label, meaning) \
  {Counter::k##constant, #family, label, meaning},
#include "hypercall/counters.def"
#undef DBOS_COUNTER
};

}  // namespace

const char* call_name(uint32_t index) {
  const syscalls::SystemCall* const call = syscalls::find(index);
  return call == nullptr ? "others" : call->name;
}

const char* service_name(uint32_t index) {
  return kServiceNames[index];
}

std::span<const CounterName> counter_names() {
  return kCounterNames;
}

int64_t free_frames(const Figures& figures) {
  return figures.gauge(GaugeName::kFramesTotal) - figures.gauge(GaugeName::kFramesPages) -
         figures.gauge(GaugeName::kFramesNodes) - figures.gauge(GaugeName::kFramesKernel);
}

uint64_t count_of(const LatencyHistogram& histogram) {
  uint64_t count = 0;
  for (const uint64_t bucket : histogram.buckets) count += bucket;
  return count;
}

uint64_t CallFigures::timed() const {
  return count_of(latency);
}

void add_counters(Figures& figures, const VcpuCounters& counters) {
  figures.calls.resize(kCallIndexCount);
  for (uint32_t i = 0; i < kCallIndexCount; ++i) {
    CallFigures& call = figures.calls[i];
    call.count += counters.calls[i];
    call.failed += counters.failed[i];
    const uint32_t row = __atomic_load_n(&counters.row_of_call[i], __ATOMIC_RELAXED);
    if (row != 0 && row < VcpuCounters::kRows) add(call.latency, counters.rows[row]);
  }
  add(figures.other_calls, counters.rows[0]);
  for (uint32_t i = 0; i < kCounterCount; ++i) figures.events[i] += counters.events[i];
}

void add_exits(ExitStatistics& sum, const ExitStatistics& part) {
  for (uint32_t i = 0; i < kExitKindCount; ++i) {
    sum.exits[i] += part.exits[i];
    add(sum.handling[i], part.handling[i]);
  }
  for (uint32_t i = 0; i < kServiceCount; ++i) sum.services[i] += part.services[i];
  sum.system_calls += part.system_calls;
}

uint64_t age_ns(const Figures& figures, const SpaceView& snapshot) {
  if (snapshot.taken_ticks >= figures.now_ticks) return 0;
  return ns_of(figures.now_ticks - snapshot.taken_ticks, figures.ns_multiplier);
}

}  // namespace dbos::vmm
