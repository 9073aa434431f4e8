// The files of /proc/<pid> that show memory, in Linux 6.1's format (fs/proc/task_mmu.c, array.c).
#pragma once

#include "guest/memory/address_space.h"
#include "guest/syscalls/proc_text.h"

namespace dbos {

// Sums over an address space, in bytes.
struct MemorySums {
  u64 data = 0;  // private and writable
  u64 stack = 0;
  u64 executable = 0;
};

// What of a process the address space does not know.
struct ProcessFacts {
  u64 code_size;  // bytes
  u32 thread_count;
  u64 caught_signals;
  u64 blocked_signals = 0;
  bool shows_blocked = false;  // the host blocks all of them while the file is made
  LargePages large_pages = LargePages::kYes;
};

// One line of maps, and one entry of smaps.
void format_map(ProcText& out, const VmaInfo& vma);
void format_smap(ProcText& out, const VmaInfo& vma, const PageUsage& usage, LargePages large_pages);
void format_smaps_rollup(ProcText& out, VirtualRange range, const PageUsage& total,
                         u64 locked_bytes);
void format_statm(ProcText& out, const SpaceStatistics& space, const MemorySums& sums,
                  const ProcessFacts& facts);
u64 locked_bytes(const VmaInfo& vma, const PageUsage& usage);
void add_usage(PageUsage& sum, const PageUsage& usage);
void add_to_sums(MemorySums& sums, const VmaInfo& vma);

// Whole files of an address space (proc_walk.cpp).
void write_maps(ProcText& out, AddressSpace& space);
void write_smaps(ProcText& out, AddressSpace& space);
void write_smaps_rollup(ProcText& out, AddressSpace& space);
MemorySums sum_up(AddressSpace& space);

}  // namespace dbos
