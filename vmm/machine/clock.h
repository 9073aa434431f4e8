// The clock page's writer (ClockPage in hypercall/abi.h).
//
// The page describes a straight line, time over the time stamp counter, that is good for a second
// at most. Whoever finds it out of date asks for a new one (Service::kClockRefresh). The line
// begins where Linux's clock is, or, where the old line has run ahead of that, where the old line
// ended, and is then less steep until Linux's clock has caught up: CLOCK_MONOTONIC never goes back.
// A new line is only drawn when nobody can read from the old one any more.
//
// Processes that share this memory may be killed or stopped at any instruction. There is no lock
// but a claim that expires; a writer that finds its claim expired publishes nothing. What remains
// is a writer that is stopped for longer than the claim lasts within the few instructions that fill
// the copy; a lock that it could hold for ever would be worse.
#pragma once

#include <atomic>
#include <cstdint>

#include "hypercall/abi.h"
#include "vmm/machine/tsc_check.h"

namespace dbos::vmm {

// Where the writer gets its time from; tests have their own.
class HostClocks {
 public:
  virtual ~HostClocks() = default;
  virtual uint64_t tsc() = 0;
  virtual ClockSample sample() = 0;
  virtual void pause(uint64_t nanoseconds) = 0;
};
HostClocks& host_clocks();

class ClockWriter {
 public:
  // Takes the first of the two samples that start() needs: make it early.
  explicit ClockWriter(ClockPage& page, HostClocks& clocks = host_clocks());
  ClockWriter(const ClockWriter&) = delete;
  ClockWriter& operator=(const ClockWriter&) = delete;

  // Draws the first line, 2 ms after the first sample at the earliest. Without it the page stays
  // off.
  void start();

  // Brings the page up to date if it is out of date, or waits a moment for who is doing it.
  // Async-signal-safe, and safe in every process that shares this memory.
  void refresh();

  // For good: the guest's counter does not follow the line any more. From any process, at any time.
  void turn_off();

  bool is_enabled() const { return page_.enabled != 0; }
  // As measured by start(); 0 where the counter is not trusted.
  uint64_t tsc_khz() const { return static_cast<uint64_t>(ticks_per_ns_ * 1e6); }

 private:
  struct Line {
    uint64_t base_ns;
    double ns_per_tick;
    uint64_t valid_ticks;
  };

  bool claim(uint64_t now, uint64_t* claimed);
  void draw(uint64_t claimed);
  bool is_out_of_date(uint64_t tsc) const;
  uint64_t last_readable_ns(uint64_t tsc) const;
  bool update_rate(const ClockSample& sample);
  Line make_line(const ClockSample& sample) const;
  void publish(const ClockSample& sample, const Line& line, uint64_t claimed);

  ClockPage& page_;
  HostClocks& clocks_;

  // The counter's value at which the claim expires; 0: free.
  std::atomic<uint64_t> claim_{0};
  uint64_t claim_ticks_ = 0;  // how long it lasts; start() sets it

  // Of the one who has the claim.
  ClockSample last_;
  double ticks_per_ns_ = 0;
  uint64_t interval_ns_ = 0;  // over which the rate was measured
};

// The one writer of this dbos-run. Service::kClockRefresh; before start_clock() it does nothing.
// Linux may find the counter unstable at any time, and KVM then gives each vCPU a counter that
// drifts from the host's: `guest_has_host_tsc` is of the vCPU that asks.
ClockWriter& start_clock(ClockPage& page);
// False: the page has gone off with this call, for good.
bool refresh_clock(bool guest_has_host_tsc);

}  // namespace dbos::vmm
