// Lines: who owns a frame or node, who may still see it, and when it can be freed. No per-frame
// reference counts, no scans.
//
// Time is counted in epochs; taking a snapshot ends one. Every address space is a *line*. A
// snapshot C that was taken of A in epoch f left A at f: f is C's departure. An item (a frame or a
// page-table node) belongs to the line that allocated it and has the epoch of its birth.
//
// The rule: C, and all that descends from C, sees those of A's items that were born in [.., f] and
// that A had not unlinked by then. Hence
//
//   - An item x of A is exclusively A's, and may be written in place, iff no live line that left A
//     has a departure >= birth(x). One comparison with the newest departure decides it.
//   - What a line inherited (owner is somebody else) is never exclusive: it is copied first.
//   - When A unlinks an item of its own (copied it, unmapped it, cloned the node), the item is
//     freed if it was exclusive; else it is retired: put on the deadlist of the newest live line
//     that sees it. When that line dies the item moves on to the next older live one that sees it,
//     or is freed. (ZFS's deadlists: each item is touched once for every death, and nothing is
//     searched.)
//   - Unlinking an inherited item does nothing: its owner disposes of it.
//
// A snapshot that was given page tables of its own (strategy "ready", ready.h) sees the frames as
// any other does, and none of A's nodes. So for nodes only the departures of those count that share
// A's: a node of A that none of them sees is A's own, even if what it refers to is not. Before it
// is written its entries are made read-only, and its birth is moved past the newest departure:
// "born later than" then says of a node, too, that what is writable in it may be written.
//
// A line lives while its address space or a line that left it lives: what it left its owner with is
// what its descendants may still see. A line without an address space that has one child left (a
// parent that ended first) is taken over by that child: the child adopts what its own tables still
// refer to, the rest is disposed of, and the child takes the line's place (adoption.cpp).
//
// Lock order: address space locks -> the lines' lock -> (heap, frame allocator).
#pragma once

#include <atomic>

#include "guest/lib/result.h"
#include "guest/memory/frame_allocator.h"

namespace dbos {

class Line;

// The line of an address space that has left nobody yet. ENOMEM.
Result<Line*> line_create();
// Whether a snapshot sees the page tables of what it was taken of, or has its own. A line that
// takes its parent's place (adoption.cpp) says what the parent said, which may have seen more.
enum class Tables : bool { kOwn, kShared };
// Makes it the line of a snapshot of `parent`, which departs in the current epoch; that epoch ends.
// With the lock of parent's address space.
// `parent_copied_pages`: by the parent, until then.
void line_depart(Line& line, Line& parent, Tables tables, u64 parent_copied_pages);
// The line's address space is gone and has unlinked everything; `line` is not to be used any more.
void line_end(Line* line);

Epoch current_epoch();

void publish_lines(KernelView& view);

// For the checker, with nothing else running: every line that exists.
Line* first_line();
template <typename Visit>
void for_each_line(Visit visit);

class alignas(256) Line {
 public:
  // The line's address in the arena in units of its alignment: unique among those that exist.
  LineId id() const { return id_; }
  Epoch departure() const { return departure_.load(std::memory_order_relaxed); }
  Epoch newest_departure() const { return newest_departure_.load(std::memory_order_acquire); }

  // What an item that is allocated now belongs to.
  Ownership ownership() const { return {id_, current_epoch()}; }

  bool owns(const FrameInfo& info) const { return info.owner() == id_; }
  // Nobody else sees the item: it may be written in place, or freed at once.
  bool is_exclusive(const FrameInfo& info) const {
    return owns(info) && info.birth() > newest_departure();
  }
  // Nobody else sees the node, but what it refers to may be shared.
  bool is_private_node(const FrameInfo& info) const {
    return owns(info) && info.birth() > newest_sharer_.load(std::memory_order_acquire);
  }

  // Frees or retires an item that this line owns and has unlinked (kUnlinked). With the lock of the
  // line's address space; no processor may have a translation through the item any more.
  void dispose(PhysicalAddress item);

  // Memory of the parent's that only this line's address space, or snapshots of it, keep alive.
  u64 retired_pages() const { return retired_pages_.load(std::memory_order_relaxed); }
  u64 retired_nodes() const { return retired_nodes_.load(std::memory_order_relaxed); }

  // In frames: what of this line's own is on the deadlists of its snapshots.
  u64 left_frames() const { return left_frames_.load(std::memory_order_relaxed); }

  // In frames: what is retired for this line, and what the line's ancestors keep that have ended
  // and that live on for it; only what was `owner`'s, if that is not null. Takes the lines' lock.
  u64 kept_frames(const Line* owner) const;

  // Whether the parent has ended and left everything to this line. With the lock of the line's
  // address space, which then adopts and calls take_parents_place().
  bool may_adopt() const { return may_adopt_.load(std::memory_order_acquire); }
  // A retired 2 MiB page of which only some pages are to be adopted becomes 512 of them.
  void split_retired(PhysicalAddress large);
  // Ends the parent, and returns what was not adopted: it is kUnlinked and this line's, and the
  // caller's to dispose of.
  FrameList take_parents_place();

  // For the checker, with nothing else running:
  Line* parent() const { return parent_; }
  static void publish(KernelView& view);
  const FrameList& deadlist() const { return deadlist_; }
  Tables tables() const { return tables_; }
  Line* next() const { return next_; }

 private:
  friend Result<Line*> line_create();
  friend void line_depart(Line& line, Line& parent, Tables tables, u64 parent_copied_pages);
  friend void line_end(Line* line);

  void retire(FrameNumber item);
  void drain();
  Line* newest_child_before(Epoch before, bool sees_nodes) const;
  void leave_parent();
  void note_newest_child();
  void tell_sole_heir();
  void delist();

  LineId id_ = LineId::kNone;
  Line* parent_ = nullptr;
  std::atomic<Epoch> departure_{0};
  u64 taken_ticks_ = 0;          // when this snapshot was taken, by the TSC
  u64 parent_copied_pages_ = 0;  // until the departure, by whom it left
  // Of the live lines that left this one; 0: there is none. Grows only with the lock of this line's
  // address space; a reader that holds it and sees too new a value merely copies once too often.
  std::atomic<Epoch> newest_departure_{0};
  std::atomic<Epoch> newest_sharer_{0};  // the same of those that share page tables

  // The rest: with the lines' lock.
  bool has_space_ = true;
  Tables tables_ = Tables::kShared;
  u32 children_ = 0;              // that exist; the line itself stays as long as there are any
  Line* newest_child_ = nullptr;  // live ones, by descending departure
  Line* older_ = nullptr;
  Line* newer_ = nullptr;
  Line* previous_ = nullptr;  // of all lines
  Line* next_ = nullptr;
  FrameList deadlist_;  // the parent's items that no newer sibling sees
  std::atomic<u64> retired_pages_{0};
  std::atomic<u64> retired_nodes_{0};
  std::atomic<u64> left_frames_{0};
  std::atomic<bool> may_adopt_{false};
};

template <typename Visit>
void for_each_line(Visit visit) {
  for (Line* line = first_line(); line != nullptr; line = line->next()) visit(*line);
}

}  // namespace dbos
