// The vDSO in the program's address space.
#pragma once

#include "guest/lib/types.h"

namespace dbos {

class AddressSpace;

// Maps the clock page and the vDSO's image behind it. Returns the image's address, or 0: the
// program then makes system calls for the time.
u64 map_vdso(AddressSpace& space);

}  // namespace dbos
