#include "guest/memory/page_tree.h"

#include "guest/memory/frame_allocator.h"
#include "guest/memory/shared_zero.h"

namespace dbos {
namespace {

constexpr VirtualRange entry_range(VirtualAddress base, Level level) {
  return {base, base + span(level)};
}

}  // namespace

Result<void> PageTree::initialize(Line& line, PhysicalAddress kernel_root) {
  line_ = &line;
  root_ = DBOS_TRY(allocate_node(Clear::kYes));
  for (u32 i = kProgramRootEntries; i < kEntriesPerNode; ++i) {
    node_at(root_).entries[i].store(node_at(kernel_root).entries[i].load());
  }
  return {};
}

void PageTree::destroy(TlbBatch& batch) {
  is_dying_ = true;
  for (u32 i = 0; i < kProgramRootEntries; ++i) {
    const Pte entry = node_at(root_).entries[i].load();
    if (entry.is_empty()) continue;
    unlink_entry(entry, Level::kRoot, VirtualAddress(i * span(Level::kRoot)), true, batch);
    batch.flush();
  }
  batch.unlink_node(root_);
  batch.flush();
  root_ = PhysicalAddress();
}

Result<PhysicalAddress> PageTree::allocate_node(Clear clear) {
  const PhysicalAddress node = DBOS_TRY(frame_allocator.allocate_node(clear, line_->ownership()));
  ++counts_.nodes;
  return node;
}

// ---- Walking ----

Walk PageTree::find(VirtualAddress address) const {
  bool is_path_writable = true;
  PhysicalAddress at = root_;
  for (Level level = Level::kRoot;; level = below(level)) {
    PteSlot& slot = node_at(at).entry(address, level);
    const Pte entry = slot.load();
    if (entry.is_empty() || entry.is_leaf(level)) return {&slot, entry, level, is_path_writable};
    is_path_writable = is_path_writable && entry.is_writable();
    at = entry.address();
  }
}

Result<Walk> PageTree::open(VirtualAddress address, Level lowest, TlbBatch& batch) {
  if (follower_ != nullptr) follower_->note(address);
  PhysicalAddress at = root_;
  for (Level level = Level::kRoot;; level = below(level)) {
    PteSlot& slot = node_at(at).entry(address, level);
    Pte entry = slot.load();
    if (level == lowest || entry.is_leaf(level)) return Walk{&slot, entry, level, true};
    if (entry.is_empty()) {
      slot.store(Pte::node(DBOS_TRY(allocate_node(Clear::kYes))));
    } else if (!entry.is_writable()) {
      DBOS_RETURN_IF_ERROR(isolate_node(slot, address, batch));
    }
    at = slot.load().address();
  }
}

Result<void> PageTree::isolate_node(PteSlot& slot, VirtualAddress address, TlbBatch& batch) {
  const PhysicalAddress node = slot.load().address();
  const FrameInfo& info = frame_info(node);
  if (!line_->is_exclusive(info)) {
    if (!line_->is_private_node(info)) {
      batch.invalidate({address, address + kPageSize});
      return clone_node(slot, batch);
    }
    renew_node(node);
  }
  slot.set(Pte::kWritable);
  return {};
}

// No processor can write through the node, or has since the snapshot from which on it can't, so
// there is no dirty bit to lose. An accessed bit may get lost.
void PageTree::renew_node(PhysicalAddress node) {
  for (PteSlot& slot : node_at(node).entries) {
    const Pte entry = slot.load();
    if (entry.is_writable()) slot.store(entry.without(Pte::kWritable));
  }
  frame_info(node).set_birth(current_epoch());
}

Result<void> PageTree::clone_node(PteSlot& slot, TlbBatch& batch) {
  const PhysicalAddress shared = slot.load().address();
  const PhysicalAddress clone = DBOS_TRY(allocate_node(Clear::kNo));
  Node& to = node_at(clone);
  const Node& from = node_at(shared);
  // All that a shared node refers to is shared with it, so nothing in the clone is writable.
  for (u32 i = 0; i < kEntriesPerNode; ++i) {
    to.entries[i].store(from.entries[i].load().without(Pte::kWritable));
  }
  slot.store(Pte::node(clone));
  if (line_->owns(frame_info(shared))) {
    batch.unlink_node(shared);
    --counts_.nodes;
  }
  return {};
}

Result<void> PageTree::split(PteSlot& slot) {
  const Pte large = slot.load();
  DBOS_ASSERT(large.has(Pte::kLarge) && is_arena(large.address()));
  const PhysicalAddress node = DBOS_TRY(allocate_node(Clear::kNo));
  const PhysicalAddress block = large.address();
  for (u32 i = 0; i < kEntriesPerNode; ++i) {
    node_at(node).entries[i].store(large.without(Pte::kLarge).with_address(block + i * kPageSize));
  }
  if (line_->owns(frame_info(block))) frame_allocator.split_large(block);
  slot.store(Pte::node(node));
  return {};
}

// ---- Taking away ----

// A ready copy may map what main has freed since and is the copy's own table by now.
bool PageTree::owns_page(PhysicalAddress item) const {
  const FrameInfo& info = frame_info(item);
  return line_->owns(info) && info.kind() != FrameKind::kNode;
}

// `is_owned`: the nodes on the way were the line's own; below others nothing is, so that only the
// counting is left to do.
void PageTree::unlink_entry(Pte entry, Level level, VirtualAddress base, bool is_owned,
                            TlbBatch& batch) {
  if (entry.is_leaf(level)) {
    const PhysicalAddress item = entry.address();
    if (!is_arena(item)) {
      counts_.window -= pages_of(level);
    } else if (!shared_zero.contains(item)) {
      counts_.anonymous -= pages_of(level);
      if (is_owned && owns_page(item)) batch.unlink(entry_range(base, level), item);
    }
    return;
  }
  const PhysicalAddress node = entry.address();
  const bool is_node_owned = is_owned && line_->owns(frame_info(node));
  if (!is_node_owned && is_dying_) return;
  const u64 step = span(below(level));
  for (u32 i = 0; i < kEntriesPerNode; ++i) {
    const Pte child = node_at(node).entries[i].load();
    if (child.is_empty()) continue;
    unlink_entry(child, below(level), base + i * step, is_node_owned, batch);
  }
  if (is_node_owned) {
    batch.unlink_node(node);
    --counts_.nodes;
  }
}

Result<PageTree::Clearing> PageTree::prepare_clear(VirtualRange range, VirtualRange freeable,
                                                   TlbBatch& batch) {
  DBOS_ASSERT(freeable.contains(range));
  DBOS_RETURN_IF_ERROR(isolate(range.begin, freeable, batch));
  DBOS_RETURN_IF_ERROR(isolate(range.end, freeable, batch));
  return Clearing(range, freeable);
}

// Makes the nodes that a boundary cuts through exclusive, and splits the large page that it cuts.
// The nodes between two boundaries are dropped as they are.
Result<void> PageTree::isolate(VirtualAddress boundary, VirtualRange freeable, TlbBatch& batch) {
  PhysicalAddress at = root_;
  for (Level level = Level::kRoot;; level = below(level)) {
    if (is_aligned(boundary.value(), span(level))) return {};
    PteSlot& slot = node_at(at).entry(boundary, level);
    const Pte entry = slot.load();
    if (entry.is_empty()) return {};
    const VirtualAddress base(align_down(boundary.value(), span(level)));
    if (entry.is_leaf(level)) return split(slot);
    if (freeable.contains(entry_range(base, level))) return {};
    if (!is_exclusive(entry.address())) DBOS_RETURN_IF_ERROR(isolate_node(slot, base, batch));
    at = slot.load().address();
  }
}

void PageTree::clear(const Clearing& prepared, TlbBatch& batch) {
  clear_below(node_at(root_), Level::kRoot, VirtualAddress(0), prepared, batch);
  note_change(prepared.range_);
}

void PageTree::clear_below(Node& node, Level level, VirtualAddress base, const Clearing& prepared,
                           TlbBatch& batch) {
  const VirtualRange part = entries_in(level, base, prepared.range_);
  for (VirtualAddress at = part.begin; at < part.end; at = at + span(level)) {
    PteSlot& slot = node.entry(at, level);
    const Pte entry = slot.load();
    if (entry.is_empty()) continue;
    const VirtualRange covered = entry_range(at, level);
    const bool is_leaf = entry.is_leaf(level);
    if (prepared.range_.contains(covered) || (!is_leaf && prepared.freeable_.contains(covered))) {
      unlink_entry(slot.exchange(Pte()), level, covered.begin, true, batch);
      batch.invalidate(covered);
    } else {
      DBOS_ASSERT(!is_leaf && is_exclusive(entry.address()));
      clear_below(node_at(entry.address()), below(level), covered.begin, prepared, batch);
    }
  }
}

Result<void> PageTree::clear_windows(VirtualRange range, TlbBatch& batch) {
  const Result<void> result =
      clear_windows_below(node_at(root_), Level::kRoot, VirtualAddress(0), range, batch);
  note_change(range);
  return result;
}

Result<void> PageTree::clear_windows_below(Node& node, Level level, VirtualAddress base,
                                           VirtualRange range, TlbBatch& batch) {
  const VirtualRange part = entries_in(level, base, range);
  for (VirtualAddress at = part.begin; at < part.end; at = at + span(level)) {
    PteSlot& slot = node.entry(at, level);
    const Pte entry = slot.load();
    if (entry.is_empty()) continue;
    if (!entry.is_leaf(level)) {
      if (!is_exclusive(entry.address())) DBOS_RETURN_IF_ERROR(isolate_node(slot, at, batch));
      DBOS_RETURN_IF_ERROR(
          clear_windows_below(node_at(slot.load().address()), below(level), at, range, batch));
    } else if (!is_arena(entry.address())) {
      slot.exchange(Pte());
      counts_.window -= pages_of(level);
      batch.invalidate(entry_range(at, level));
    }
  }
  return {};
}

// ---- Rights ----

Result<void> PageTree::protect(VirtualRange range, Protection from, Protection to,
                               TlbBatch& batch) {
  const bool adds_only = (from.linux_bits() & ~to.linux_bits()) == 0;
  Node& root = node_at(root_);
  const Result<void> result =
      prepare_protect(root, Level::kRoot, VirtualAddress(0), range, adds_only, batch);
  if (result.is_ok()) protect_below(root, Level::kRoot, VirtualAddress(0), range, to, batch);
  note_change(range);
  return result;
}

// Splits what the range cuts, and gets nodes of its own where rights are taken away.
Result<void> PageTree::prepare_protect(Node& node, Level level, VirtualAddress base,
                                       VirtualRange range, bool adds_only, TlbBatch& batch) {
  if (level == Level::kPage) return {};
  const VirtualRange part = entries_in(level, base, range);
  for (VirtualAddress at = part.begin; at < part.end; at = at + span(level)) {
    PteSlot& slot = node.entry(at, level);
    const VirtualRange covered = entry_range(at, level);
    const Pte entry = slot.load();
    if (entry.is_empty() || (entry.is_leaf(level) && range.contains(covered))) continue;
    if (entry.is_leaf(level)) {
      DBOS_RETURN_IF_ERROR(split(slot));
    } else if (!is_exclusive(entry.address())) {
      if (adds_only) continue;
      DBOS_RETURN_IF_ERROR(isolate_node(slot, covered.begin, batch));
    }
    DBOS_RETURN_IF_ERROR(prepare_protect(node_at(slot.load().address()), below(level),
                                         covered.begin, range, adds_only, batch));
  }
  return {};
}

// Nodes that are shared still are to get rights only, which is left to the fault handler. So is a
// leaf that the range cuts: its node was shared when prepare_protect() looked, and is not any more.
void PageTree::protect_below(Node& node, Level level, VirtualAddress base, VirtualRange range,
                             Protection to, TlbBatch& batch) {
  const VirtualRange part = entries_in(level, base, range);
  for (VirtualAddress at = part.begin; at < part.end; at = at + span(level)) {
    PteSlot& slot = node.entry(at, level);
    const VirtualRange covered = entry_range(at, level);
    const Pte entry = slot.load();
    if (entry.is_empty()) continue;
    if (entry.is_leaf(level)) {
      if (range.contains(covered)) protect_leaf(slot, level, covered.begin, to, batch);
    } else if (is_exclusive(entry.address())) {
      protect_below(node_at(entry.address()), below(level), covered.begin, range, to, batch);
    }
  }
}

void PageTree::protect_leaf(PteSlot& slot, Level level, VirtualAddress base, Protection to,
                            TlbBatch& batch) {
  const Pte before = slot.load();
  const PhysicalAddress item = before.address();
  u64 to_clear = 0;
  u64 to_set = 0;
  if (to.is_none()) {
    to_clear |= Pte::kPresent | Pte::kWritable;
    to_set |= Pte::kHeld;
  } else {
    to_clear |= Pte::kHeld;
    to_set |= Pte::kPresent;
  }
  (to.may_execute() ? to_clear : to_set) |= Pte::kNoExecute;
  if (!to.may_write()) {
    to_clear |= Pte::kWritable;
  } else if (is_arena(item) && !shared_zero.contains(item) && is_exclusive(item)) {
    to_set |= Pte::kWritable;  // else the fault handler decides
  }
  slot.change_flags(to_clear, to_set);
  const Pte after = slot.load();
  const bool lost = (before.is_present() && !after.is_present()) ||
                    (before.is_writable() && !after.is_writable()) ||
                    (before.is_executable() && !after.is_executable());
  if (lost) batch.invalidate(entry_range(base, level));
}

// ---- Moving ----

Result<void> PageTree::move(VirtualRange from, VirtualAddress to, TlbBatch& batch) {
  // Large pages and whole nodes move as they are where both places are aligned alike; so only what
  // is cut by a boundary, or lies askew, has to be opened.
  const bool is_askew = !is_aligned(to.value() - from.begin.value(), kLargePageSize);
  u64 at = from.begin.value();
  while (at < from.end.value()) {
    const VirtualAddress source(at);
    const Walk walk = find(source);
    const u64 step = span(walk.level);
    const u64 base = align_down(at, step);
    if (walk.entry.is_empty()) {
      at = base + step;
      continue;
    }
    const bool is_whole = base >= from.begin.value() && base + step <= from.end.value();
    const VirtualAddress target = to + (at - from.begin.value());
    const bool as_large = walk.level == Level::kDirectory && is_whole && !is_askew;
    Walk opened = DBOS_TRY(open(source, as_large ? Level::kDirectory : Level::kPage, batch));
    if (opened.level == Level::kDirectory && !as_large) DBOS_RETURN_IF_ERROR(split(*opened.slot));
    if (!as_large) static_cast<void>(DBOS_TRY(open(source, Level::kPage, batch)));
    static_cast<void>(DBOS_TRY(open(target, as_large ? Level::kDirectory : Level::kPage, batch)));
    at += as_large ? step : kPageSize;
  }
  move_entries(from, to, batch);
  note_change(from);
  note_change({to, to + from.size()});
  return {};
}

// All nodes on both sides are open: nothing can fail.
void PageTree::move_entries(VirtualRange from, VirtualAddress to, TlbBatch& batch) {
  u64 at = from.begin.value();
  while (at < from.end.value()) {
    const Walk source = find(VirtualAddress(at));
    const u64 step = span(source.level);
    if (!source.entry.is_empty()) {
      const VirtualAddress target_address = to + (at - from.begin.value());
      const Walk target = find(target_address);
      DBOS_ASSERT(target.entry.is_empty() && target.level == source.level);
      DBOS_ASSERT(source.is_path_writable && target.is_path_writable);
      target.slot->store(source.slot->exchange(Pte()));
      batch.invalidate({VirtualAddress(at), VirtualAddress(at) + step});
    }
    at = align_down(at, step) + step;
  }
}

// ---- Looking ----

namespace {

// How many of these pages, which one leaf maps, their owner has unlinked: they are left to the
// snapshots that still map them. A 2 MiB page may be whole here and split by its owner, or the
// reverse; then its first frame speaks for all.
//
// The leaf keeps the frames from being freed. No lock keeps their owner from splitting, unlinking
// or merging them meanwhile: its address space's lock guards their entries, and the lines' lock
// those of retired ones. Each load is of a whole word, so all that comes of it is a count in which
// such a change is there in part.
u64 count_retired(PhysicalAddress first, u64 pages) {
  if (frame_info(first).kind() != FrameKind::kPage) {
    const PhysicalAddress whole(align_down(first.value(), kLargePageSize));
    return frame_info(whole).state() == FrameState::kRetired ? pages : 0;
  }
  u64 retired = 0;
  for (u64 i = 0; i < pages; ++i) {
    retired += frame_info(first + i * kPageSize).state() == FrameState::kRetired;
  }
  return retired;
}

}  // namespace

void PageTree::add_usage(VirtualRange range, PageUsage& usage) const {
  for_each_leaf(range, [&](VirtualAddress address, Pte entry, Level level, bool is_path_writable) {
    const PhysicalAddress item = entry.address();
    if (is_arena(item) && shared_zero.contains(item)) return;
    // Two vmas with the same rights may share a large leaf.
    const VirtualRange part = entry_range(address, level).intersect(range);
    const u64 pages = part.size() / kPageSize;
    usage.present += pages;
    if (entry.is_writable() && is_path_writable) usage.writable += pages;
    if (entry.has(Pte::kAccessed)) usage.accessed += pages;
    // Anonymous memory is there because it was written; its bit has a meaning of its own
    // (guest/snapshot/copy.cpp).
    const bool is_dirty = entry.has(Pte::kDirty) || is_arena(item);
    if (is_dirty) usage.dirty += pages;
    if (level == Level::kDirectory) usage.large += pages;
    u64 private_pages = 0;
    if (is_arena(item)) {
      usage.anonymous += pages;
      private_pages =
          is_exclusive(item) ? pages : count_retired(item + (part.begin - address), pages);
    }
    (is_dirty ? usage.private_dirty : usage.private_clean) += private_pages;
    (is_dirty ? usage.shared_dirty : usage.shared_clean) += pages - private_pages;
  });
}

}  // namespace dbos
