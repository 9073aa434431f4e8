#include "vmm/machine/tsc_check.h"

#include <cpuid.h>
#include <fcntl.h>
#include <sched.h>
#include <unistd.h>
#include <ctime>

#include <algorithm>
#include <cmath>
#include <string_view>
#include <thread>
#include <vector>

#include "vmm/host/clock_ns.h"

namespace dbos::vmm {

namespace {

#define DBOS_CLOCK_SOURCE "/sys/devices/system/clocksource/clocksource0/"
constexpr const char* kCurrentClockSource = DBOS_CLOCK_SOURCE "current_clocksource";
constexpr const char* kAvailableClockSources = DBOS_CLOCK_SOURCE "available_clocksource";

constexpr uint32_t kIntervals = 4;
constexpr long kIntervalNs = 3'000'000;
constexpr uint32_t kCpusMax = 16;
constexpr uint32_t kReadingsPerSample = 8;

// NTP turns Linux's clock by at most 500 ppm; a counter that follows the CPU's frequency changes by
// per cents.
constexpr double kRateTolerance = 500e-6;
constexpr double kSkewToleranceNs = 2000;
// A reading less sharp than this decides nothing.
constexpr double kUncertaintyMax = 2000e-6;

// The difference of another clock to CLOCK_MONOTONIC, from the sharpest of a few readings.
int64_t offset_of(clockid_t clock) {
  int64_t best = 0;
  uint64_t best_width = UINT64_MAX;
  for (int i = 0; i < 3; ++i) {
    const uint64_t before = clock_ns(CLOCK_MONOTONIC);
    const uint64_t other = clock_ns(clock);
    const uint64_t width = clock_ns(CLOCK_MONOTONIC) - before;
    if (width >= best_width) continue;
    best_width = width;
    best = static_cast<int64_t>(other - before - width / 2);
  }
  return best;
}

// The first bytes of a file, empty if it can't be read.
std::string_view read_text(const char* path, char* buffer, size_t size) {
  const int descriptor = open(path, O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) return {};
  const ssize_t length = read(descriptor, buffer, size);
  close(descriptor);
  return length > 0 ? std::string_view(buffer, static_cast<size_t>(length)) : std::string_view();
}

bool names_tsc(std::string_view text) {
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find_first_of(" \n", begin), text.size());
    if (text.substr(begin, end - begin) == "tsc") return true;
    begin = end + 1;
  }
  return false;
}

bool cpu_says_invariant() {
  unsigned eax = 0;
  unsigned ebx = 0;
  unsigned ecx = 0;
  unsigned edx = 0;
  return __get_cpuid(0x80000007, &eax, &ebx, &ecx, &edx) != 0 && (edx & (1u << 8)) != 0;
}

std::vector<ClockSample> sample_each_cpu() {
  std::vector<ClockSample> samples;
  // A thread of its own, so that this one's affinity stays what the user set.
  std::thread([&samples] {
    cpu_set_t allowed;
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return;
    for (int cpu = 0; cpu < CPU_SETSIZE && samples.size() < kCpusMax; ++cpu) {
      if (!CPU_ISSET(cpu, &allowed)) continue;
      cpu_set_t one;
      CPU_ZERO(&one);
      CPU_SET(cpu, &one);
      if (sched_setaffinity(0, sizeof one, &one) == 0) samples.push_back(sample_clocks());
    }
  }).join();
  return samples;
}

TscTrust measure_tsc() {
  ClockSample samples[kIntervals + 1];
  samples[0] = sample_clocks();
  for (uint32_t i = 1; i <= kIntervals; ++i) {
    const timespec pause{0, kIntervalNs};
    nanosleep(&pause, nullptr);
    samples[i] = sample_clocks();
  }
  const std::vector<ClockSample> cpus = sample_each_cpu();
  return judge_samples(samples, kIntervals + 1, cpus.data(), static_cast<uint32_t>(cpus.size()));
}

}  // namespace

uint64_t read_host_tsc() {
  uint32_t low;
  uint32_t high;
  asm volatile("lfence\n\trdtsc" : "=a"(low), "=d"(high) : : "memory");
  return (static_cast<uint64_t>(high) << 32) | low;
}

ClockSample sample_clocks() {
  ClockSample sample;
  sample.uncertainty_ticks = UINT64_MAX;
  for (uint32_t i = 0; i < kReadingsPerSample; ++i) {
    const uint64_t before = read_host_tsc();
    const uint64_t monotonic = clock_ns(CLOCK_MONOTONIC);
    const uint64_t width = read_host_tsc() - before;
    if (width >= sample.uncertainty_ticks) continue;
    sample.uncertainty_ticks = width;
    sample.tsc = before + width / 2;
    sample.monotonic_ns = monotonic;
  }
  sample.realtime_offset_ns = offset_of(CLOCK_REALTIME);
  sample.boottime_offset_ns = offset_of(CLOCK_BOOTTIME);
  return sample;
}

TscTrust check_tsc() {
  char text[256];
  if (names_tsc(read_text(kCurrentClockSource, text, sizeof text))) return TscTrust::kUsedByLinux;
  const std::string_view available = read_text(kAvailableClockSources, text, sizeof text);
  // Linux takes a counter that it found unsteady off this list.
  if (cpu_says_invariant() && (available.empty() || names_tsc(available)))
    return TscTrust::kInvariant;
  return measure_tsc();
}

TscTrust judge_samples(const ClockSample* rate_samples, uint32_t rate_count,
                       const ClockSample* cpu_samples, uint32_t cpu_count) {
  const ClockSample& first = rate_samples[0];
  const ClockSample& last = rate_samples[rate_count - 1];
  if (last.tsc <= first.tsc || last.monotonic_ns <= first.monotonic_ns) return TscTrust::kUnsteady;
  const double rate = static_cast<double>(last.tsc - first.tsc) /
                      static_cast<double>(last.monotonic_ns - first.monotonic_ns);
  for (uint32_t i = 1; i < rate_count; ++i) {
    const ClockSample& a = rate_samples[i - 1];
    const ClockSample& b = rate_samples[i];
    const auto elapsed_ns =
        static_cast<double>(b.monotonic_ns) - static_cast<double>(a.monotonic_ns);
    const auto ticks = static_cast<double>(static_cast<int64_t>(b.tsc - a.tsc));
    const double expected = elapsed_ns * rate;
    const double uncertainty =
        static_cast<double>(a.uncertainty_ticks + b.uncertainty_ticks) / 2 / expected;
    if (uncertainty > kUncertaintyMax) return TscTrust::kUnsteady;
    if (std::abs(ticks / expected - 1) > kRateTolerance + uncertainty) return TscTrust::kUnsteady;
  }
  for (uint32_t i = 0; i < cpu_count; ++i) {
    const ClockSample& cpu = cpu_samples[i];
    const auto elapsed_ns =
        static_cast<double>(static_cast<int64_t>(cpu.monotonic_ns - last.monotonic_ns));
    const auto ticks = static_cast<double>(static_cast<int64_t>(cpu.tsc - last.tsc));
    const double skew_ns = std::abs(ticks / rate - elapsed_ns);
    const double uncertainty_ns =
        static_cast<double>(cpu.uncertainty_ticks + last.uncertainty_ticks) / 2 / rate;
    const double drift_ns = std::abs(elapsed_ns) * kRateTolerance;
    if (skew_ns > kSkewToleranceNs + uncertainty_ns + drift_ns) return TscTrust::kSkewed;
  }
  return TscTrust::kMeasured;
}

}  // namespace dbos::vmm
