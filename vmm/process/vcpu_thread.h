// The host threads and processes that run vCPUs.
#pragma once

#include <cstdint>

#include "vmm/process/vcpu.h"

namespace dbos::vmm {

// Runs a vCPU on the calling host thread until the program's thread or process ends.
[[noreturn]] void run_vcpu(Vcpu& vcpu);

// A vCPU that was taken (VcpuPool::acquire, take_parked_thread) is used for `process` from now on:
// nothing is left of what the one before it was doing. Before begin_life().
void begin_use(Vcpu& vcpu, HostProcess& process, Role role);

// The registers that the thread of a new life begins with. 0 or -errno.
int64_t set_first_registers(Vcpu& vcpu);

// Runs an adopted vCPU (steward.h) until the guest kernel has released what the dead thread held,
// or waits for somebody.
enum class Adopted { kWaits, kReleased };
Adopted run_adopted(Vcpu& vcpu);

// Service::kThreadCreate, by the creator's thread. Result: the new thread's id, or -EINVAL, -EFAULT
// or -EAGAIN.
int64_t create_thread(Vcpu& creator, uint64_t start_argument, uint64_t result_address);

// Service::kProcessFork, by the creator's thread. Result: the new process's id, or -EINVAL, -EFAULT
// or -EAGAIN. With kForkWaitForExec it comes back when the child has executed or ended.
int64_t fork_process(Vcpu& creator, uint64_t start_argument, uint64_t exit_signal, uint64_t flags,
                     uint64_t result_address);

// Makes the helper's vCPU and host thread (helper.h). 0 or -EAGAIN.
int64_t create_helper_thread(Vcpu& creator, uint64_t start_argument);

// Prepares the calling thread, the first of dbos-run, to run a vCPU of the first process. Throws
// StartError.
Vcpu& adopt_first_thread();

}  // namespace dbos::vmm
