// shmdt of System V shared memory.

#include "guest/memory/address_space.h"

namespace dbos {
namespace {

// Whether the vma is where the attachment at `attached` had it. As Linux does, that is told by what
// it shows of the segment: pieces may have gone, or been moved.
bool is_in_place(const Vma& vma, VirtualAddress attached) {
  return vma.window != nullptr && vma.window->kind() == WindowKind::kSegment &&
         vma.begin() - attached == vma.window->file().offset + vma.window_offset;
}

}  // namespace

Result<void> AddressSpace::detach_segment(VirtualAddress attached) {
  if (!is_aligned(attached.value(), kPageSize)) return Error(EINVAL);
  DroppedWindows dropped;
  LockGuard guard(lock_);
  const Vma* vma = vmas_.find_ending_after(attached);
  while (vma != nullptr && !is_in_place(*vma, attached)) vma = vma->next;
  if (vma == nullptr) return Error(EINVAL);
  // The first piece may go before the last one is found.
  const u64 identifier = vma->window->file().inode;
  const VirtualAddress end = attached + vma->window->file().offset + vma->window->length();
  TlbBatch batch(*this, *line_, pins_);
  while (vma != nullptr && vma->end() <= end) {
    const VirtualRange range = vma->range;
    if (is_in_place(*vma, attached) && vma->window->file().inode == identifier) {
      DBOS_RETURN_IF_ERROR(unmap_range(range, batch, dropped));
    }
    vma = vmas_.find_ending_after(range.end);
  }
  return {};
}

}  // namespace dbos
