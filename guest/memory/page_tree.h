// The page tables of one address space: a persistent tree, parts of which other address spaces see.
//
// A node that the line does not own exclusively (guest/snapshot/line.h) is never changed; open()
// clones it first. Every method needs the address space's lock. Between lines no lock is needed:
// what is shared does not change, but for accessed bits that the processor sets.
//
// Invariants:
//   - An entry of the root, or of a node reached through writable entries only, that is writable
//     refers to something exclusive. So a walk through writable entries needs no look at the frame
//     table, and a leaf that the processor can write through is reachable from one root only.
//   - Taking a snapshot clears the root's write bits and nothing else: x86 combines the rights of
//     all levels, so everything below is read-only. A node that becomes exclusive again when the
//     snapshot ends gets its write bit back, and with it everything below that is still writable.
#pragma once

#include "guest/memory/pte.h"
#include "guest/memory/tlb_batch.h"
#include "guest/memory/vma.h"
#include "guest/snapshot/ready.h"
#include "hypercall/observe.h"

namespace dbos {

// Where a walk ended: at a leaf or at an empty entry.
struct Walk {
  PteSlot* slot;
  Pte entry;
  Level level;
  bool is_path_writable;  // the entries above

  bool is_writable() const { return entry.is_present() && entry.is_writable() && is_path_writable; }
  bool permits(Access access) const {
    switch (access) {
      case Access::kRead:
        return entry.is_present();
      case Access::kWrite:
        return is_writable();
      case Access::kExecute:
        return entry.is_present() && entry.is_executable();
    }
    return false;
  }
  // Of the byte at `address`, which the walk was for.
  PhysicalAddress physical(VirtualAddress address) const {
    return entry.address() + (address.value() & (span(level) - 1));
  }
};

struct PageCounts {
  u64 anonymous = 0;  // 4 KiB units, without zero pages
  u64 window = 0;
  u64 nodes = 0;  // that this tree allocated
};

// What /proc/self/smaps wants to know about a range, in 4 KiB units.
struct PageUsage {
  u64 present = 0;  // without zero pages
  u64 writable = 0;
  u64 dirty = 0;
  u64 accessed = 0;
  u64 private_clean = 0;
  u64 private_dirty = 0;
  u64 shared_clean = 0;
  u64 shared_dirty = 0;
  u64 large = 0;  // in 2 MiB pages
  u64 anonymous = 0;
};

class PageTree {
 public:
  PageTree() = default;
  PageTree(const PageTree&) = delete;
  PageTree& operator=(const PageTree&) = delete;

  // An empty tree with the kernel's half of the root from `kernel_root`.
  Result<void> initialize(Line& line, PhysicalAddress kernel_root);
  // Unlinks everything. No processor may be using the tree.
  void destroy(TlbBatch& batch);

  // Whoever wants to know which entries changed, other than in their right to write (ready.h).
  void set_follower(ReadyTables* follower) { follower_ = follower; }

  PhysicalAddress root() const { return root_; }
  const PageCounts& counts() const { return counts_; }
  PageCounts& counts() { return counts_; }

  Walk find(VirtualAddress address) const;

  // The entry for `address` at `lowest`, or the large leaf above it, in nodes that may be written:
  // allocates those that are missing, clones those that are shared. ENOMEM.
  Result<Walk> open(VirtualAddress address, Level lowest, TlbBatch& batch);
  // Entries in the range have changed. For 4 KiB pages in the aligned 64 KiB around its address,
  // open() says so.
  void note_change(VirtualRange range) {
    if (follower_ != nullptr) follower_->note(range);
  }
  // Replaces the large leaf that open() found by 512 small ones. ENOMEM.
  Result<void> split(PteSlot& slot);

  // The entry of the table that maps the 2 MiB around an address, where all tables on the way to it
  // are exclusive; nullptr: there is no such table.
  PteSlot* find_table(VirtualAddress address) const;
  // Replaces that table by a large page. What the table maps has been unlinked, or is in that page.
  void merge(VirtualAddress begin, Pte page, TlbBatch& batch);

  // What clear() takes. prepare_clear() alone makes it: clear() relies on what that did.
  class Clearing {
    friend class PageTree;
    Clearing(VirtualRange range, VirtualRange freeable) : range_(range), freeable_(freeable) {}
    VirtualRange range_;
    VirtualRange freeable_;
  };
  // Makes clear() safe: it can't fail, so a call that returns an error has changed nothing.
  // `freeable` contains `range` and has no other vma in it; nodes that lie in it are dropped.
  Result<Clearing> prepare_clear(VirtualRange range, VirtualRange freeable, TlbBatch& batch);
  void clear(const Clearing& prepared, TlbBatch& batch);

  // Takes the pages of windows out of the range, and leaves private copies of such pages. ENOMEM:
  // only some are gone.
  Result<void> clear_windows(VirtualRange range, TlbBatch& batch);

  // Changes the rights of what is there. Rights that are added to shared pages are left to the
  // fault handler. ENOMEM: none has changed.
  Result<void> protect(VirtualRange range, Protection from, Protection to, TlbBatch& batch);

