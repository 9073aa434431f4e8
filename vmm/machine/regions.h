// The machine's memory: which host addresses the guest can reach, and the KVM slots behind them.
//
// Guest-physical address = host virtual address. Regions are reserved once (PROT_NONE) so that
// nothing else of the process ever lies there, and made usable, and visible to the guest, chunk by
// chunk: KVM's cost for a slot grows with the slot's size.
#pragma once

#include <cstdint>
#include <string_view>

#include "hypercall/layout.h"

namespace dbos::vmm {

// Bits of physical address that the CPU must have: what desktop and laptop processors have. Those
// of servers have 40 and more, with which all regions fit.
inline constexpr uint32_t kPhysicalAddressBitsMin = 39;

// The end of the addresses that the guest can be given on a CPU with so many bits.
constexpr uint64_t physical_end(uint32_t physical_address_bits) {
  return physical_address_bits < 40 ? uint64_t{1} << physical_address_bits : kTiB;
}

// How large the arena can be, which lies last.
constexpr uint64_t arena_size_limit(uint32_t physical_address_bits) {
  const uint64_t end = physical_end(physical_address_bits);
  return end > kArenaBase ? end - kArenaBase : 0;
}

// Adds the KVM slot for [address, address + size); the memory must be mapped. Callable from every
// process that shares the machine. Result: 0 or -errno.
int64_t add_memory_slot(int vm_descriptor, uint64_t address, uint64_t size);

// Reserves a region of host addresses without memory behind it. Throws StartError.
void reserve_region(uint64_t address, uint64_t size, const char* what);

// kSmall: as Linux's own setting says. kLarge: large ones are asked for, where Linux has them.
enum class HostPages { kSmall, kLarge };

// Whether Linux gives nobody large pages, by /sys/kernel/mm/transparent_hugepage/enabled or its
// text: "always madvise [never]". False where there is no such file.
bool are_large_pages_off();
bool are_large_pages_off(std::string_view setting);

// The guest's memory is no part of a core that Linux writes of one of the VMM's processes: whoever
// was killed waits until it is written, with what its threads had locked.
void keep_out_of_cores(uint64_t address, uint64_t size);

// Makes a reserved range usable: anonymous memory, not counted against overcommit.
// Result: 0 or -errno.
int64_t commit_region(uint64_t address, uint64_t size, HostPages pages);

// Makes committed memory present, so that its first use takes no fault of the host. 0 or -errno.
int64_t populate_arena(uint64_t address, uint64_t size);

}  // namespace dbos::vmm
