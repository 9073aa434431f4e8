// The clock page: its writer with clocks of our own, its readers, and both with the real ones.
#include "vmm/machine/clock.h"

#include <ctime>

#include <catch2/catch.hpp>
#include <cmath>
#include <thread>
#include <vector>

#include "guest/vdso/clock_read.h"

namespace dbos::vmm {
namespace {

constexpr uint64_t kSecond = 1'000'000'000;

// A machine whose counter ticks at 2.5 GHz and whose Linux runs a little fast or slow.
class FakeClocks final : public HostClocks {
 public:
  double now_ns = 1e9;    // true time
  double linux_rate = 1;  // Linux's ns per ns of true time
  double linux_ns = 5e9;
  int64_t realtime_offset = 1'000;
  double tsc_per_ns = 2.5;
  double tsc_value = 7e9;
  int samples = 0;

  void advance(double ns) {
    now_ns += ns;
    linux_ns += ns * linux_rate;
    tsc_value += ns * tsc_per_ns;
  }
  uint64_t tsc() override { return static_cast<uint64_t>(tsc_value); }
  ClockSample sample() override {
    ++samples;
    ClockSample sample;
    sample.tsc = tsc();
    sample.uncertainty_ticks = 50;
    sample.monotonic_ns = static_cast<uint64_t>(linux_ns);
    sample.realtime_offset_ns = realtime_offset;
    sample.boottime_offset_ns = 77;
    return sample;
  }
  void pause(uint64_t nanoseconds) override { advance(static_cast<double>(nanoseconds)); }
};

struct Fixture {
  alignas(4096) ClockPage page{};
  FakeClocks clocks;
  ClockWriter writer{page, clocks};

