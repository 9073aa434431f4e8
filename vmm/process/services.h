// The VMM's own services (hypercall/services.def).
#pragma once

#include <cstdint>

#include "hypercall/abi.h"
#include "vmm/process/vcpu.h"

namespace dbos::vmm {

// Performs a service for the thread that runs `vcpu`. The call is a copy that the guest can't
// change. Result, errors, and what it may wait for: hypercall/services.def; -ENOSYS for a number
// that is no service's. Those that end the thread or process don't come back.
int64_t execute_service(Vcpu& vcpu, const Call& call);

// Service::kThreadCreate or kProcessFork.
bool makes_child(const Call& call);

// Whether an adopted vCPU that makes the call has released all that it held.
bool ends_thread(const Call& call);

}  // namespace dbos::vmm
