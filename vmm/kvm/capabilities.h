// What the machine must offer before anything is started.
#pragma once

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

// The sentence that names each missing capability; empty when there is none.
std::string missing_capabilities(int kvm_descriptor);

}  // namespace dbos::vmm
