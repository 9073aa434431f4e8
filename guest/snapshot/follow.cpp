// The strategy "ready": how one page tree becomes, and stays, a read-only copy of another.

#include "guest/memory/frame_allocator.h"
#include "guest/memory/page_tree.h"

namespace dbos {
namespace {

// A whole table, read-only.
void copy_table(Node& to, const Node& from) {
#pragma GCC unroll 8
  for (u32 i = 0; i < kEntriesPerNode; ++i) {
    to.entries[i].store(from.entries[i].load().without(Pte::kWritable));
  }
}

bool is_table(Pte entry, Level level) {
  return !entry.is_empty() && !entry.is_leaf(level);
}

}  // namespace

Result<void> PageTree::follow(const PageTree& main, VirtualRange range) {
  return follow_below(node_at(root_), Level::kRoot, VirtualAddress(0), node_at(main.root_), range);
}

Result<void> PageTree::follow_below(Node& node, Level level, VirtualAddress base, const Node& main,
                                    VirtualRange range) {
  const VirtualRange part = entries_in(level, base, range);
  for (VirtualAddress at = part.begin; at < part.end; at = at + span(level)) {
    const u32 index = entry_index(at, level);
    const Pte theirs = main.entries[index].load();
    PteSlot& slot = node.entries[index];
    if (theirs.is_empty() && slot.load().is_empty()) continue;
    DBOS_RETURN_IF_ERROR(follow_entry(slot, level, {at, at + span(level)}, theirs, range));
  }
  return {};
}

Result<void> PageTree::follow_entry(PteSlot& slot, Level level, VirtualRange covered, Pte theirs,
                                    VirtualRange range) {
  const Pte mine = slot.load();
  if (!is_table(theirs, level)) {
    if (is_table(mine, level)) drop_below(mine.address(), below(level));
    slot.store(theirs.without(Pte::kWritable));
    return {};
  }
  if (!is_table(mine, level)) {
    // Where there was nothing, whatever else is in the table was noted, or is yet to be copied. A
    // large page that was split is all in the table.
    const bool take_all =
        level == Level::kDirectory && (range.contains(covered) || !mine.is_empty());
    const PhysicalAddress made = DBOS_TRY(allocate_node(take_all ? Clear::kNo : Clear::kYes));
    if (take_all) copy_table(node_at(made), node_at(theirs.address()));
    slot.store(Pte::node(made));
    if (take_all) return {};
  }
  return follow_below(node_at(slot.load().address()), below(level), covered.begin,
                      node_at(theirs.address()), range);
}

void PageTree::prefetch(VirtualAddress address) const {
  constexpr u32 kEntriesPerLine = 64 / sizeof(PteSlot);
  PhysicalAddress at = root_;
  for (Level level = Level::kRoot; level != Level::kPage; level = below(level)) {
    const Pte entry = node_at(at).entry(address, level).load();
    if (!is_table(entry, level)) return;
    at = entry.address();
  }
  const PteSlot* slot = &node_at(at).entry(address, Level::kPage);
  __builtin_prefetch(slot);
  __builtin_prefetch(slot + kEntriesPerLine);
}

// Nobody but this tree knows its nodes.
void PageTree::drop_below(PhysicalAddress node, Level level) {
  if (level != Level::kPage) {
    for (const PteSlot& slot : node_at(node).entries) {
      const Pte entry = slot.load();
      if (is_table(entry, level)) drop_below(entry.address(), below(level));
    }
  }
  frame_allocator.free(node);
  --counts_.nodes;
}

VirtualAddress PageTree::next_table(VirtualAddress from) const {
  return next_below(node_at(root_), Level::kRoot, VirtualAddress(0), from);
}

VirtualAddress PageTree::next_below(const Node& node, Level level, VirtualAddress base,
                                    VirtualAddress from) {
  const VirtualRange part = entries_in(level, base, {from, kProgramTablesEnd});
  for (VirtualAddress at = part.begin; at < part.end; at = at + span(level)) {
    const Pte entry = node.entries[entry_index(at, level)].load();
    if (entry.is_empty()) continue;
    if (level == Level::kDirectory) return at;
    const VirtualAddress found = next_below(node_at(entry.address()), below(level), at, from);
    if (found < at + span(level)) return found;
  }
  return part.end;
}

}  // namespace dbos
