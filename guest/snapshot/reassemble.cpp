// 2 MiB pages that a write after a snapshot has split, put together again in the background.
//
//   1. With the lock: find a table whose 512 pages are all the line's alone, with the same rights.
//      If they lie in order in one block, they become one page as they are. Else take away the
//      right to write through the table, and remember where its pages are.
//   2. Without it: copy them to a new block. Whoever writes meanwhile gives the right back first.
//   3. With it: if nobody has, and nothing else has changed, the block takes the table's place.
//
// A snapshot taken in between takes the right away again, whoever has written: so no snapshot may
// have been taken.

#include "guest/memory/address_space.h"
#include "guest/memory/frame_allocator.h"
#include "guest/memory/shared_zero.h"

namespace dbos {
namespace {

constexpr u64 kRights = Pte::kPresent | Pte::kNoExecute | Pte::kHeld | Pte::kUser;

}  // namespace

// A table that may become one page.
struct AddressSpace::Scattered {
  VirtualAddress begin;
  Pte table;                           // what refers to it
  FrameNumber pages[kEntriesPerNode];  // where its pages are
  Epoch epoch{};                       // in which it was found
  bool is_in_place = false;            // in order, in one block
};

bool AddressSpace::reassemble(u32 tables_max) {
  Scattered found;
  Search search = Search::kMore;
  {
    LockGuard guard(lock_);
    TlbBatch batch(*this, *line_, pins_);
    search = find_scattered(tables_max, found, batch);
    if (search == Search::kFound && found.is_in_place) {
      frame_allocator.merge_large(found.pages[0].address());
      replace_table(found, found.pages[0].address(), batch);
      return true;
    }
  }
  if (search != Search::kFound) return search == Search::kMore;
  const Result<PhysicalAddress> block =
      frame_allocator.allocate_large(Clear::kNo, line_->ownership());
  if (block.is_error()) {
    reassembled_to_ = VirtualAddress(0);  // the pass is over, too
    return false;
  }
  for (u32 i = 0; i < kEntriesPerNode; ++i) {
    // What changes meanwhile is not used.
    copy_memory_in_use(block.value() + i * kPageSize, found.pages[i].address(), kPageSize);
  }
  bool is_used = false;
  {
    LockGuard guard(lock_);
    TlbBatch batch(*this, *line_, pins_);
    is_used = is_unchanged(found);
    if (is_used) {
      frame_allocator.set_birth_of_large(block.value(), current_epoch());
      const PteSlot* slots = node_at(found.table.address()).entries;
      for (u32 i = 0; i < kEntriesPerNode; ++i) {
        const VirtualAddress at = found.begin + i * kPageSize;
        batch.unlink({at, at + kPageSize}, slots[i].load().address());
      }
      replace_table(found, block.value(), batch);
    }
  }
  if (!is_used) frame_allocator.free(block.value());
  return true;
}

// Looks at up to `tables_max` tables from where the last search ended.
AddressSpace::Search AddressSpace::find_scattered(u32 tables_max, Scattered& found,
                                                  TlbBatch& batch) {
  for (u32 i = 0; i < tables_max; ++i) {
    const VirtualAddress begin = tree_.next_table(reassembled_to_);
    if (begin.value() >= kProgramEnd) {
      reassembled_to_ = VirtualAddress(0);
      return Search::kEnd;
    }
    reassembled_to_ = begin + kLargePageSize;
    if (!is_scattered(begin, found)) continue;
    if (found.is_in_place) return Search::kFound;
    tree_.find_table(begin)->clear(Pte::kWritable);
    found.table = found.table.without(Pte::kWritable);
    batch.invalidate({begin, begin + kLargePageSize});
    return Search::kFound;
  }
  return Search::kMore;
}

bool AddressSpace::is_scattered(VirtualAddress begin, Scattered& found) {
  const Vma* vma = vmas_.find(begin);
  if (vma == nullptr || !vma->is_anonymous() || !wants_large(*vma, begin)) return false;
  if (pins_.overlaps({begin, begin + kLargePageSize})) return false;
  const PteSlot* slot = tree_.find_table(begin);
  if (slot == nullptr || !tree_.is_exclusive(slot->load().address())) return false;
  found.begin = begin;
  found.epoch = current_epoch();
  found.table = slot->load();
  const PteSlot* slots = node_at(found.table.address()).entries;
  const u64 rights = slots[0].load().bits() & kRights;
  const PhysicalAddress first = slots[0].load().address();
  found.is_in_place = is_aligned(first.value(), kLargePageSize);
  for (u32 i = 0; i < kEntriesPerNode; ++i) {
    const Pte entry = slots[i].load();
    const PhysicalAddress page = entry.address();
    if (!entry.is_present() || (entry.bits() & kRights) != rights) return false;
    if (!is_arena(page) || shared_zero.contains(page) || !tree_.is_exclusive(page)) return false;
    if (page != first + i * kPageSize) found.is_in_place = false;
    found.pages[i] = FrameNumber::of(page);
  }
  return true;
}

// Nobody has written through the table, moved, pinned or shared what it maps.
bool AddressSpace::is_unchanged(const Scattered& found) {
  if (found.epoch != current_epoch()) return false;
  const PteSlot* slot = tree_.find_table(found.begin);
  if (slot == nullptr || slot->load().is_writable() ||
      slot->load().address() != found.table.address()) {
    return false;
  }
  Scattered now;
  if (!is_scattered(found.begin, now)) return false;
  for (u32 i = 0; i < kEntriesPerNode; ++i) {
    if (now.pages[i] != found.pages[i]) return false;
  }
  return true;
}

// `block`, which is linked, takes the place of the table. Its pages are unlinked, or in it.
void AddressSpace::replace_table(const Scattered& found, PhysicalAddress block, TlbBatch& batch) {
  const Vma& vma = *vmas_.find(found.begin);
  tree_.merge(found.begin, leaf(vma, block, vma.protection.may_write(), true), batch);
  ++reassembled_;
}

// ---- The tree ----

PteSlot* PageTree::find_table(VirtualAddress address) const {
  PhysicalAddress at = root_;
  for (Level level = Level::kRoot; level != Level::kDirectory; level = below(level)) {
    const Pte entry = node_at(at).entry(address, level).load();
    if (entry.is_empty() || entry.is_leaf(level)) return nullptr;
    // What is above a table that is written is writable; else the table is as good as shared.
    if (!is_exclusive(entry.address())) return nullptr;
    at = entry.address();
  }
  PteSlot& slot = node_at(at).entry(address, Level::kDirectory);
  const Pte entry = slot.load();
  return entry.is_empty() || entry.is_leaf(Level::kDirectory) ? nullptr : &slot;
}

void PageTree::merge(VirtualAddress begin, Pte page, TlbBatch& batch) {
  PteSlot* slot = find_table(begin);
  const VirtualRange range{begin, begin + kLargePageSize};
  batch.unlink_node(slot->exchange(Pte()).address());
  --counts_.nodes;
  // Nobody may see the new page while somebody else still sees the old ones, or both sizes at once.
  batch.invalidate(range);
  batch.flush();
  slot->store(page.with(Pte::kLarge));
  note_change(range);
}

}  // namespace dbos
