// Makes the system calls that the guest asks for, on this process.
//
// Every pointer is checked against the guest's memory first, whatever the guest says. Structures
// that hold pointers or lengths are copied into the VMM before they are checked, because another
// vCPU may change them at any time; Linux gets the copy. Nothing here allocates, locks, throws or
// uses libc's errno: it also runs in processes made by clone(CLONE_VM), which may be killed
// anywhere. Needs about 64 KiB of stack.
#pragma once

#include <csignal>
#include <cstdint>

#include "hypercall/abi.h"
#include "vmm/proxy/guest_memory.h"

namespace dbos::vmm {

// `call` is the VMM's copy. Result: Linux's, -errno, kInterrupted or kNotStarted. -ENOSYS for calls
// that are not proxied, -EFAULT for pointers outside the guest's memory, -EBADF for the VMM's
// descriptors (own_descriptors()).
int64_t execute_call(const GuestMemory& memory, const Call& call,
                     const volatile uint32_t* pending_signal);

// Called with each signal 64 that a wait of the program has taken from Linux. True: it was not the
// program's, and the wait goes on. To be set before there are threads.
using OwnSignalTaker = bool (*)(const siginfo_t& information);
void set_own_signal_taker(OwnSignalTaker taker);

}  // namespace dbos::vmm
