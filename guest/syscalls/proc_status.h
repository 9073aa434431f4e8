// /proc/<pid>/stat, status and limits: Linux's text about the VMM, with the program's own numbers
// in it for memory, threads and signal handlers. /proc/meminfo: with no more memory than --memory.
#pragma once

#include "guest/process/memory_limits.h"
#include "guest/process/program_start.h"
#include "guest/syscalls/proc_memory.h"

namespace dbos {

void format_status(ProcText& out, const char* host, u64 size, const SpaceStatistics& space,
                   const MemorySums& sums, const ProcessFacts& facts);
void format_stat(ProcText& out, const char* host, u64 size, const SpaceStatistics& space,
                 const ProgramLayout& layout, const ProcessFacts& facts);
void format_limits(ProcText& out, const char* host, u64 size, const MemoryLimits& limits);
void format_memory_information(ProcText& out, const char* host, u64 size,
                               const MemoryBounds& bounds);

}  // namespace dbos
