// The guest kernel's image in the machine.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "vmm/loader/kernel_file.h"
#include "vmm/machine/boot_tables.h"

namespace dbos::vmm {

// The ELF file of libdbos, which dbos-run carries inside itself.
std::span<const std::byte> built_in_kernel();
// Tells one such file from another: dbos-dbg, which carries one too, has the symbols of the same
// build only.
uint64_t kernel_identity();

// Copies the image to the kernel region, which must be mapped and zero, and maps it where it is
// linked with each segment's rights.
void place_kernel_image(const KernelImage& image, BootTables& tables);

}  // namespace dbos::vmm
