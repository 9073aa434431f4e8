// Who is connected to the control socket, and what they asked for that goes on.
#pragma once

#include <sys/types.h>

#include <memory>
#include <string>

#include "vmm/control/control_request.h"
#include "vmm/control/debug_channel.h"
#include "vmm/control/live_trace.h"
#include "vmm/machine/machine.h"

namespace dbos::vmm {

struct ControlSession {
  pid_t peer = 0;
  bool is_admitted = false;
  bool times_all = false;
  std::string output;                      // lines on their way to the client
  std::shared_ptr<DebugChannel> debugger;  // from "debug" on: who answers what it sends
};

// All of it belongs to the control thread.
class ControlContext {
 public:
  explicit ControlContext(Machine& machine) : machine_(machine), trace_(machine) {}

  Machine& machine() { return machine_; }
  LiveTrace& trace() { return trace_; }

  // Every call and exit is timed while one session wants it.
  void time_all(ControlSession& session, bool on);
  // --metrics: as long as the program runs.
  void time_always();
  // What the session asked for ends with it.
  void end(ControlSession& session);

 private:
  void update_timing(int change);

  Machine& machine_;
  LiveTrace trace_;
  int timing_ = 0;  // how many want it
};

}  // namespace dbos::vmm
