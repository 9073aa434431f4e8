// What the machine must offer before anything is started.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace dbos::vmm {

struct Capability {
  int number;   // KVM_CAP_...
  int minimum;  // least value that KVM_CHECK_EXTENSION must return
  const char* name;
  const char* purpose;  // why we need it, for the error message and the documentation
};

const std::vector<Capability>& required_capabilities();

// Of a virtual machine or a vCPU. 0 or -errno.
int64_t enable_capability(int descriptor, uint32_t number, uint64_t argument);

// The sentence that names each missing capability; empty when there is none.
std::string missing_capabilities(int kvm_descriptor);

}  // namespace dbos::vmm
