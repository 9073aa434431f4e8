// Listings of /proc/<own process>/fd and .../task without the VMM's own descriptors and threads.
#pragma once

#include <cstdint>

#include "hypercall/abi.h"
#include "vmm/proxy/guest_memory.h"

namespace dbos::vmm {

// To be called with the result of `call`. If it was getdents or getdents64, returns how many bytes
// are left in its buffer: 0 only at the listing's end; -EFAULT if such a listing is in the window.
int64_t hide_own_descriptors(const GuestMemory& memory, const Call& call, int64_t result);

// A thread of the VMM that runs no vCPU: listings leave it out from now on.
void hide_own_thread(int thread_id);

}  // namespace dbos::vmm
