// The page tables that a vCPU starts with: the kernel's half of every address space.
//
// They lie in the guest's own memory. From the first time that it runs, what an entry says is the
// guest's word, and so the VMM neither reads nor writes them any more: all that a vCPU made later
// needs is there from the beginning.
#pragma once

#include <cstdint>

#include "vmm/loader/kernel_file.h"

namespace dbos::vmm {

enum class DirectMapPage { k2MiB, k1GiB };

class BootTables {
 public:
  // Uses [kKernelTablesAddress, + kKernelTablesSizeMax), which must be mapped and zero, and makes
  // the direct map of [kKernelRegionBase, physical_end). The slots decide what is behind it.
  BootTables(uint64_t physical_end, DirectMapPage page);

  // Maps `size` bytes in 4 KiB pages. Both addresses and the size are page-aligned.
  void map(uint64_t virtual_address, uint64_t physical_address, uint64_t size, PageRights rights);

  uint64_t root() const { return root_; }

 private:
  uint64_t allocate();
  uint64_t* entry_for(uint64_t virtual_address, int level);

  uint64_t next_;
  uint64_t root_;
};

// The blocks of all vCPUs that there can be, without their guard pages, at kVcpuMapBase.
void map_vcpu_blocks(BootTables& tables);

}  // namespace dbos::vmm
