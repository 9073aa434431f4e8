// Listings of /proc/<own process>/fd and .../task without the VMM's own descriptors and threads.
#pragma once

#include <cstdint>

#include "hypercall/abi.h"

namespace dbos::vmm {

// To be called with a getdents64 that succeeded with `result` bytes in its buffer. Answers how many
// are left there; 0 only at the listing's end.
int64_t hide_own_descriptors(const Call& call, int64_t result);

// A thread of the VMM that runs no vCPU: listings leave it out from now on.
void hide_own_thread(int thread_id);

}  // namespace dbos::vmm
