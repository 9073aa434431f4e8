// How much memory there is for dbos-run and the program.
#pragma once

#include <cstdint>
#include <filesystem>

namespace dbos::vmm {

// Bytes of this machine's RAM, or the limit of the cgroup that we are in where that is less.
uint64_t host_memory_size();

// How many bytes Linux will commit to programs yet: with vm.overcommit_memory 2 it charges the
// guest's memory as well, a chunk of the arena at a time. UINT64_MAX: it does not count.
uint64_t commit_room();

// Keeps the VMM's own records on small pages, at the very start. They are arrays for as many vCPUs
// and processes as there may be, of which little is used: with Linux's large pages each first
// touch, in a fork as well, would take 2 MiB and the time to clear them.
void keep_records_on_small_pages();

// The least limit of memory that a cgroup of `membership` (/proc/self/cgroup), or one above it, has
// in the file systems below `mounts` (/sys/fs/cgroup): memory.max of version 2 and
// memory.limit_in_bytes of version 1. UINT64_MAX: none.
uint64_t cgroup_memory_limit(const std::filesystem::path& membership,
                             const std::filesystem::path& mounts);

}  // namespace dbos::vmm
