#include "vmm/machine/kernel_image.h"

#include <cstring>

#include "hypercall/abi.h"

extern "C" {
extern const std::byte dbos_kernel_image_begin[];
extern const std::byte dbos_kernel_image_end[];
}

namespace dbos::vmm {

std::span<const std::byte> built_in_kernel() {
  return {dbos_kernel_image_begin, dbos_kernel_image_end};
}

void place_kernel_image(const KernelImage& image, BootTables& tables) {
  for (const KernelSegment& segment : image.segments) {
    const uint64_t address = kKernelImageAddress + segment.offset;
    std::memcpy(reinterpret_cast<void*>(address), segment.content.data(), segment.content.size());
    tables.map(kKernelImageBase + segment.offset, address, segment.memory_size, segment.rights);
  }
}

}  // namespace dbos::vmm
