// The marshaller's view of the program's memory, bound to the address space of the current thread.
#include "guest/syscalls/marshal_memory.h"

#include "guest/memory/address_space.h"
#include "guest/memory/frame_allocator.h"
#include "guest/memory/user_copy.h"
#include "guest/process/exit.h"
#include "guest/process/signal.h"
#include "guest/process/thread.h"

namespace dbos::marshal_memory {

namespace {

constexpr u32 kBatch = 16;

}  // namespace

Segments resolve(VirtualAddress address, u64 size, HostAccess access, Segment* segments,
                 u32 capacity) {
  HostSegment found[kBatch];
  const ResolveOutcome outcome = current_thread().space->resolve_for_host(
      address, size, access == HostAccess::kWrite ? Access::kWrite : Access::kRead, found,
      capacity < kBatch ? capacity : kBatch);
  for (u32 i = 0; i < outcome.segment_count; i++) {
    segments[i] = {found[i].address, found[i].length};
  }
  const bool is_exhausted = outcome.kind == FaultKind::kOutOfMemory;
  return {outcome.segment_count, outcome.bytes,
          outcome.kind != FaultKind::kResolved && !is_exhausted, is_exhausted};
}

void release() {
  current_thread().space->unpin();
}

bool is_writable(VirtualAddress address, u64 size) {
  if (size == 0) return true;
  if (!is_program_range(address, size)) return false;
  const u64 end = address.value() + size;
  for (u64 at = address.value(); at < end; at = align_down(at, kPageSize) + kPageSize) {
    // Exchanges a word for itself at most: an access that writes, and that no thread can notice.
    const VirtualAddress word(align_down(at, sizeof(u32)));
    if (compare_exchange_program(word, 0, 0).is_error()) return false;
  }
  return true;
}

void kill_for_memory() {
  dbos::kill_for_memory();
}

// Where there are frames, but none of them together, no snapshot is ended: its frames lie apart,
// too.
Result<PhysicalAddress> allocate_contiguous(u64 bytes) {
  AddressSpace& space = *current_thread().space;
  Result<PhysicalAddress> result = frame_allocator.allocate_kernel(order_of(bytes));
  while (result.is_error()) {
    const u64 free_before = frame_allocator.counts().free;
    if (frame_allocator.ensure_frames() || !space.make_room(free_before)) return result;
    result = frame_allocator.allocate_kernel(order_of(bytes));
  }
  return result;
}

void free_contiguous(PhysicalAddress address, u64 bytes) {
  frame_allocator.free_kernel(address, order_of(bytes));
}

void hold_signals() {
  (void)dbos::hold_signals();
}

void release_signals() {
  dbos::release_signals(current_thread());
}

}  // namespace dbos::marshal_memory
