// Service::kExecute: execve for the program.
#pragma once

#include <cstdint>

#include "hypercall/abi.h"
#include "vmm/process/vcpu.h"

namespace dbos::vmm {

// Replaces the calling host process by another program, which runs on Linux itself. Returns only on
// failure, with -errno.
int64_t execute_program(Vcpu& vcpu, const Call& call);

// In a new process, before anything of ours takes memory: the limits of the VMM's own, should the
// parent have been in execve when Linux copied its.
void set_own_limits(const HostProcess& process);

}  // namespace dbos::vmm
