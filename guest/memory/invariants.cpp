// The invariants of the memory subsystem, checked by walking everything. For the tests on the host,
// while nothing else runs (docs/decisions/0022-invariants-are-checked-on-the-host.md).
//
// Each frame is on exactly one of: a free list, a cache, a deadlist, a pin's deferred list, the
// kernel's, or an owner's table. What an address space can write through is its alone. What is
// freed or retired is not in its owner's tables, and what is freed is in nobody's.

#include "guest/memory/address_space.h"
#include "guest/memory/frame_allocator.h"
#include "guest/memory/shared_zero.h"

namespace dbos {
namespace {

bool is_live(FrameState state) {
  return state == FrameState::kLinked || state == FrameState::kRetired ||
         state == FrameState::kUnlinked;
}

// One address space's tree.
class TreeChecker {
 public:
  TreeChecker(AddressSpace& space, const VmaTree& vmas) : space_(space), vmas_(vmas) {}

  void run() {
    check_node(space_.root(), Level::kRoot, VirtualAddress(0), true, true);
    const PageCounts& counts = space_.tree().counts();
    DBOS_ASSERT(counts.anonymous == counts_.anonymous);
    DBOS_ASSERT(counts.window == counts_.window);
    DBOS_ASSERT(counts.nodes == counts_.nodes);
  }
  const PageCounts& counts() const { return counts_; }
  u64 owned_pages() const { return owned_pages_; }

 private:
  void check_node(PhysicalAddress node, Level level, VirtualAddress base, bool is_path_writable,
                  bool is_owned_path) {
    const FrameInfo& info = frame_info(node);
    const Line& line = space_.line();
    const bool is_owned = line.owns(info);
    DBOS_ASSERT(info.kind() == FrameKind::kNode && is_live(info.state()));
    DBOS_ASSERT(info.birth() <= current_epoch());
    // A shared node is never reachable writable; an own one never from an inherited one. The root
    // is always the address space's alone.
    DBOS_ASSERT(level == Level::kRoot || !is_path_writable || line.is_exclusive(info));
    DBOS_ASSERT(!is_owned || is_owned_path);
    if (is_owned) {
      DBOS_ASSERT(info.state() == FrameState::kLinked);
      ++counts_.nodes;
    }
    const u32 end = level == Level::kRoot ? kProgramRootEntries : kEntriesPerNode;
    for (u32 i = 0; i < end; ++i) {
      const Pte entry = node_at(node).entries[i].load();
      if (entry.is_empty()) continue;
      const VirtualAddress at = base + i * span(level);
      DBOS_ASSERT(!entry.has(Pte::kUser));
      const bool is_writable = is_path_writable && entry.is_writable();
      if (entry.is_leaf(level)) {
        DBOS_ASSERT(entry.is_present() != entry.has(Pte::kHeld));
        check_leaf(entry, level, at, is_writable, is_owned);
      } else {
        DBOS_ASSERT(entry.is_present());
        const Vma* vma = vmas_.find_ending_after(at);
        DBOS_ASSERT(vma != nullptr && vma->begin() < at + span(level));
        check_node(entry.address(), below(level), at, is_writable, is_owned);
      }
    }
  }

  void check_leaf(Pte entry, Level level, VirtualAddress at, bool is_writable, bool is_owned_path) {
    const Vma* vma = vmas_.find(at);
    DBOS_ASSERT(vma != nullptr);
    const PhysicalAddress item = entry.address();
    // Rights are never more than the vma's.
    if (entry.is_present()) {
      DBOS_ASSERT(!vma->protection.is_none());
      DBOS_ASSERT(!is_writable || vma->protection.may_write());
      DBOS_ASSERT(!entry.is_executable() || vma->protection.may_execute());
    }
    if (!is_arena(item)) {
      DBOS_ASSERT(vma->window != nullptr && vma->window_address(at) == item);
      DBOS_ASSERT(!is_writable || vma->is_shared());
      ++counts_.window;
      return;
    }
    DBOS_ASSERT(!vma->is_shared());
    if (shared_zero.contains(item)) {
      DBOS_ASSERT(!is_writable && vma->is_anonymous());
      return;
    }
    const Line& line = space_.line();
    const FrameInfo& info = frame_info(item);
    counts_.anonymous += pages_of(level);
    DBOS_ASSERT(!is_writable || line.is_exclusive(info));
    if (line.owns(info)) {
      DBOS_ASSERT(is_owned_path && info.state() == FrameState::kLinked);
      DBOS_ASSERT(info.kind() == (level == Level::kPage ? FrameKind::kPage : FrameKind::kLarge));
      DBOS_ASSERT(info.birth() <= current_epoch());
      owned_pages_ += pages_of(level);
    } else if (info.kind() != FrameKind::kLargeTail) {
      DBOS_ASSERT(is_live(info.state()));
    }
  }

