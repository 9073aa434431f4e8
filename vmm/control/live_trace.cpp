#include "vmm/control/live_trace.h"

#include <fmt/core.h>
#include <time.h>

#include <algorithm>

#include "vmm/control/control_session.h"
#include "vmm/host/clock_ns.h"
#include "vmm/observe/trace_rings.h"
#include "vmm/process/exit_watch.h"
#include "vmm/process/vcpu.h"

namespace dbos::vmm {

void LiveTrace::start(ControlSession& session, const TraceFilter& filter) {
  if (owner_ != nullptr && owner_ != &session) {
    throw CommandError(
        fmt::format("process {} traces this program already; one can at a time", owner_->peer));
  }
  switch (start_trace(machine_, filter.calls)) {
    case TraceStart::kBusyWithLog:
      throw CommandError("the program runs under dbos-run --trace, which has its trace");
    case TraceStart::kNoMemory:
      throw CommandError("there is not enough memory for a trace");
    case TraceStart::kStarted:
      break;
  }
  owner_ = &session;
  filter_ = filter;
  lost_ = lost_trace_events();
}

void LiveTrace::stop(ControlSession& session) {
  if (owner_ != &session) return;
  stop_trace();
  // What is there is told of, however much waits already; what is too much is counted.
  if (move_events() == kEventsAtOnce) report_lost(drop_trace_events());
  owner_ = nullptr;
}

void LiveTrace::pump() {
  if (owner_ != nullptr && owner_->output.size() <= kOutputMax) move_events();
}

void LiveTrace::report_lost(uint64_t count) {
  if (count == 0) return;
  owner_->output += Json{{"event", "lost"}, {"count", count}}.dump() + "\n";
}

uint64_t LiveTrace::move_events() {
  std::vector<TraceEvent> events;
  const uint32_t count = vcpus().count();
  uint64_t taken = 0;
  ++first_;  // each is the first one at some time
  for (uint32_t i = 0; i < count; ++i) {
    const uint32_t index = (first_ + i) % count;
    taken += drain_trace_ring(trace_ring(index), taken_of(index), kEventsAtOnce - taken,
                              [&](const TraceEvent& event) {
                                if (filter_.wants(event)) events.push_back(event);
                              });
  }
  std::sort(events.begin(), events.end(),
            [](const TraceEvent& a, const TraceEvent& b) { return a.end_ticks < b.end_ticks; });
  const uint32_t multiplier = observe_control().ns_multiplier;
  const uint64_t now_ticks = __builtin_ia32_rdtsc();
  const uint64_t now_ns = clock_ns(CLOCK_REALTIME);
  for (const TraceEvent& event : events) {
    owner_->output += event_json(event, multiplier, now_ticks, now_ns).dump() + "\n";
  }
  const uint64_t lost = lost_trace_events();
  report_lost(lost - lost_);
  lost_ = lost;
  return taken;
}

}  // namespace dbos::vmm
