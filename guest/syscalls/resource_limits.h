// getrlimit and its kin, for the limits that the guest keeps (guest/process/memory_limits.h).
#pragma once

#include "guest/process/thread.h"
#include "guest/syscalls/answer.h"

namespace dbos {

// getrlimit, setrlimit, prlimit64 of the memory limits of the calling process, or of another one in
// the guest. Nothing: Linux's case.
Answer dispatch_resource_limit(Thread& thread, u64 number, const u64 arguments[6]);

}  // namespace dbos
