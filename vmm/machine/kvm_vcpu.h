// A vCPU as KVM knows it; vmm/process/vcpu.h says what else it is.
#pragma once

#include <cstdint>

struct kvm_run;

namespace dbos::vmm {

struct KvmVcpu {
  uint32_t index;
  int descriptor;  // in the process that runs it
  kvm_run* run;
};

}  // namespace dbos::vmm
