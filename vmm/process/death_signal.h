// PR_SET_PDEATHSIG in a process that the program forked. Linux's own is the VMM's there (it watches
// the parent, host_process.h), so what the program chose is kept beside it: the VMM answers for it,
// raises it when its own comes, and makes it Linux's for the program of an execve.
//
// It is kept per process, Linux's is per thread: a thread other than the first sees the first's.
#pragma once

#include "hypercall/abi.h"
#include "vmm/process/vcpu.h"

namespace dbos::vmm {

// Whether `call` is one of the two, in such a process.
bool is_death_signal_call(const Vcpu& vcpu, const Call& call);
int64_t perform_death_signal_call(Vcpu& vcpu, const Call& call);

// After a host call: Linux forgets the signal of a thread that changes its credentials.
void keep_death_signal(HostProcess& process, uint32_t call_number);

// Around an execve, in the calling thread. `restore` what `lend` answered if the old program stays.
int lend_death_signal(const HostProcess& process);
void restore_death_signal(HostProcess& process, int signal);

}  // namespace dbos::vmm
