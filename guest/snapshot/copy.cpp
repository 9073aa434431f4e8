// Copy on write: the first write to a page that a snapshot may share.
//
// A fault costs more than the copy. Whoever writes one page after the other gets several at once
// (docs/decisions/0023-runs-are-copied-at-once.md).

#include "guest/memory/address_space.h"
#include "guest/memory/frame_allocator.h"
#include "guest/memory/shared_zero.h"

namespace dbos {
namespace {

// Two neighbours may be one object; who writes here and there hardly ever writes three.
constexpr u32 kPagesBeforeMin = 2;

}  // namespace

FaultOutcome AddressSpace::copy_run(const Vma& vma, VirtualAddress page, const Walk& walk,
                                    TlbBatch& batch) {
  PteSlot* const slots = walk.slot;
  if (!replace_by_copy(slots[0], page, batch)) return FaultOutcome{FaultKind::kOutOfMemory, {}};
  // The entry's rights may be older than the vma's.
  slots[0].store(leaf(vma, slots[0].load().address(), false, true));
  const u32 wanted = 1 + pages_ahead(vma, page, walk);
  u32 copied = 1;
  while (copied < wanted && may_be_shared(slots[copied].load()) &&
         replace_by_copy(slots[copied], page + copied * kPageSize, batch)) {
    ++copied;
  }
  make_writable(slots, copied, {page, page + copied * kPageSize}, batch);
  copied_pages_ += copied;
  platform::counters().add(Counter::kFaultCopied, copied);
  return FaultOutcome{FaultKind::kResolved, {}, false, copied};
}

// How many of the pages after this one are to be copied with it: at most as many as were written
// right before it, so no more is copied in vain than was needed. None where snapshots keep too much
// already. All are in the piece that open() has noted.
u32 AddressSpace::pages_ahead(const Vma& vma, VirtualAddress page, const Walk& walk) const {
  if (left_for_snapshots() > copy_limit()) return 0;
  const VirtualAddress piece(align_down(page.value(), ReadyTables::kPieceSize));
  const VirtualAddress end = vma.range.intersect({piece, piece + ReadyTables::kPieceSize}).end;
  const u64 most = (end - page) / kPageSize - 1;
  const u64 first = entry_index(page, Level::kPage);
  u32 before = 0;
  while (before < most && before < first) {
    const Pte entry = (walk.slot - 1 - before)->load();
    if (!entry.is_writable() || !entry.has(Pte::kDirty) || !is_arena(entry.address())) break;
    ++before;
  }
  return before < kPagesBeforeMin ? 0 : before;
}

// A page that can be read, and that a snapshot may share.
bool AddressSpace::may_be_shared(Pte entry) const {
  return entry.is_present() && !entry.is_writable() && is_arena(entry.address()) &&
         !shared_zero.contains(entry.address()) && !tree_.is_exclusive(entry.address());
}

// Puts a copy in the page's place, which nobody may write before all have forgotten the page. Not
// dirty: that tells whether it was written since. False: there is no memory.
bool AddressSpace::replace_by_copy(PteSlot& slot, VirtualAddress page, TlbBatch& batch) {
  const Pte entry = slot.load();
  const PhysicalAddress source = entry.address();
  const Result<PhysicalAddress> copy =
      frame_allocator.allocate_page(Clear::kNo, line_->ownership());
  if (copy.is_error()) return false;
  copy_memory(copy.value(), source, kPageSize);
  slot.store(entry.with_address(copy.value()).without(Pte::kDirty));
  if (line_->owns(frame_info(source))) batch.unlink({page, page + kPageSize}, source);
  return true;
}

}  // namespace dbos
