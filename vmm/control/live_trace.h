// `dbos-dbg trace`: takes traced calls out of all vCPUs' rings and turns those that a client wants
// into lines of JSON. One client at a time.
#pragma once

#include "vmm/control/trace_filter.h"
#include "vmm/machine/machine.h"

namespace dbos::vmm {

struct ControlSession;

class LiveTrace {
 public:
  explicit LiveTrace(Machine& machine) : machine_(machine) {}

  bool is_on() const { return owner_ != nullptr; }
  // Throws CommandError where somebody traces already.
  void start(ControlSession& session, const TraceFilter& filter);
  void stop(ControlSession& session);
  // Moves what there is to the owner's output, until that is full; the rings then count what they
  // lose.
  void pump();

 private:
  static constexpr size_t kOutputMax = 1024 * 1024;
  static constexpr uint64_t kEventsAtOnce = 16384;  // some 16 MB of JSON; the rings hold the rest

  uint64_t move_events();  // how many were taken out of the rings
  void report_lost(uint64_t count);

  Machine& machine_;
  ControlSession* owner_ = nullptr;
  TraceFilter filter_;
  uint32_t first_ = 0;  // whose ring is looked at first, in turn
  uint64_t lost_ = 0;   // that the client knows of
};

}  // namespace dbos::vmm
