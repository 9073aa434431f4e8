// System calls that Linux makes for the program.
#pragma once

#include "guest/lib/types.h"

namespace dbos {

// Makes system call `number` with the program's `arguments` on the host process. Returns Linux's
// result, -errno, kInterrupted or kNotStarted (hypercall/abi.h). A call that is not proxied, or
// that Linux does not have, is refused with its errno and one line on the log. May block: no lock
// may be held.
i64 proxy_system_call(u32 number, const u64 arguments[6]);

// vmsplice, as a copy (proxy_splice.cpp); proxy_system_call() makes it too.
i64 splice_program_memory(const u64 arguments[6]);

}  // namespace dbos
