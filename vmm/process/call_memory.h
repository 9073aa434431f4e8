// Memory that a call of a vCPU needs for itself.
//
// A mapping, not a piece of the heap: whoever is killed with malloc's lock would keep it for ever.
// And the vCPU knows it, because a program that is executed leaves the memory of the machine to
// those that stay: the steward gives the mapping back when it adopts the vCPU.
#pragma once

#include <cstdint>

#include "vmm/process/vcpu.h"

namespace dbos::vmm {

// At least `size` bytes, zero. One at a time. Result: the address, or -errno as mmap gives it.
int64_t map_call_memory(Vcpu& vcpu, uint64_t size);

// Gives it back, if there is any.
void unmap_call_memory(Vcpu& vcpu);

}  // namespace dbos::vmm
