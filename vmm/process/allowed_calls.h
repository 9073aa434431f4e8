// Which calls a vCPU may make that no thread of the program runs.
//
// The rights of a host thread are its own: what the program gives up later with setuid, capset or
// prctl, the threads that it does not know keep. The guest is not believed about what it runs
// there, so such a vCPU gets only the few calls that a guest kernel needs.
#pragma once

#include "hypercall/abi.h"
#include "vmm/machine/window.h"
#include "vmm/process/vcpu.h"

namespace dbos::vmm {

// An adopted vCPU (steward.h) runs on a thread of another process, or of the VMM's own; the helper
// (helper.h) on one that began before the program gave anything up. The program's may make all.
bool is_allowed(const Vcpu& vcpu, const Call& call, const Window& window);

}  // namespace dbos::vmm
