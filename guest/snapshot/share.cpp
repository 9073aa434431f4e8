// The strategy "shared": a snapshot is a root (docs: snapshots). What PageTree does for it.

#include "guest/memory/frame_allocator.h"
#include "guest/memory/page_tree.h"
#include "guest/memory/shared_zero.h"

namespace dbos {

void PageTree::seal() {
  for (u32 i = 0; i < kProgramRootEntries; ++i) {
    PteSlot& slot = node_at(root_).entries[i];
    if (slot.load().is_writable()) slot.clear(Pte::kWritable);
  }
}

void PageTree::share(PageTree& parent) {
  for (u32 i = 0; i < kProgramRootEntries; ++i) {
    const Pte entry = node_at(parent.root_).entries[i].load();
    if (!entry.is_empty()) node_at(root_).entries[i].store(entry);
  }
}

// Walks both trees down to the page. On the way, each node that was the parent's alone stays so
// (its birth moves past the snapshot) and this tree gets a clone, unless it has a node of its own
// there; what both refer to becomes read-only in both. The parent's root is read-only until its
// next fault, so no processor writes meanwhile.
Result<VirtualAddress> PageTree::copy_pinned(PageTree& parent, VirtualAddress page,
                                             Epoch previous_departure, Epoch departure) {
  const auto was_exclusive = [&](const FrameInfo& info) {
    return parent.line_->owns(info) && info.birth() > previous_departure;
  };
  PhysicalAddress at = parent.root_;
  PhysicalAddress own_at = root_;
  for (Level level = Level::kRoot;; level = below(level)) {
    PteSlot& slot = node_at(at).entry(page, level);
    PteSlot& own_slot = node_at(own_at).entry(page, level);
    Pte entry = slot.load();
    const VirtualAddress behind(align_down(page.value(), span(level)) + span(level));
    if (entry.is_empty()) return behind;
    const PhysicalAddress item = entry.address();
    if (!is_arena(item) || shared_zero.contains(item)) return behind;
    FrameInfo& info = frame_info(item);
    if (!was_exclusive(info)) return behind;
    if (level == Level::kPage) {
      if (info.birth() > departure) return behind;  // two pins of the same page
      const PhysicalAddress copy =
          DBOS_TRY(frame_allocator.allocate_page(Clear::kNo, line_->ownership()));
      copy_memory_in_use(copy, item, kPageSize);
      own_slot.store(entry.with_address(copy));
      info.set_birth(departure + 1);
      return behind;
    }
    if (own_slot.load().is_leaf(level)) DBOS_RETURN_IF_ERROR(split(own_slot));
    if (entry.is_leaf(level)) {
      // The parent's new node is younger than the snapshot. This tree got a node of its own, too.
      DBOS_RETURN_IF_ERROR(parent.split(slot));
    } else if (info.birth() <= departure) {
      const bool is_shared = own_slot.load().address() == item;
      const PhysicalAddress clone =
          is_shared ? DBOS_TRY(allocate_node(Clear::kNo)) : own_slot.load().address();
      for (u32 i = 0; i < kEntriesPerNode; ++i) {
        PteSlot& child = node_at(item).entries[i];
        if (child.load().is_writable()) child.clear(Pte::kWritable);
        if (is_shared) node_at(clone).entries[i].store(child.load());
      }
      if (is_shared) own_slot.store(Pte::node(clone));
      info.set_birth(departure + 1);
    }
    at = slot.load().address();
    own_at = own_slot.load().address();
  }
}

}  // namespace dbos
