// Host threads that outlive the program thread they ran, to run the next one.
//
// A vCPU that gets another host thread makes KVM wait for an RCU grace period on its first run (10
// to 20 ms; virt/kvm/kvm_main.c, KVM_RUN, until Linux 6.13). So a program thread's end parks its
// host thread, with all signals blocked, and the next thread of the same process takes it over,
// with its id and its creator's name. A new thread inherits its creator's priority, affinity and so
// on, too; a process that changes such attributes gets fresh host threads, which inherit them from
// Linux. A host thread whose end others wait for is not parked: children that it forked
// (PR_SET_PDEATHSIG), who waits for a priority inheritance futex in shared memory.
#pragma once

#include <cstdint>

#include "vmm/process/vcpu.h"

namespace dbos::vmm {

// Whether a system call may give a thread another user, group or namespace.
bool may_change_credentials(uint32_t call_number);

// To be told of each system call that the program makes on the host.
void note_thread_attributes(Vcpu& vcpu, const Call& call);

// At the end of a program thread: parks the calling host thread. True: it has become a new program
// thread, whose vCPU is to be run. False: it has to end.
bool park_thread(Vcpu& vcpu);

// A parked thread of the creator's process, now taken by it and still asleep; null: none fits.
Vcpu* take_parked_thread(const Vcpu& creator);
void wake_parked_thread(Vcpu& vcpu);

}  // namespace dbos::vmm
