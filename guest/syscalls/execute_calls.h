// execve and execveat.
#pragma once

#include "guest/process/thread.h"

namespace dbos {

i64 system_execveat(Thread& thread, i32 directory, VirtualAddress path, VirtualAddress arguments,
                    VirtualAddress environment, u64 flags);

}  // namespace dbos
