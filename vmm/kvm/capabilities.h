// What the machine must offer before anything is started.
#pragma once

#include <cstdint>
#include <string>

namespace dbos::vmm {

// Of a virtual machine or a vCPU. 0 or -errno.
int64_t enable_capability(int descriptor, uint32_t number, uint64_t argument);

// PAUSE stays in the guest, as it does for programs of Linux's: in ring 0 processors count it (SDM
// volume 3, "PAUSE-loop exiting"), and KVM would look through all vCPUs for one to run instead.
// Before the first vCPU. 0 or -errno; where KVM can't, nothing changes.
int64_t keep_pause_in_guest(int vm_descriptor);

// The sentence that names each missing capability; empty when there is none.
std::string missing_capabilities(int kvm_descriptor);

}  // namespace dbos::vmm
