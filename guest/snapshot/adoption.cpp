// A parent ended before its snapshot did, and this snapshot is all that is left of it: what the
// parent owned, and this address space still refers to, becomes its own. Without that, a program
// that forks and ends, again and again, would leave its dead generations' memory behind.
//
// It takes one walk over what is not the snapshot's own yet, at its first fault after the parent's
// end, with its lock.

#include "guest/memory/address_space.h"
#include "guest/memory/frame_allocator.h"
#include "guest/memory/shared_zero.h"

namespace dbos {

void AddressSpace::adopt(TlbBatch& batch) {
  batch.flush();  // what it took out so far may be among what is freed here
  while (line_->may_adopt()) {
    tree_.adopt(line_->parent()->id());
    FrameList left = line_->take_parents_place();
    while (!left.is_empty()) {
      const PhysicalAddress item = left.pop().address();
      // A host call may be reading a page that was unmapped here when it still was the parent's.
      const bool is_node = frame_info(item).kind() == FrameKind::kNode;
      if (is_node || !pins_.defer_for_all(item)) line_->dispose(item);
    }
  }
}

void PageTree::adopt(LineId from) {
  adopt_below(root_, Level::kRoot, from);
}

void PageTree::adopt_below(PhysicalAddress node, Level level, LineId from) {
  const u32 end = level == Level::kRoot ? kProgramRootEntries : kEntriesPerNode;
  for (u32 i = 0; i < end; ++i) {
    const Pte entry = node_at(node).entries[i].load();
    if (entry.is_empty()) continue;
    const PhysicalAddress item = entry.address();
    if (entry.is_leaf(level)) {
      if (is_arena(item) && !shared_zero.contains(item)) adopt_leaf(item, level, from);
      continue;
    }
    FrameInfo& info = frame_info(item);
    if (info.owner() == from) {
      info.change(FrameState::kRetired, FrameState::kLinked);
      info.set_owner(line_->id());
      ++counts_.nodes;
    } else if (!line_->owns(info)) {
      continue;  // an older ancestor's, and so is everything below
    }
    adopt_below(item, below(level), from);
  }
}

void PageTree::adopt_leaf(PhysicalAddress item, Level level, LineId from) {
  FrameInfo& info = frame_info(item);
  if (info.owner() != from) return;
  if (level == Level::kDirectory) {
    // The parent may have split it; this address space did not.
    if (info.kind() == FrameKind::kPage) frame_allocator.merge_large(item);
    for (u64 i = 0; i < kFramesPerBlock; ++i) {
      frame_info(item + i * kPageSize).set_owner(line_->id());
    }
  } else {
    // Or the reverse.
    if (info.kind() != FrameKind::kPage) {
      line_->split_retired(PhysicalAddress(align_down(item.value(), kLargePageSize)));
    }
    info.set_owner(line_->id());
  }
  info.change(FrameState::kRetired, FrameState::kLinked);
}

}  // namespace dbos
