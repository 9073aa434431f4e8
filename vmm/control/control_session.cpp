#include "vmm/control/control_session.h"

namespace dbos::vmm {

void ControlContext::update_timing(int change) {
  timing_ += change;
  set_time_all(timing_ > 0);
}

void ControlContext::time_all(ControlSession& session, bool on) {
  if (session.times_all == on) return;
  session.times_all = on;
  update_timing(on ? 1 : -1);
}

void ControlContext::time_always() {
  update_timing(1);
}

void ControlContext::end(ControlSession& session) {
  time_all(session, false);
  trace_.stop(session);
  if (session.debugger) session.debugger->close(DebugChannel::Client::kReads);
}

}  // namespace dbos::vmm
