// The figures as answers of the control socket.
#pragma once

#include "vmm/control/control_request.h"
#include "vmm/observe/figures.h"

namespace dbos::vmm {

Json frames_json(const Figures& figures);
Json snapshots_json(const Figures& figures);
Json exits_json(const Figures& figures);
// Only calls that were made.
Json calls_json(const Figures& figures);

}  // namespace dbos::vmm