  Fixture() {
    clocks.advance(3e6);
    writer.start();
  }
  ClockAnswer read(uint32_t clock, uint64_t& ns) {
    return read_clock_page(
        page, clock, [this] { return clocks.tsc(); }, ns);
  }
  // As a program reads: asks for a refresh where the page is out of date.
  uint64_t now(uint32_t clock = clock_id::kMonotonic) {
    uint64_t ns = 0;
    if (read(clock, ns) == ClockAnswer::kStale) {
      writer.refresh();
      REQUIRE(read(clock, ns) == ClockAnswer::kRead);
    }
    return ns;
  }
  double error() { return static_cast<double>(now()) - clocks.linux_ns; }
};

ClockSample sample_at(uint64_t ns, double rate, int64_t extra_ticks = 0) {
  ClockSample sample;
  sample.monotonic_ns = ns;
  sample.tsc =
      static_cast<uint64_t>(static_cast<double>(ns) * rate + static_cast<double>(extra_ticks));
  sample.uncertainty_ticks = 100;
  return sample;
}

uint64_t linux_ns(clockid_t clock) {
  timespec time{};
  clock_gettime(clock, &time);
  return static_cast<uint64_t>(time.tv_sec) * kSecond + static_cast<uint64_t>(time.tv_nsec);
}

}  // namespace

TEST_CASE("the page follows Linux's clock") {
  Fixture f;
  REQUIRE(f.writer.is_enabled());
  CHECK(f.writer.tsc_khz() == 2'500'000);
  for (int i = 0; i < 1000; ++i) {
    f.clocks.advance(7.3e6);
    CHECK(std::abs(f.error()) < 10);
  }
}

TEST_CASE("the realtime and boottime clocks have their offsets") {
  Fixture f;
  const uint64_t monotonic = f.now();
  CHECK(f.now(clock_id::kRealtime) == monotonic + 1000);
  CHECK(f.now(clock_id::kBoottime) == monotonic + 77);
  CHECK(f.now(clock_id::kMonotonicCoarse) == monotonic);
  uint64_t ns = 0;
  CHECK(f.read(4, ns) == ClockAnswer::kUnknown);
  CHECK(f.read(clock_id::kRealtimeCoarse, ns) == ClockAnswer::kUnknown);
  CHECK(f.read(11, ns) == ClockAnswer::kUnknown);
  CHECK(f.read(1000, ns) == ClockAnswer::kUnknown);
  f.clocks.realtime_offset = -50'000'000;  // somebody sets the clock
  f.clocks.advance(2e9);
  CHECK(static_cast<int64_t>(f.now(clock_id::kRealtime) - f.now()) == -50'000'000);
}

TEST_CASE("a page out of date is not read") {
  Fixture f;
  uint64_t ns = 0;
  CHECK(f.read(clock_id::kMonotonic, ns) == ClockAnswer::kRead);
  f.clocks.advance(2e9);
  CHECK(f.read(clock_id::kMonotonic, ns) == ClockAnswer::kStale);
  f.writer.refresh();
  CHECK(f.read(clock_id::kMonotonic, ns) == ClockAnswer::kRead);
}

TEST_CASE("a counter that lags on another CPU reads the line's beginning") {
  Fixture f;
  const uint64_t now = f.now();
  f.clocks.tsc_value -= 1000;
  CHECK(f.now() <= now);
  CHECK(now - f.now() <= 400);
}

TEST_CASE("monotonic time never steps back, whatever NTP does to Linux's clock") {
  Fixture f;
  uint64_t before = 0;
  uint32_t seed = 1;
  for (int i = 0; i < 20000; ++i) {
    seed = seed * 1664525 + 1013904223;
    if (i % 500 == 0)
      f.clocks.linux_rate = 1 + (static_cast<double>(seed >> 16) - 32768) / 65.536e6;
    f.clocks.advance(1e6 + (seed >> 8));
    const uint64_t now = f.now();
    REQUIRE(now >= before);
    before = now;
    REQUIRE(std::abs(static_cast<double>(now) - f.clocks.linux_ns) < 1.1e6);
  }
  f.clocks.linux_rate = 1;
  for (int i = 0; i < 5; ++i) {
    f.clocks.advance(1.1e9);
    f.now();
  }
  CHECK(std::abs(f.error()) < 10);
}

TEST_CASE("a counter that went back turns the page off") {
  Fixture f;
  f.clocks.advance(2e9);
  f.now();
  f.clocks.tsc_value -= 1e9;
  f.clocks.advance(1);
  f.writer.refresh();  // still within the line, or before it
  f.clocks.tsc_value = 1e9;
  f.page.parameters[f.page.generation & 1].tsc_base = 0;
  f.page.parameters[f.page.generation & 1].tsc_valid_ticks = 1;
  f.writer.refresh();
  CHECK_FALSE(f.writer.is_enabled());
  uint64_t ns = 0;
  CHECK(f.read(clock_id::kMonotonic, ns) == ClockAnswer::kUnknown);
}

TEST_CASE(
    "a guest's counter that is not the host's turns the page off, also before it is out of date") {
  alignas(4096) static ClockPage page{};
  CHECK(refresh_clock(false));  // there is no page yet
  const ClockWriter& writer = start_clock(page);
  REQUIRE(writer.is_enabled());
  CHECK(refresh_clock(true));
  CHECK(writer.is_enabled());
  CHECK_FALSE(refresh_clock(false));
  CHECK_FALSE(writer.is_enabled());
  uint64_t ns = 0;
  CHECK(read_clock_page(page, clock_id::kMonotonic, read_tsc_ordered, ns) == ClockAnswer::kUnknown);
  CHECK(refresh_clock(true));  // it has been off
  CHECK_FALSE(writer.is_enabled());
}

TEST_CASE("a rate that has changed for good is followed") {
  Fixture f;
  f.clocks.tsc_per_ns = 2.6;
  for (int i = 0; i < 10; ++i) {
    f.clocks.advance(1.1e9);
    f.now();
  }
  f.clocks.advance(0.5e9);
  CHECK(std::abs(f.error()) < 100);
}

TEST_CASE("readers see one line or the other while it is redrawn") {
  static ClockPage page{};
  static ClockWriter writer(page);
  writer.start();
  REQUIRE(page.enabled == 1);
  std::atomic<bool> stop{false};
  std::vector<std::thread> readers;
  std::atomic<uint64_t> latest{0};
  std::atomic<int> steps_back{0};
  for (int i = 0; i < 3; ++i) {
    readers.emplace_back([&] {
      while (!stop) {
        const uint64_t seen = latest.load();
        uint64_t now = 0;
        const ClockAnswer answer =
            read_clock_page(page, clock_id::kMonotonic, read_tsc_ordered, now);
        if (answer == ClockAnswer::kStale) writer.refresh();
        if (answer != ClockAnswer::kRead) continue;
        // Another CPU's counter may lag by some ticks, on hosts that don't promise otherwise.
        if (now + 200 < seen) ++steps_back;
        uint64_t before = latest.load();
        while (now > before && !latest.compare_exchange_weak(before, now)) {
        }
      }
    });
  }
  std::this_thread::sleep_for(std::chrono::milliseconds(250));
  stop = true;
  for (std::thread& reader : readers) reader.join();
  CHECK(steps_back == 0);
  uint64_t now = 0;
  writer.refresh();
  const uint64_t before = linux_ns(CLOCK_MONOTONIC);
  REQUIRE(read_clock_page(page, clock_id::kMonotonic, read_tsc_ordered, now) == ClockAnswer::kRead);
  const uint64_t after = linux_ns(CLOCK_MONOTONIC);
  CHECK(now + 1'000'000 > before);
  CHECK(now < after + 1'000'000);
}

TEST_CASE("a steady counter passes, one that follows the CPU's frequency does not") {
  std::vector<ClockSample> steady;
  for (uint64_t i = 0; i < 5; ++i) steady.push_back(sample_at(kSecond + i * 4'000'000, 2.5));
  CHECK(judge_samples(steady.data(), 5, steady.data() + 4, 1) == TscTrust::kMeasured);
  std::vector<ClockSample> unsteady = steady;
  for (size_t i = 3; i < 5; ++i) unsteady[i].tsc += (i - 2) * 500'000;
  CHECK(judge_samples(unsteady.data(), 5, nullptr, 0) == TscTrust::kUnsteady);
  std::vector<ClockSample> vague = steady;
  vague[2].uncertainty_ticks = 1'000'000;
  CHECK(judge_samples(vague.data(), 5, nullptr, 0) == TscTrust::kUnsteady);
  std::vector<ClockSample> backward = steady;
  backward[4].tsc = 0;
  CHECK(judge_samples(backward.data(), 5, nullptr, 0) == TscTrust::kUnsteady);
}

TEST_CASE("a counter that differs between CPUs is not trusted") {
  std::vector<ClockSample> rates;
  for (uint64_t i = 0; i < 5; ++i) rates.push_back(sample_at(kSecond + i * 4'000'000, 2.5));
  std::vector<ClockSample> cpus = {sample_at(kSecond + 16'100'000, 2.5),
                                   sample_at(kSecond + 16'200'000, 2.5, 2'500)};
  CHECK(judge_samples(rates.data(), 5, cpus.data(), 2) == TscTrust::kMeasured);
  cpus[1] = sample_at(kSecond + 16'200'000, 2.5, 250'000);
  CHECK(judge_samples(rates.data(), 5, cpus.data(), 2) == TscTrust::kSkewed);
}

}  // namespace dbos::vmm
