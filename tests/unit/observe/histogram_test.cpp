// Latency histograms, a vCPU's rows of them, and the rings of traced calls.
#include <atomic>
#include <catch2/catch.hpp>
#include <memory>
#include <thread>

#include "vmm/observe/trace_rings.h"

namespace dbos {
namespace {

std::unique_ptr<TraceRing> empty_ring() {
  return std::make_unique<TraceRing>();
}

bool add_event(TraceRing& ring, uint32_t number) {
  TraceEvent* const event = ring.reserve();
  if (event == nullptr) return false;
  event->number = number;
  event->result = number;
  ring.commit();
  return true;
}

}  // namespace

TEST_CASE("a bucket holds what took at least its power of two") {
  REQUIRE(LatencyHistogram::bucket_of(0) == 0);
  REQUIRE(LatencyHistogram::bucket_of(1) == 0);
  REQUIRE(LatencyHistogram::bucket_of(2) == 1);
  REQUIRE(LatencyHistogram::bucket_of(3) == 1);
  REQUIRE(LatencyHistogram::bucket_of(4) == 2);
  REQUIRE(LatencyHistogram::bucket_of(1023) == 9);
  REQUIRE(LatencyHistogram::bucket_of(1024) == 10);
  REQUIRE(LatencyHistogram::bucket_of(UINT64_MAX) == LatencyHistogram::kBuckets - 1);
  LatencyHistogram histogram{};
  histogram.add(5);
  histogram.add(7);
  histogram.add(8);
  REQUIRE(histogram.buckets[2] == 2);
  REQUIRE(histogram.buckets[3] == 1);
  REQUIRE(histogram.total_ns == 20);
}

TEST_CASE("calls get rows in the order of their first use, and share one when those are used up") {
  const auto counters = std::make_unique<VcpuCounters>();
  REQUIRE(&counters->row_for(230) == &counters->rows[1]);
  REQUIRE(&counters->row_for(0) == &counters->rows[2]);
  REQUIRE(&counters->row_for(230) == &counters->rows[1]);
  for (uint32_t i = 1; i < 100; ++i) counters->row_for(i);
  REQUIRE(&counters->row_for(61) == &counters->rows[63]);
  REQUIRE(&counters->row_for(62) == &counters->rows[0]);
  REQUIRE(&counters->row_for(400) == &counters->rows[0]);
}

TEST_CASE("a call number that Linux does not have counts as the last one") {
  REQUIRE(call_index(0) == 0);
  REQUIRE(call_index(syscalls::kNumberMax) == syscalls::kNumberMax);
  REQUIRE(call_index(syscalls::kNumberMax + 1) == kCallIndexCount - 1);
  REQUIRE(call_index(UINT64_MAX) == kCallIndexCount - 1);
}

TEST_CASE("ticks become nanoseconds") {
  const uint32_t multiplier = 1 << 24;  // 1 GHz
  REQUIRE(ns_of(12345, multiplier) == 12345);
  REQUIRE(ns_of(uint64_t{1} << 60, multiplier / 2) == uint64_t{1} << 59);
}

TEST_CASE("a ring hands out what was put in, in order, and counts what it had no place for") {
  const auto ring = empty_ring();
  uint64_t taken = 0;
  for (uint32_t i = 0; i < TraceRing::kEvents; ++i) REQUIRE(add_event(*ring, i));
  REQUIRE_FALSE(add_event(*ring, 7777));
  REQUIRE_FALSE(add_event(*ring, 7778));
  REQUIRE(ring->lost.load() == 2);
  uint32_t next = 0;
  const auto check = [&](const TraceEvent& event) { REQUIRE(event.number == next++); };
  REQUIRE(vmm::drain_trace_ring(*ring, taken, TraceRing::kEvents, check) == TraceRing::kEvents);
  for (uint32_t i = 0; i < 10; ++i) REQUIRE(add_event(*ring, TraceRing::kEvents + i));
  REQUIRE(vmm::drain_trace_ring(*ring, taken, 3, check) == 3);
  REQUIRE(vmm::drain_trace_ring(*ring, taken, TraceRing::kEvents, check) == 7);
  REQUIRE(vmm::drain_trace_ring(*ring, taken, TraceRing::kEvents, check) == 0);
}

TEST_CASE("a ring whose counts a guest made up is not followed") {
  const auto ring = empty_ring();
  uint64_t taken = 5;
  ring->written.store(UINT64_MAX - 3);
  uint32_t count = 0;
  vmm::drain_trace_ring(*ring, taken, TraceRing::kEvents, [&](const TraceEvent&) { ++count; });
  REQUIRE(count == 0);
  ring->written.store(2);  // and back
  vmm::drain_trace_ring(*ring, taken, TraceRing::kEvents, [&](const TraceEvent&) { ++count; });
  REQUIRE(count <= TraceRing::kEvents);
}

TEST_CASE("a ring loses nothing between two threads but what it counts") {
  const auto ring = empty_ring();
  constexpr uint32_t kTotal = 200'000;
  std::atomic<bool> is_done{false};
  std::thread producer([&] {
    for (uint32_t i = 0; i < kTotal; ++i) add_event(*ring, i);
    is_done = true;
  });
  uint64_t taken = 0;
  uint64_t received = 0;
  uint64_t disorder = 0;
  uint32_t next = 0;
  for (bool is_last = false; !is_last;) {
    is_last = is_done;
    vmm::drain_trace_ring(*ring, taken, TraceRing::kEvents, [&](const TraceEvent& event) {
      if (event.number < next || event.result != event.number) ++disorder;
      next = event.number + 1;
      ++received;
    });
    if (ring->written.load() != taken) is_last = false;
  }
  producer.join();
  REQUIRE(disorder == 0);
  REQUIRE(received + ring->lost.load() == kTotal);
}

}  // namespace dbos