  AddressSpace& space_;
  const VmaTree& vmas_;
  PageCounts counts_;
  u64 owned_pages_ = 0;
};

u64 check_list(const FrameList& list, FrameState state, u64* nodes) {
  u64 pages = 0;
  u64 count = 0;
  FrameNumber at = list.head();
  for (; count < list.size(); at = frame_info(at).next(), ++count) {
    const FrameInfo& info = frame_info(at);
    DBOS_ASSERT(info.state() == state);
    DBOS_ASSERT(info.kind() != FrameKind::kLargeTail);
    DBOS_ASSERT(info.birth() <= current_epoch());
    if (info.kind() == FrameKind::kNode) {
      ++*nodes;
    } else {
      pages += frames_of(info.kind());
    }
  }
  DBOS_ASSERT(at.is_none());
  return pages;
}

// What one tree maps, the other maps to the same place with the same rights, but for writing. One
// may have split a large page that the other has whole.
void check_copy(const PageTree& one, const PageTree& other, VirtualRange range) {
  constexpr u64 kIgnored = Pte::kWritable | Pte::kAccessed | Pte::kDirty | Pte::kLarge;
  one.for_each_leaf(range, [&](VirtualAddress at, Pte entry, Level, bool) {
    const Walk walk = other.find(at);
    DBOS_ASSERT(!walk.entry.is_empty());
    DBOS_ASSERT(walk.physical(at) == entry.address());
    const Pte found = walk.entry.with_address(PhysicalAddress(0));
    const Pte wanted = entry.with_address(PhysicalAddress(0));
    DBOS_ASSERT(found.without(kIgnored) == wanted.without(kIgnored));
  });
}

// A copy is made of nodes of its own, and owns nothing else.
u64 count_nodes(const Line& line, PhysicalAddress node, Level level) {
  DBOS_ASSERT(line.owns(frame_info(node)) && frame_info(node).kind() == FrameKind::kNode);
  u64 count = 1;
  if (level == Level::kPage) return count;
  const u32 end = level == Level::kRoot ? kProgramRootEntries : kEntriesPerNode;
  for (u32 i = 0; i < end; ++i) {
    const Pte entry = node_at(node).entries[i].load();
    if (!entry.is_empty() && !entry.is_leaf(level)) {
      count += count_nodes(line, entry.address(), below(level));
    }
  }
  return count;
}

}  // namespace

void AddressSpace::check_invariants() {
  vmas_.check_invariants();
  TreeChecker(*this, vmas_).run();
  if (ready_ == nullptr) return;
  ready_->for_each_copy([&](AddressSpace& copy, VirtualAddress end) {
    check_copy(tree_, copy.tree(), {VirtualAddress(0), end});
    check_copy(copy.tree(), tree_, {VirtualAddress(0), end});
  });
}

void check_memory_invariants() {
  frame_allocator.check_invariants();
  u64 pages = kFramesPerBlock;  // the zero pages
  u64 nodes = 0;
  u64 retired_pages = 0;
  u64 retired_nodes = 0;
  // First: it brings ready copies in step.
  for (AddressSpace* space = AddressSpace::first(); space != nullptr; space = space->next()) {
    if (!space->is_copy()) space->check_invariants();
  }
  for (AddressSpace* space = AddressSpace::first(); space != nullptr; space = space->next()) {
    if (space->is_copy()) {
      const u64 count = count_nodes(space->line(), space->root(), Level::kRoot);
      DBOS_ASSERT(space->tree().counts().nodes == count);
      nodes += count;
      continue;
    }
    TreeChecker checker(*space, space->vmas());
    checker.run();
    pages += checker.owned_pages();
    nodes += checker.counts().nodes;
    for (const PinSlot* slot = space->pins().first(); slot != nullptr; slot = slot->next) {
      u64 deferred_nodes = 0;
      pages += check_list(slot->deferred, FrameState::kUnlinked, &deferred_nodes);
      pages += check_list(slot->deferred_shared, FrameState::kUnlinked, &deferred_nodes);
      DBOS_ASSERT(deferred_nodes == 0);
    }
  }
  for_each_line([&](const Line& line) {
    u64 line_nodes = 0;
    const u64 line_pages = check_list(line.deadlist(), FrameState::kRetired, &line_nodes);
    DBOS_ASSERT(line_pages == line.retired_pages());
    DBOS_ASSERT(line_nodes == line.retired_nodes());
    // What waits for this line is visible to it, and not to a newer sibling alone.
    u64 count = 0;
    for (FrameNumber at = line.deadlist().head(); count < line.deadlist().size();
         at = frame_info(at).next(), ++count) {
      DBOS_ASSERT(frame_info(at).birth() <= line.departure());
      DBOS_ASSERT(line.parent()->owns(frame_info(at)));
      DBOS_ASSERT(line.tables() == Tables::kShared || frame_info(at).kind() != FrameKind::kNode);
    }
    retired_pages += line_pages;
    retired_nodes += line_nodes;
  });
  const FrameCounts counts = frame_allocator.counts();
  DBOS_ASSERT(counts.pages == pages + retired_pages);
  DBOS_ASSERT(counts.nodes == nodes + retired_nodes);
  DBOS_ASSERT(counts.retired_pages == retired_pages);
  DBOS_ASSERT(counts.retired_nodes == retired_nodes);
  DBOS_ASSERT(counts.total == counts.free + counts.pages + counts.nodes + counts.kernel);
}

// ---- The frame allocator ----

void FrameAllocator::check_invariants() {
  u64 free = 0;
  u64 cached = 0;
  u64 by_state[8] = {};
  u64 partial_blocks = 0;
  u64 free_zero_blocks = 0;
  u64 free_dirty_blocks = 0;
  const u64 chunks = chunk_count_.load(std::memory_order_relaxed);
  for (Cache& each : caches_) {
    for (const Pool& pool : each.pools) {
      for (u32 i = 0; i < pool.dirty_count; ++i) {
        DBOS_ASSERT(frame_info(pool.dirty[i]).state() == FrameState::kCached);
      }
      for (u32 i = 0; i < pool.zero_count; ++i) {
        DBOS_ASSERT(frame_info(pool.zero[i]).state() == FrameState::kCached);
      }
      cached += pool.dirty_count + pool.zero_count;
    }
  }
  for (u64 chunk = 0; chunk < chunks; ++chunk) {
    for (u64 i = kFrameTableSize / kLargePageSize; i < kBlocksPerChunk; ++i) {
      const u32 block = static_cast<u32>(chunk * kBlocksPerChunk + i);
      const BlockInfo& info = block_info(block);
      if (info.state == BlockState::kVirgin) continue;
      if (info.state == BlockState::kFreeZero || info.state == BlockState::kFreeDirty) {
        ++(info.state == BlockState::kFreeZero ? free_zero_blocks : free_dirty_blocks);
        free += kFramesPerBlock;
        continue;
      }
      if (info.state == BlockState::kPartial) ++partial_blocks;
      u64 free_here = 0;
      for (u64 frame = 0; frame < kFramesPerBlock; ++frame) {
        const FrameState state =
            frame_info(FrameNumber(first_frame(block).value() + static_cast<u32>(frame))).state();
        ++by_state[static_cast<u8>(state)];
        if (state == FrameState::kFree) ++free_here;
      }
      if (info.state == BlockState::kLarge) {
        DBOS_ASSERT(free_here == 0);
        continue;
      }
      DBOS_ASSERT(free_here == info.free_count);
      DBOS_ASSERT((info.state == BlockState::kFull) == (info.free_count == 0));
      u64 listed = kFramesPerBlock - info.cursor;
      for (FrameNumber at = info.free_head; !at.is_none(); at = frame_info(at).next()) {
        DBOS_ASSERT(block_of(at) == block);
        DBOS_ASSERT(++listed <= info.free_count);
      }
      DBOS_ASSERT(listed == info.free_count);
      free += free_here;
    }
  }
  free += (virgin_end_ - virgin_next_) * kFramesPerBlock;
  DBOS_ASSERT(free == free_frames_);
  DBOS_ASSERT(cached == by_state[static_cast<u8>(FrameState::kCached)]);
  DBOS_ASSERT(partial_blocks == partial_[0].count + partial_[1].count);
  DBOS_ASSERT(free_zero_blocks == free_zero_.count);
  DBOS_ASSERT(free_dirty_blocks == free_dirty_.count);
}

}  // namespace dbos
