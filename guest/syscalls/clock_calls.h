// The system calls that read time: what the vDSO's fast path leaves over, and programs without it.
#pragma once

#include "guest/lib/types.h"

namespace dbos {

i64 system_clock_gettime(u64 clock, VirtualAddress time);
i64 system_gettimeofday(VirtualAddress time, VirtualAddress zone);
i64 system_time(VirtualAddress seconds);

}  // namespace dbos
