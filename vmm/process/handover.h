// The descriptors of vCPUs that a forked process makes.
//
// Who adopts the vCPUs of a process that is gone (steward.h) needs their descriptors, which went
// with it. So a forked process posts each one to the steward, through a socket that all processes
// have.
#pragma once

#include "vmm/process/vcpu.h"

namespace dbos::vmm {

// Once, before the first fork. 0 or -errno. Where the hard limit of descriptors is below 64,
// nothing is handed over, and what children with many threads held does not come back.
int64_t open_handover();

// In the process that has just made `vcpu`. False: it failed (Linux allows only so many descriptors
// on their way), and nobody could adopt that vCPU.
bool hand_over(const Vcpu& vcpu);

// In the steward's process, `own`: takes all that have come, as Vcpu::handed_over. Does not block.
void receive_descriptors(const HostProcess& own);

// Whether `own` was handed the vCPU's descriptor.
bool can_lend(const Vcpu& vcpu, const HostProcess& own);
// For the time of an adoption: the vCPU's descriptor is that of `own`, its creator's or the one
// that it was handed. At its end, before the vCPU is free again, `descriptor` is `made_as`. An
// adopter that is killed in between leaves nothing that the next one could take for something else.
void use_descriptor_of(Vcpu& vcpu, const HostProcess& own);

// The free vCPUs that `own` was handed and whose makers are gone: from now on `own` has made them.
// Nobody else could use them any more, and KVM takes none back.
void take_over_free_vcpus(const HostProcess& own);

}  // namespace dbos::vmm
