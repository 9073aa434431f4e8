// What a fork leaves to be done, so that it keeps its caller as short as possible: a vCPU for the
// next one, the steward, the helper.
//
// Making a vCPU takes the lowest free descriptor for a moment, which the program must not see, so a
// thread of the process itself makes it, before one of its calls; it takes milliseconds where KVM
// is emulated. Hence: before a call that waits anyway as many as are wanted, one each time; before
// others, but never a fork, only if the next fork would find none. What waits for other threads is
// the steward's.
#pragma once

#include "hypercall/abi.h"
#include "vmm/process/vcpu.h"

namespace dbos::vmm {

// vCPUs that are ready at the start: for the first fork, the helper, and the next fork.
inline constexpr uint32_t kReadyAtStart = 3;

// Before `call` of a process whose HostProcess::after_fork is not kNothing.
void tidy_up_after_fork(Vcpu& vcpu, const Call& call);

}  // namespace dbos::vmm
