// An I/O port that the program itself used. Linux gives ring 3 none: a general protection fault.
#pragma once

#include "vmm/machine/vcpu.h"

namespace dbos::vmm {

// By the thread that runs the vCPU, after an exit for a port. False, with nothing done: it was the
// guest kernel that used it.
bool refuse_port(Vcpu& vcpu);

}  // namespace dbos::vmm
