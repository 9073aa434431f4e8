// What KVM says about a run of a vCPU that the VMM can't handle, in words and numbers.
#pragma once

#include <cstdint>
#include <string>

struct kvm_run;

namespace dbos::vmm {

// One line, or two, each with its end. `result`: KVM_RUN's, 0 or -errno.
std::string format_exit(const kvm_run& run, int64_t result);

}  // namespace dbos::vmm
