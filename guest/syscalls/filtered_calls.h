// System calls of which the guest does a part, or some cases, and Linux the rest.
#pragma once

#include "guest/process/thread.h"
#include "guest/syscalls/answer.h"

namespace dbos {

// Nothing: not one of them, or a case that is Linux's alone.
Answer dispatch_filtered(Thread& thread, u64 number, const u64 arguments[6]);

}  // namespace dbos
