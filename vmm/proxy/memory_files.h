// The files of /proc/<process> that show or change the memory of a process. Of one of ours they are
// the VMM's memory, whatever path or directory the program found them by. The guest kernel answers
// for those that it can (guest/syscalls/proc_files.h); this is for the rest, and for a guest that
// does not.
#pragma once

#include <cstdint>

#include "hypercall/abi.h"

namespace dbos::vmm {

// To be called with the descriptor that `call` has returned. Returns `result`, or, if the call
// opened such a file, -EACCES, and closes it.
int64_t refuse_memory_file(const Call& call, int64_t result);

}  // namespace dbos::vmm
