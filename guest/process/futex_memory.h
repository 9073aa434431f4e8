// What the futexes need of the program's memory beyond user_copy.h.
#pragma once

#include "guest/lib/result.h"
#include "guest/lib/types.h"
#include "guest/memory/vma.h"

namespace dbos {

class AddressSpace;
class WindowReference;

// An aligned 32-bit word of the program, when that takes no fault; else EFAULT, and the caller
// resolves the fault (user_copy.h) without its lock and tries again. Allowed under a spin lock.
Result<u32> peek_program_nofault(VirtualAddress address);
Result<u32> compare_exchange_program_nofault(VirtualAddress address, u32 expected, u32 desired);

// For a futex without FUTEX_PRIVATE_FLAG: the host's address of the word when it lies in memory
// that is shared through the window, null when it is private memory. `window`, which is empty, then
// keeps it there. EFAULT: nothing is mapped there, or shared memory without the right to this
// access: the host's own mapping has more rights.
Result<PhysicalAddress> shared_futex_address(AddressSpace& space, VirtualAddress address,
                                             Access access, WindowReference& window);

}  // namespace dbos
