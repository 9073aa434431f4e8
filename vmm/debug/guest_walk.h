// Reading the guest's virtual memory from outside, by walking its page tables.
#pragma once

#include <cstddef>
#include <cstdint>

#include "vmm/proxy/guest_memory.h"

namespace dbos::vmm {

// Copies up to `size` bytes at `address` of the address space with page table `root`. Returns how
// many could be read.
size_t read_virtual(const GuestMemory& memory, uint64_t root, uint64_t address, void* destination,
                    size_t size);

}  // namespace dbos::vmm
