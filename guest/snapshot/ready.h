// The strategy "ready": complete, read-only copies of main's page tables, made ahead. A snapshot is
// handed one of them, with nodes that are all its own (line.h), so neither side ever clones a node
// because of the other, and the snapshot's own writes find their tables at hand.
//
// A copy is an address space without vmas, which no processor enters before it is handed over. It
// is made in slices, from low addresses to high ones, and stays in step with main's tables:
//
//   - What main changes is noted in a small table, by pieces of 64 KiB, with no look at the copies.
//     refill() applies it; when two pieces want the same place in the table, the change does.
//   - A change of more than a few pieces (munmap, mprotect, mremap) is applied to the copies at
//     once: it costs as much as the change itself.
//   - The right to write is never copied, so giving or taking it is not a change. Accessed and
//     dirty bits are those of the time when the piece was copied.
//
// Invariant: what a copy has, up to where it is made, is what main has, but for the pieces that are
// noted. So a hand-over applies at most kPieces pieces to one copy, whatever the size of the heap.
//
// A copy that can't be brought in step, because there is no memory, is broken: it is given up, not
// the change. All functions here need main's lock.
#pragma once

#include "guest/lib/result.h"
#include "guest/lib/types.h"
#include "hypercall/abi.h"

namespace dbos {

class AddressSpace;
class PageTree;

struct ReadyCounts {
  u64 ready;        // complete copies now
  u64 table_bytes;  // of all copies, unfinished ones included
  u64 handed_over;
  u64 missed;  // requests that found none, and were served as "shared" does
  u64 broken;
};

class ReadyTables {
 public:
  static constexpr u32 kPieces = 16;  // 0.6 us each, at worst, for a heap of 128 GiB
  static constexpr u64 kPieceSize = 64 * kKiB;

  ReadyTables(PageTree& main, u32 wanted) : main_(main), wanted_(wanted) {}
  ReadyTables(const ReadyTables&) = delete;
  ReadyTables& operator=(const ReadyTables&) = delete;

  void set_wanted(u32 wanted) { wanted_ = wanted; }
  u32 wanted() const { return wanted_; }

  // An entry of main's in the piece around `address` is going to change, before the lock is
  // released and before anything else is noted.
  void note(VirtualAddress address) {
    if (count_ != 0) note_piece(address.value() / kPieceSize);
  }
  // Entries in the range have changed.
  void note(VirtualRange range);

  // A complete copy, in step, and the caller's; nullptr: there is none.
  AddressSpace* take();

  // ---- In the background ----
  // Whether another copy is to be begun, with add().
  bool wants_another() const {
    return !is_paused_ && count_ < wanted_ && find_unfinished() == count_;
  }
  void add(AddressSpace* empty);
  // A copy that is broken or not wanted any more, for the caller to destroy; nullptr: none.
  AddressSpace* remove_useless();
  // Any copy, the same way.
  AddressSpace* remove_any();
  // Applies what is noted, and copies about `tables_max` tables more.
  void advance(u32 tables_max);
  bool is_done() const {
    return occupied_ == 0 && (is_paused_ || count_ == wanted_) && all_are_complete();
  }
  // After a copy was broken for want of memory, and when main needs what the copies take: none is
  // begun until resume().
  void pause() { is_paused_ = true; }
  void resume() { is_paused_ = false; }
  bool is_paused() const { return is_paused_; }

  ReadyCounts counts() const;
  // For the checker, which needs nothing noted: visit(copy, end of what is made).
  template <typename Visit>
  void for_each_copy(Visit visit) {
    apply_all();
    for (u32 i = 0; i < count_; ++i) {
      if (!copies_[i].is_broken) visit(*copies_[i].space, copies_[i].made_to);
    }
  }

 private:
  struct Copy {
    AddressSpace* space = nullptr;
    VirtualAddress made_to;  // what lies below is there
    bool is_broken = false;
    bool is_complete() const;
  };

  static VirtualRange range_of(u64 piece) {
    return {VirtualAddress(piece * kPieceSize), VirtualAddress((piece + 1) * kPieceSize)};
  }
  template <typename Visit>
  void for_each_noted(Visit visit) const {
    for (u32 left = occupied_; left != 0; left &= left - 1) {
      visit(range_of(pieces_[__builtin_ctz(left)]));
    }
  }
  void note_piece(u64 piece);
  void apply(Copy& copy, VirtualRange range);
  void apply(VirtualRange range);
  void apply_all();
  void make(Copy& copy, u32 tables_max);
  u32 find_unfinished() const;  // count_: there is none
  bool all_are_complete() const;
  AddressSpace* remove(u32 index);

  PageTree& main_;
  u32 wanted_;
  u32 count_ = 0;
  bool is_paused_ = false;
  Copy copies_[kReadyCopiesMax];
  u32 occupied_ = 0;  // bit i: pieces_[i] is noted
  u32 pieces_[kPieces] = {};
  u64 handed_over_ = 0;
  u64 missed_ = 0;
  u64 broken_ = 0;
};
static_assert(ReadyTables::kPieces <= 32, "a bit for each");

}  // namespace dbos
