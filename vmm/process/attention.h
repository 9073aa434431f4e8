// Bringing a vCPU that runs the program into its kernel (kAttentionVector in hypercall/abi.h).
//
// A signal of the VMM's own takes the vCPU's thread out of KVM_RUN. It must not come while the
// thread makes a host call, which it would end with EINTR. So the thread says when it runs the
// guest, and both sides count (sequentially consistent):
//   sender: kicks_sent + 1, then read runs_guest     -> not: kicks_sent - 1, nothing to do
//   thread: runs_guest = 0, then wait until kicks_received reaches kicks_sent, then the call
// A sender that is killed in between leaves a count behind, which the thread writes off. If it was
// only slow, the thread takes that back.
// A thread in the VMM goes back to the guest kernel, which looks at HypercallPage::attention
// itself.
#pragma once

#include <cstdint>

#include "vmm/process/vcpu.h"

namespace dbos::vmm {

// Service::kAttentionRegion; the first call counts.
int64_t set_attention_region(uint64_t begin, uint64_t end, uint64_t restart);

// Service::kInterrupt: kicks another vCPU, of any process. -EAGAIN: Linux's queue of
// signals is full.
int64_t interrupt_vcpu(const Vcpu& caller, uint64_t index);

// Sets a vCPU's attention word and kicks its thread. For threads of the VMM's own. -EAGAIN as
// above.
int64_t request_attention(Vcpu& vcpu);

// By the thread that runs the vCPU, after KVM_RUN was interrupted.
void bring_into_kernel(const Vcpu& vcpu);

// By the thread that runs the vCPU: before it makes host calls, and before it runs the guest.
void leave_guest(Vcpu& vcpu);
void enter_guest(Vcpu& vcpu);

}  // namespace dbos::vmm
