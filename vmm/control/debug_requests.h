// The requests of dbos-dbg that look at the stopped program, or change its breakpoints.
#pragma once

#include "vmm/control/control_request.h"
#include "vmm/debug/stop.h"

namespace dbos::vmm {

// The vCPU of the thread that the arguments name; without one, of the first. Throws CommandError.
uint32_t chosen_vcpu(const Json& arguments);

// The answer to a request of debug_session.h that neither lets the program go on nor stops it.
// Throws CommandError.
Json perform_debug_request(const ControlRequest& request);

// {"event": "stop", ...}
Json stop_json(const StopEvent& event);

}  // namespace dbos::vmm
