#include "tools/bench/timing.h"

#include <algorithm>
#include <ctime>
#include <vector>

namespace dbos::bench {
namespace {

constexpr double kNsPerSecond = 1e9;
// A clock of 0.2 ms (one exit each way, in the emulated machine) is 1 % of it.
constexpr double kBatchNs = 20e6;
constexpr uint64_t kBatchMax = 1u << 24;
constexpr size_t kSamplesMin = 7;
constexpr size_t kSamplesMax = 200;
constexpr int kClockReadings = 21;

double measured_clock_cost() {
  std::vector<double> differences;
  for (int i = 0; i < kClockReadings; ++i) {
    const double begin = now_ns();
    differences.push_back(now_ns() - begin);
  }
  return Samples(std::move(differences)).median();
}

uint64_t batch_size(const std::function<void(uint64_t)>& batch) {
  uint64_t size = 1;
  while (size < kBatchMax) {
    const double taken = time_ns([&] { batch(size); });
    if (taken >= kBatchNs) break;
    const double factor = taken <= 0 ? 10 : std::clamp(1.2 * kBatchNs / taken, 1.5, 10.0);
    size = static_cast<uint64_t>(static_cast<double>(size) * factor) + 1;
  }
  return size;
}

}  // namespace

double now_ns() {
  timespec now = {};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<double>(now.tv_sec) * kNsPerSecond + static_cast<double>(now.tv_nsec);
}

double clock_cost_ns() {
  static const double cost = measured_clock_cost();
  return cost;
}

double time_ns(const std::function<void()>& work) {
  const double cost = clock_cost_ns();
  const double begin = now_ns();
  work();
  return std::max(0.0, now_ns() - begin - cost);
}

Samples time_batches(Seconds budget, const std::function<void(uint64_t)>& batch) {
  const uint64_t size = batch_size(batch);
  return time_single(
      budget, [] {}, [&] { return time_ns([&] { batch(size); }) / static_cast<double>(size); });
}

Samples time_single(Seconds budget, const std::function<void()>& prepare,
                    const std::function<double()>& measure_ns) {
  std::vector<double> values;
  const double end = now_ns() + budget.count() * kNsPerSecond;
  while (values.size() < kSamplesMax && (values.size() < kSamplesMin || now_ns() < end)) {
    prepare();
    values.push_back(measure_ns());
  }
  return Samples(std::move(values));
}

}  // namespace dbos::bench
