// guest/platform.h in ring 0.
#include "guest/platform.h"

#include "guest/arch/cpu.h"
#include "guest/hypercall.h"
#include "guest/lib/assert.h"
#include "guest/process/copy_limit.h"

namespace dbos {

Thread& current_thread() {
  return arch::current_cpu().thread;
}

HypercallPage& current_hypercall_page() {
  return *reinterpret_cast<HypercallPage*>(arch::cpu_block(arch::current_cpu().index) +
                                           kVcpuHypercallOffset);
}

}  // namespace dbos

namespace dbos::platform {

void* direct_map(PhysicalAddress address) {
  return reinterpret_cast<void*>(kDirectMapBase + address.value());
}

// Of a pointer into the direct map, into a vCPU's block (stacks, per-CPU data) or into the kernel's
// image.
PhysicalAddress physical_of(const void* pointer) {
  const u64 value = reinterpret_cast<u64>(pointer);
  if (value >= kKernelImageBase)
    return PhysicalAddress(value - kKernelImageBase + kKernelImageAddress);
  if (value >= kVcpuMapBase) return PhysicalAddress(value - kVcpuMapBase + kVcpuRegionBase);
  DBOS_ASSERT(value >= kDirectMapBase);
  return PhysicalAddress(value - kDirectMapBase);
}

Result<u64> arena_grow(u64 index) {
  const i64 result = hypercall(Service::kArenaGrow, index);
  if (result < 0) return error_of(result);
  return static_cast<u64>(result);
}

Result<void> memory_release(PhysicalAddress begin, u64 bytes) {
  const i64 result = repeat_hypercall(Service::kMemoryRelease, begin.value(), bytes);
  if (result < 0) return error_of(result);
  return {};
}

bool make_room(u64 free_before) {
  return end_snapshot_for_memory(free_before);
}

void limit_copies(u64 kept, u32 copied_pages) {
  keep_copy_limit(kept, copied_pages);
}

Result<PhysicalAddress> window_map(int descriptor, u64 offset, u64 length, int protection,
                                   int flags) {
  const i64 result =
      hypercall(Service::kWindowMap, static_cast<u64>(static_cast<i64>(descriptor)), offset, length,
                static_cast<u64>(protection), static_cast<u64>(flags));
  if (result < 0) return error_of(result);
  return PhysicalAddress(static_cast<u64>(result));
}

void window_unmap(PhysicalAddress begin, u64 length) {
  hypercall(Service::kWindowUnmap, begin.value(), length);
}

Result<void> window_populate(PhysicalAddress begin, u64 length, bool write) {
  const i64 result =
      repeat_hypercall(Service::kWindowPopulate, begin.value(), length, write ? 1 : 0);
  if (result < 0) return error_of(result);
  return {};
}

bool is_dying() {
  return current_hypercall_page().dying != 0;
}

u32 current_vcpu() {
  return arch::current_cpu().index;
}

VcpuCounters& counters() {
  return *arch::current_cpu().counters;
}

}  // namespace dbos::platform
