// Small system calls about the calling thread.
#pragma once

#include "guest/process/thread.h"

namespace dbos {

i64 system_arch_prctl(u64 code, u64 address);
i64 system_getcpu(VirtualAddress cpu, VirtualAddress node);
i64 system_membarrier(u64 command, u64 flags);

}  // namespace dbos