  // Moves the entries of a range to another, empty one. ENOMEM: nothing was moved.
  Result<void> move(VirtualRange from, VirtualAddress to, TlbBatch& batch);

  static void publish(KernelView& view, u32 offset);  // of the tree in the address space

  bool is_exclusive(PhysicalAddress item) const { return line_->is_exclusive(frame_info(item)); }

  // Counts what `range` maps.
  void add_usage(VirtualRange range, PageUsage& usage) const;
  // Calls visit(address, entry, level, is_path_writable) for every leaf in the range.
  template <typename Visit>
  void for_each_leaf(VirtualRange range, Visit visit) const {
    visit_leaves(node_at(root_), Level::kRoot, VirtualAddress(0), range, true, visit);
  }

  // What snapshots need (guest/snapshot/share.cpp, follow.cpp).
  // Takes the right to write away from all that the tree maps: its processors must forget what they
  // know before anything else happens.
  void seal();
  // This tree, which is empty, gets what `parent`, which is sealed, has.
  void share(PageTree& parent);
  // This tree, whose nodes are all its own, maps what `main` maps in the range, read-only. Other
  // tables of `main` than those in the range may be missing here. ENOMEM: some of it is not so.
  Result<void> follow(const PageTree& main, VirtualRange range);
  // Asks for the cache lines that follow() of the 64 KiB at `address` will need.
  void prefetch(VirtualAddress address) const;
  // The beginning of the first 2 MiB from `from` on, or around it, that has anything in it.
  VirtualAddress next_table(VirtualAddress from) const;
  // Gives this tree, which share() made, a copy of its own of a page that a host call writes to,
  // and leaves the frame to `parent`. Does nothing where the page wasn't exclusively the parent's
  // before this snapshot: the host can't be writing to it. Returns where the next page may be for
  // which there is something to do. ENOMEM: destroy this tree.
  Result<VirtualAddress> copy_pinned(PageTree& parent, VirtualAddress page,
                                     Epoch previous_departure, Epoch departure);
  // Makes the retired items of a dead line, which this tree refers to, the tree's own
  // (adoption.cpp).
  void adopt(LineId from);

 private:
  Result<PhysicalAddress> allocate_node(Clear clear);
  // Makes the node below an entry, which is on the way to `address`, one that may be written.
  Result<void> isolate_node(PteSlot& slot, VirtualAddress address, TlbBatch& batch);
  // Makes all entries of a private node read-only, and it exclusive.
  void renew_node(PhysicalAddress node);
  // Replaces the shared node below an entry by a copy.
  Result<void> clone_node(PteSlot& slot, TlbBatch& batch);
  bool owns_page(PhysicalAddress item) const;
  void unlink_entry(Pte entry, Level level, VirtualAddress base, bool is_owned, TlbBatch& batch);
  Result<void> isolate(VirtualAddress boundary, VirtualRange freeable, TlbBatch& batch);
  void clear_below(Node& node, Level level, VirtualAddress base, const Clearing& prepared,
                   TlbBatch& batch);
  Result<void> clear_windows_below(Node& node, Level level, VirtualAddress base, VirtualRange range,
                                   TlbBatch& batch);
  Result<void> prepare_protect(Node& node, Level level, VirtualAddress base, VirtualRange range,
                               bool adds_only, TlbBatch& batch);
  void protect_below(Node& node, Level level, VirtualAddress base, VirtualRange range,
                     Protection to, TlbBatch& batch);
  void protect_leaf(PteSlot& slot, Level level, VirtualAddress base, Protection to,
                    TlbBatch& batch);
  void adopt_below(PhysicalAddress node, Level level, LineId from);
  void adopt_leaf(PhysicalAddress item, Level level, LineId from);
  void move_entries(VirtualRange from, VirtualAddress to, TlbBatch& batch);
  Result<void> follow_below(Node& node, Level level, VirtualAddress base, const Node& main,
                            VirtualRange range);
  Result<void> follow_entry(PteSlot& slot, Level level, VirtualRange covered, Pte theirs,
                            VirtualRange range);
  void drop_below(PhysicalAddress node, Level level);
  static VirtualAddress next_below(const Node& node, Level level, VirtualAddress base,
                                   VirtualAddress from);

  template <typename Visit>
  static void visit_leaves(Node& node, Level level, VirtualAddress base, VirtualRange range,
                           bool is_path_writable, Visit& visit) {
    const VirtualRange part = entries_in(level, base, range);
    for (VirtualAddress at = part.begin; at < part.end; at = at + span(level)) {
      const Pte entry = node.entry(at, level).load();
      if (entry.is_empty()) continue;
      if (entry.is_leaf(level)) {
        visit(at, entry, level, is_path_writable);
      } else {
        visit_leaves(node_at(entry.address()), below(level), at, range,
                     is_path_writable && entry.is_writable(), visit);
      }
    }
  }

  PhysicalAddress root_;
  Line* line_ = nullptr;
  ReadyTables* follower_ = nullptr;
  PageCounts counts_;
  bool is_dying_ = false;  // nobody reads the counts any more
};

}  // namespace dbos
