#include "guest/memory/trim.h"

#include "guest/memory/frame_allocator.h"

namespace dbos {
namespace {

// What stays for the next allocations: giving it back and getting it again costs two host faults.
constexpr u64 kKept = 64 * kMiB;
// Each 2 MiB block is an exit; a call that frees memory pays for at most so many.
constexpr u64 kReleasedAtOnce = 32 * kMiB;

}  // namespace

void trim_free_memory() {
  const u64 free_bytes = frame_allocator.free_dirty_bytes();
  if (free_bytes <= 2 * kKept) return;
  const u64 surplus = free_bytes - kKept;
  frame_allocator.release_free_blocks(surplus < kReleasedAtOnce ? surplus : kReleasedAtOnce);
}

}  // namespace dbos
