// What KVM leaves the guest for and the program may not do itself: an I/O port, `hlt`. In ring 3 it
// is a general protection fault.
#pragma once

#include "vmm/process/vcpu.h"

namespace dbos::vmm {

// By the thread that runs the vCPU, after an exit for a port. False, with nothing done: it was the
// guest kernel that used it.
bool refuse_port(Vcpu& vcpu);
// The same after an exit for `hlt`, with which musl ends a program that is broken beyond doubt.
bool refuse_halt(Vcpu& vcpu);

}  // namespace dbos::vmm
