// The addresses of the machine under their C++ names; the numbers are those of dbos/hypercall.h.
//
// Guest-physical address = host virtual address for every byte that the guest can reach. The
// regions lie below 1 TiB, because 40 bits of physical address is the least that server processors
// of the last decade (and QEMU's) offer, and above 64 GiB, because Linux places nothing of a
// process there. Desktop and laptop processors have 39 bits: the arena ends at 512 GiB there.
//
//   0x10_0000_0000   64 GiB  kernel region   guest kernel image, boot page tables, boot information
//   0x10_8000_0000   66 GiB  fault hole      never mapped, in no slot: stands for bad pointers
//   0x11_0000_0000   68 GiB  vCPU region     a block per vCPU: hypercall page, buffer, stacks
//   0x18_0000_0000   96 GiB  trace region    a ring per vCPU; in a slot from the first trace on
//   0x20_0000_0000  128 GiB  file window     host mappings of files and of shared memory
//   0x40_0000_0000  256 GiB  arena           every frame of the guest's own memory; a slot per GiB
//   0xff_ffff_ffff    1 TiB  end
//
// Guest-virtual addresses:
//
//   0x0000_0000_0000_0000 .. 0x0000_7fff_ffff_efff   the program's, as under Linux
//   0xffff_8000_0000_0000 + p                        direct map of guest-physical address p
//   0xffff_f000_0000_0000 + i * kVcpuStride          vCPU block i again, with guard pages
//   0xffff_ffff_8000_0000                            guest kernel image
#pragma once

#include <cstdint>

#include "include/dbos/hypercall.h"

namespace dbos {

inline constexpr uint64_t kKiB = 1024;
inline constexpr uint64_t kMiB = 1024 * kKiB;
inline constexpr uint64_t kGiB = 1024 * kMiB;
inline constexpr uint64_t kTiB = 1024 * kGiB;

inline constexpr uint64_t kPageSize = DBOS_PAGE_SIZE;
inline constexpr uint64_t kLargePageSize = 2 * kMiB;

// `alignment`: a power of two.
constexpr uint64_t align_down(uint64_t value, uint64_t alignment) {
  return value & ~(alignment - 1);
}
constexpr uint64_t align_up(uint64_t value, uint64_t alignment) {
  return (value + alignment - 1) & ~(alignment - 1);
}
constexpr bool is_aligned(uint64_t value, uint64_t alignment) {
  return (value & (alignment - 1)) == 0;
}

inline constexpr uint64_t kKernelRegionBase = DBOS_KERNEL_REGION_BASE;
inline constexpr uint64_t kKernelRegionSize = DBOS_KERNEL_REGION_SIZE;

inline constexpr uint64_t kVcpuRegionBase = DBOS_VCPU_REGION_BASE;
inline constexpr uint64_t kVcpuStride = DBOS_VCPU_STRIDE;
inline constexpr uint32_t kVcpuCountMax = DBOS_VCPU_COUNT_MAX;
inline constexpr uint64_t kVcpuRegionSize = kVcpuStride * kVcpuCountMax;

// A ring of events for each vCPU (hypercall/observe.h). Its memory slot is made when the first
// trace begins.
inline constexpr uint64_t kTraceRegionBase = DBOS_TRACE_REGION_BASE;
inline constexpr uint64_t kTraceStride = DBOS_TRACE_STRIDE;
inline constexpr uint64_t kTraceRegionSize = kTraceStride * kVcpuCountMax;

inline constexpr uint64_t kWindowBase = DBOS_WINDOW_BASE;
inline constexpr uint64_t kWindowSizeMax = DBOS_WINDOW_SIZE_MAX;

inline constexpr uint64_t kArenaBase = DBOS_ARENA_BASE;
inline constexpr uint64_t kArenaSizeMax = DBOS_ARENA_SIZE_MAX;

// The arena grows by chunks: one memory slot each. The frame table of a chunk lies at its start.
inline constexpr uint64_t kArenaChunkSize = DBOS_ARENA_CHUNK_SIZE;

inline constexpr uint64_t kProgramEnd = 0x0000'7fff'ffff'f000;  // TASK_SIZE of x86-64 Linux
inline constexpr uint64_t kDirectMapBase = DBOS_DIRECT_MAP_BASE;
inline constexpr uint64_t kVcpuMapBase = DBOS_VCPU_MAP_BASE;
inline constexpr uint64_t kKernelImageBase = DBOS_IMAGE_BASE;

// Within a vCPU block. Pages marked "guard" are not present in the mapping at kVcpuMapBase.
//
//   0x00000  guard
//   0x01000  kernel stack, 28 KiB, grows down from 0x08000
//   0x08000  guard
//   0x09000  IST stack, 8 KiB
//   0x0b000  guard
//   0x0c000  double-fault stack, 4 KiB
//   0x0d000  guard
//   0x0e000  debug and NMI stack, 8 KiB
//   0x10000  guest kernel's per-CPU data, 16 KiB
//   0x14000  hypercall page, 4 KiB
//   0x15000  counters (hypercall/observe.h), 44 KiB
//   0x20000  bounce buffer, 128 KiB
inline constexpr uint64_t kVcpuStackOffset = DBOS_VCPU_STACK_OFFSET;
inline constexpr uint64_t kVcpuStackTop = DBOS_VCPU_STACK_TOP;
inline constexpr uint64_t kVcpuIstStackTop = DBOS_VCPU_IST_STACK_TOP;
inline constexpr uint64_t kVcpuIstStackOffset = DBOS_VCPU_IST_STACK_OFFSET;
inline constexpr uint64_t kVcpuDoubleFaultStackOffset = DBOS_VCPU_DOUBLE_FAULT_STACK_OFFSET;
inline constexpr uint64_t kVcpuDoubleFaultStackTop = DBOS_VCPU_DOUBLE_FAULT_STACK_TOP;
inline constexpr uint64_t kVcpuDebugStackOffset = DBOS_VCPU_DEBUG_STACK_OFFSET;
inline constexpr uint64_t kVcpuDebugStackTop = DBOS_VCPU_DEBUG_STACK_TOP;
inline constexpr uint64_t kVcpuDataOffset = DBOS_VCPU_DATA_OFFSET;
inline constexpr uint64_t kVcpuDataSize = DBOS_VCPU_DATA_SIZE;
inline constexpr uint64_t kVcpuHypercallOffset = DBOS_VCPU_HYPERCALL_OFFSET;
inline constexpr uint64_t kVcpuCountersOffset = DBOS_VCPU_COUNTERS_OFFSET;
inline constexpr uint64_t kVcpuCountersSize = DBOS_VCPU_COUNTERS_SIZE;
inline constexpr uint64_t kVcpuBounceOffset = DBOS_VCPU_BOUNCE_OFFSET;
inline constexpr uint64_t kVcpuBounceSize = DBOS_VCPU_BOUNCE_SIZE;

// Guest-physical address of the block of vCPU `index`.
constexpr uint64_t vcpu_block(uint32_t index) {
  return kVcpuRegionBase + index * kVcpuStride;
}
// Guest-virtual address at which its kernel stack begins.
constexpr uint64_t vcpu_stack_top(uint32_t index) {
  return kVcpuMapBase + index * kVcpuStride + kVcpuStackTop;
}

}  // namespace dbos
