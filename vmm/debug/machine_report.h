// What is said when the machine can't go on: one readable page.
#pragma once

#include "vmm/process/vcpu.h"

namespace dbos::vmm {

// Prints `reason`, what KVM says (`result`: KVM_RUN's), the vCPU's registers, the instructions at
// its RIP and its call chain, and ends the process with ExitStatus::kGuestPanic.
[[noreturn]] void die_with_report(Vcpu& vcpu, const char* reason, int64_t result = 0);

}  // namespace dbos::vmm
