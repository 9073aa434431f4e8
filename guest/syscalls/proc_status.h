// /proc/<pid>/stat: Linux's line about the VMM with the program's own numbers in it. (status:
// proc_memory.h.)
#pragma once

#include "guest/process/program_start.h"
#include "guest/syscalls/proc_memory.h"

namespace dbos {

void format_stat(ProcText& out, const char* host, u64 size, const SpaceStatistics& space,
                 const ProgramLayout& layout, const ProcessFacts& facts);

}  // namespace dbos
