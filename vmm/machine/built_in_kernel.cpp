#include "vmm/machine/kernel_image.h"

extern "C" {
extern const std::byte dbos_kernel_image_begin[];
extern const std::byte dbos_kernel_image_end[];
}

namespace dbos::vmm {

std::span<const std::byte> built_in_kernel() {
  return {dbos_kernel_image_begin, dbos_kernel_image_end};
}

uint64_t kernel_identity() {
  uint64_t hash = 0xcbf29ce484222325;  // FNV-1a
  for (const std::byte byte : built_in_kernel()) {
    hash = (hash ^ std::to_integer<uint64_t>(byte)) * 0x100000001b3;
  }
  return hash;
}

}  // namespace dbos::vmm
