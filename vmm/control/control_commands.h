// The commands that only look: what dbos-dbg asks over the control socket.
#pragma once

#include "vmm/control/control_session.h"

namespace dbos::vmm {

// The answer to a request, or CommandError. Never waits for the guest.
Json perform_command(ControlContext& context, ControlSession& session,
                     const ControlRequest& request);

}  // namespace dbos::vmm
