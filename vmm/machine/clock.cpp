#include "vmm/machine/clock.h"

#include <sched.h>
#include <ctime>

#include <algorithm>
#include <cmath>
#include <optional>

namespace dbos::vmm {

namespace {

constexpr uint64_t kMillisecond = 1'000'000;

// The first rate comes from two samples this far apart: some 15 ppm of error.
constexpr uint64_t kFirstIntervalNs = 2 * kMillisecond;
// A line is good for this many times the interval that its rate was measured over: the error of the
// rate, and so that of the line's end, stays below that of a few samples.
constexpr uint64_t kValidFactor = 8;
constexpr uint64_t kValidNsMin = 20 * kMillisecond;
constexpr uint64_t kValidNsMax = 1000 * kMillisecond;
// What the rate can't have changed by: the machine slept or moved in between.
constexpr double kRateChangeMax = 1000e-6;
// A line is never flatter than this, however far ahead of Linux the page is.
constexpr double kSlopeMin = 0.5;
constexpr uint64_t kClaimNs = 1000 * kMillisecond;  // far above what a busy host delays a thread
constexpr int kWaitTurns = 200;

class RealClocks final : public HostClocks {
 public:
  uint64_t tsc() override { return read_host_tsc(); }
  ClockSample sample() override { return sample_clocks(); }
  void pause(uint64_t nanoseconds) override {
    const timespec time{static_cast<time_t>(nanoseconds / 1'000'000'000),
                        static_cast<long>(nanoseconds % 1'000'000'000)};
    nanosleep(&time, nullptr);
  }
};

std::optional<ClockWriter> the_writer;

// Release: whoever reads a field of this line sees that the line before it was published.
template <typename T>
void store(T& field, T value) {
  __atomic_store_n(&field, value, __ATOMIC_RELEASE);
}
template <typename T>
T load(const T& field) {
  return __atomic_load_n(&field, __ATOMIC_RELAXED);
}

uint64_t scale(uint64_t ticks, const ClockParameters& line) {
  return static_cast<uint64_t>((static_cast<unsigned __int128>(ticks) * load(line.multiplier)) >>
                               (load(line.shift) & 63));
}

}  // namespace

HostClocks& host_clocks() {
  static RealClocks clocks;
  return clocks;
}

ClockWriter::ClockWriter(ClockPage& page, HostClocks& clocks) : page_(page), clocks_(clocks) {
  page_.abi_version = kAbiVersion;
  page_.enabled = 0;
  last_ = clocks_.sample();
}

void ClockWriter::start() {
  ClockSample sample = clocks_.sample();
  if (sample.monotonic_ns - last_.monotonic_ns < kFirstIntervalNs) {
    clocks_.pause(kFirstIntervalNs);
    sample = clocks_.sample();
  }
  if (!update_rate(sample)) return;
  claim_ticks_ = static_cast<uint64_t>(static_cast<double>(kClaimNs) * ticks_per_ns_);
  publish(sample, make_line(sample), UINT64_MAX);
  __atomic_store_n(&page_.enabled, 1, __ATOMIC_RELEASE);
}

void ClockWriter::refresh() {
  if (load(page_.enabled) == 0) return;
  for (int turn = 0; turn < kWaitTurns; ++turn) {
    const uint64_t now = clocks_.tsc();
    if (!is_out_of_date(now)) return;
    uint64_t claimed = 0;
    if (claim(now, &claimed)) {
      if (is_out_of_date(now)) draw(claimed);
      claim_.compare_exchange_strong(claimed, 0, std::memory_order_release);
      return;
    }
    sched_yield();
  }
}

void ClockWriter::turn_off() {
  __atomic_store_n(&page_.enabled, 0, __ATOMIC_RELEASE);
}

// Whoever finds a claim that has expired takes it over.
bool ClockWriter::claim(uint64_t now, uint64_t* claimed) {
  uint64_t seen = claim_.load(std::memory_order_relaxed);
  if (seen > now) return false;
  *claimed = now + claim_ticks_;
  return claim_.compare_exchange_strong(seen, *claimed, std::memory_order_acquire);
}

void ClockWriter::draw(uint64_t claimed) {
  const ClockSample sample = clocks_.sample();
  if (!update_rate(sample)) {
    turn_off();
    return;
  }
  publish(sample, make_line(sample), claimed);
}

bool ClockWriter::is_out_of_date(uint64_t tsc) const {
  const ClockParameters& now =
      page_.parameters[__atomic_load_n(&page_.generation, __ATOMIC_ACQUIRE) & 1];
  // Signed: another CPU's counter may lag behind the line's beginning.
  const uint64_t ticks = tsc - load(now.tsc_base);
  return static_cast<int64_t>(ticks) > static_cast<int64_t>(load(now.tsc_valid_ticks));
}

// The highest time that a program can have read from the page by now.
uint64_t ClockWriter::last_readable_ns(uint64_t tsc) const {
  const ClockParameters& now = page_.parameters[load(page_.generation) & 1];
  const int64_t ticks = static_cast<int64_t>(tsc - load(now.tsc_base));
  // The guest can write the page, a bound below 0 too.
  const int64_t valid = std::max(static_cast<int64_t>(load(now.tsc_valid_ticks)), int64_t{0});
  const uint64_t readable = static_cast<uint64_t>(std::clamp(ticks, int64_t{0}, valid));
  return load(now.monotonic_base_ns) + scale(readable, now);
}

// False: the counter can't be trusted any more.
bool ClockWriter::update_rate(const ClockSample& sample) {
  if (sample.tsc <= last_.tsc || sample.monotonic_ns <= last_.monotonic_ns) return false;
  const uint64_t interval_ns = sample.monotonic_ns - last_.monotonic_ns;
  const double rate =
      static_cast<double>(sample.tsc - last_.tsc) / static_cast<double>(interval_ns);
  last_ = sample;
  if (ticks_per_ns_ != 0 && std::abs(rate / ticks_per_ns_ - 1) > kRateChangeMax) {
    // The next line is short, and its rate is measured anew, so that a change that stays is
    // followed.
    const bool again = interval_ns_ == 0;
    interval_ns_ = 0;
    if (again) ticks_per_ns_ = rate;
    return true;
  }
  ticks_per_ns_ = rate;
  interval_ns_ = interval_ns;
  return true;
}

ClockWriter::Line ClockWriter::make_line(const ClockSample& sample) const {
  const uint64_t valid_ns = std::clamp(interval_ns_ * kValidFactor, kValidNsMin, kValidNsMax);
  const double valid_ticks = static_cast<double>(valid_ns) * ticks_per_ns_;
  Line line;
  line.valid_ticks = static_cast<uint64_t>(valid_ticks);
  line.base_ns = sample.monotonic_ns;
  double slope = 1;
  const uint64_t readable_ns = last_readable_ns(sample.tsc);
  if (readable_ns > sample.monotonic_ns) {
    line.base_ns = readable_ns;
    const double ahead_ns = static_cast<double>(readable_ns - sample.monotonic_ns);
    slope = std::max(1 - ahead_ns / static_cast<double>(valid_ns), kSlopeMin);
  }
  line.ns_per_tick = slope / ticks_per_ns_;
  return line;
}

void ClockWriter::publish(const ClockSample& sample, const Line& line, uint64_t claimed) {
  uint64_t generation = load(page_.generation);
  ClockParameters& next = page_.parameters[(generation + 1) & 1];
  // The multiplier shall use its 32 bits: 2^31 <= ns_per_tick * 2^shift < 2^32.
  int exponent = 0;
  std::frexp(line.ns_per_tick, &exponent);
  const uint32_t shift = static_cast<uint32_t>(std::clamp(32 - exponent, 0, 63));
  const double multiplier = std::ldexp(line.ns_per_tick, static_cast<int>(shift));

  if (clocks_.tsc() >= claimed) return;  // it took too long: someone else may be writing
  store(next.tsc_base, sample.tsc);
  store(next.monotonic_base_ns, line.base_ns);
  store(next.realtime_offset_ns, sample.realtime_offset_ns);
  store(next.boottime_offset_ns, sample.boottime_offset_ns);
  store(next.tsc_valid_ticks, line.valid_ticks);
  store(next.multiplier,
        static_cast<uint32_t>(std::min(multiplier, static_cast<double>(UINT32_MAX))));
  store(next.shift, shift);
  __atomic_compare_exchange_n(&page_.generation, &generation, generation + 1, false,
                              __ATOMIC_RELEASE, __ATOMIC_RELAXED);
}

ClockWriter& start_clock(ClockPage& page) {
  the_writer.emplace(page);
  the_writer->start();
  return *the_writer;
}

bool refresh_clock(bool guest_has_host_tsc) {
  if (!the_writer.has_value() || !the_writer->is_enabled()) return true;
  if (guest_has_host_tsc) {
    the_writer->refresh();
  } else {
    the_writer->turn_off();
  }
  return the_writer->is_enabled();
}

}  // namespace dbos::vmm
