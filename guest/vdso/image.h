// The vDSO's image in the guest kernel: page-aligned, whole pages. Map the clock page
// (kClockPageAddress), read-only, in the page before it; AT_SYSINFO_EHDR is the image's address.
#pragma once

#include "guest/lib/types.h"

extern "C" {
extern const dbos::u8 dbos_vdso_image[];
extern const dbos::u8 dbos_vdso_image_end[];
}

namespace dbos {

inline u64 vdso_image_size() {
  return align_up(static_cast<u64>(dbos_vdso_image_end - dbos_vdso_image), kPageSize);
}

}  // namespace dbos
