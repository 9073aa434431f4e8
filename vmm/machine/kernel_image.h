// The guest kernel's image, which dbos-run carries inside itself.
#pragma once

#include <cstdint>

#include "vmm/machine/boot_tables.h"

namespace dbos::vmm {

// Copies the image to the kernel region, maps it where it is linked with each segment's rights, and
// answers its entry point. Throws StartError.
uint64_t load_kernel_image(BootTables& tables);

}  // namespace dbos::vmm
