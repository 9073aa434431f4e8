#include "vmm/machine/kernel_image.h"

#include <cstring>

#include "hypercall/abi.h"

namespace dbos::vmm {

void place_kernel_image(const KernelImage& image, BootTables& tables) {
  for (const KernelSegment& segment : image.segments) {
    const uint64_t address = kKernelImageAddress + segment.offset;
    std::memcpy(reinterpret_cast<void*>(address), segment.content.data(), segment.content.size());
    tables.map(kKernelImageBase + segment.offset, address, segment.memory_size, segment.rights);
  }
}

}  // namespace dbos::vmm
