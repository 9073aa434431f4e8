// A walk of a page table, entry by entry, with the flags in words.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "vmm/proxy/guest_memory.h"

namespace dbos::vmm {

struct WalkStep {
  int level;               // 4 (512 GiB an entry) to 1 (4 KiB)
  uint64_t entry_address;  // guest-physical
  uint64_t entry;
};

struct PageWalk {
  std::vector<WalkStep> steps;  // from the root down to a page, or to where the walk ends
  bool is_mapped = false;       // present at every level
  bool is_writable = false;     // at every level, as the processor has it
  bool is_executable = false;
  uint64_t physical = 0;  // of the byte, if mapped
  uint64_t page_size = 0;
};

// The root of the address space that the vCPU is in; 0: none. The guest writes it, so that it may
// be anything.
uint64_t space_root(uint32_t vcpu);

// `root` is a guest-physical address. A table outside of the guest's memory ends the walk.
PageWalk walk_page_table(const GuestMemory& memory, uint64_t root, uint64_t address);

// From `address` to the end of what the last entry of its walk stands for, in whole pages.
uint64_t absent_bytes(const PageWalk& walk, uint64_t address);

// "present writable accessed dirty large no-execute ..."; "empty" for 0.
std::vector<std::string> flag_names(uint64_t entry, int level);

}  // namespace dbos::vmm
