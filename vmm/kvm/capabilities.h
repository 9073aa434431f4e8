// What the machine must offer before anything is started.
#pragma once

#include <cstdint>
#include <string>

namespace dbos::vmm {

// Of a virtual machine or a vCPU. 0 or -errno.
int64_t enable_capability(int descriptor, uint32_t number, uint64_t argument);

// The sentence that names each missing capability; empty when there is none.
std::string missing_capabilities(int kvm_descriptor);

}  // namespace dbos::vmm
