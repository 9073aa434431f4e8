// Fills what the guest kernel reads at its start: hypercall/abi.h, BootInformation.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "hypercall/abi.h"
#include "vmm/loader/load_program.h"

namespace dbos::vmm {

// What only the machine knows.
struct MachineParameters {
  uint32_t vcpu_count_max = 1;
  uint64_t arena_size_max = 0;       // bytes
  uint64_t kernel_tables = 0;        // guest-physical address of the boot root page table
  uint64_t tsc_khz = 0;              // 0: unknown
  uint64_t extended_state_mask = 0;  // XCR0; 0: no XSAVE
  uint64_t flags = 0;                // DBOS_BOOT_...; Linux's own are added
  uint64_t features = 0;             // DBOS_FEATURE_...
  uint64_t cow_limit = 0;            // bytes; 0: none
  uint32_t ready_copies = 0;         // of the page tables; 0: snapshots share tables
};

struct ProgramStart {
  std::span<const std::string> arguments;    // argv, at least argv[0]
  std::span<const std::string> environment;  // NAME=VALUE
  std::string executable_path;               // absolute, links resolved: /proc/self/exe
  std::string executable_name;               // as execvp would name it: AT_EXECFN
};

// A program under an unlimited stack (RLIMIT_STACK) gets this much: only what is used costs memory.
inline constexpr uint64_t kStackSizeUnlimited = kGiB;
inline constexpr uint64_t kStackSizeMin = 256 * kKiB;
inline constexpr uint64_t kStackSizeMax = 64 * kGiB;

// The stack size that stands for a soft limit (RLIM_INFINITY: no limit), whole pages.
uint64_t stack_size_for_limit(uint64_t limit);

// The most bytes that Linux grants arguments and environment together, with their pointers.
uint64_t strings_size_max(uint64_t stack_limit);

// Writes the structure and its strings; `destination` is aligned to 8 bytes. Result: bytes used.
// Throws LoadError if the strings are more than Linux, or the destination, takes (E2BIG).
size_t write_boot_information(std::span<std::byte> destination, const LoadedProgram& loaded,
                              const ProgramStart& start, const MachineParameters& machine);

}  // namespace dbos::vmm
