// Files that the program may not have. Those of /proc/<process> that show or change the memory of a
// process: of one of ours it is the VMM's, whatever path or directory the program found them by.
// The guest kernel answers for those that it can (guest/syscalls/proc_files.h); this is for the
// rest, and for a guest that does not. And devices to which a program writes addresses, which
// nobody would translate or check.
#pragma once

#include <cstdint>

#include "hypercall/abi.h"

namespace dbos::vmm {

// To be called with the descriptor that `call` has returned. Returns `result`, or, if the call
// opened such a file, closes it: -EACCES.
int64_t refuse_opened_file(const Call& call, int64_t result);

}  // namespace dbos::vmm
