// The guest kernel's helper: a vCPU on a host thread of the first process that runs no program. The
// guest does there what its threads should not wait for (page tables made ahead of snapshots, pages
// put together after them).
//
// Its host thread blocks all signals but the VMM's own, and debuggers leave it alone. If it is
// killed, its vCPU is adopted like any other (steward.h).
#pragma once

#include <cstdint>

#include "vmm/process/vcpu.h"

namespace dbos::vmm {

// Service::kHelper: starts the helper at the image's entry point with `start_argument`, at once or,
// with DBOS_HELPER_AFTER_FORK, when the first process has forked. Once, by the first process. Where
// no vCPU or host thread is to be had the log says so, and each fork tries again. 0 or -errno:
// EINVAL, EPERM (another process), EALREADY.
int64_t request_helper(Vcpu& creator, uint64_t start_argument, uint64_t flags);

// Starts the helper that is still to be made, if `creator` belongs to the first process.
void start_waiting_helper(Vcpu& creator);

}  // namespace dbos::vmm
