// Pins: the program's memory that a host call in flight is using. The host reads and writes it
// through its own mapping, past the guest's page tables. So, while a range is pinned,
//
//   - a snapshot copies its written pages at once, for itself, and leaves the frames to their
//     owner;
//   - a frame or window that is unmapped from it is not freed before the call is over.
//
// Each vCPU makes one host call (or batch) at a time and has one PinSlot. The address space's lock
// protects the slots that are in its PinSet.
#pragma once

#include "guest/memory/frame_table.h"
#include "guest/memory/vma.h"
#include "guest/snapshot/line.h"

namespace dbos {

inline constexpr u32 kPinnedRangesInline = 16;
inline constexpr u32 kMorePages = 6;
inline constexpr u32 kPinnedWindowsMax = 16;

struct PinnedRange {
  VirtualRange range;
  Access access;
};

inline constexpr u32 kRangesPerPage = kPageSize / sizeof(PinnedRange);
inline constexpr u32 kPinnedRangesMax = kPinnedRangesInline + kMorePages * kRangesPerPage;
static_assert(kPinnedRangesMax > 1024, "Linux's IOV_MAX");

struct PinSlot {
  PinnedRange ranges[kPinnedRangesInline] = {};
  // Pages with kRangesPerPage more of them, as long as they are needed. Single pages: they can be
  // had when memory is in pieces.
  PinnedRange* more_ranges[kMorePages] = {};
  u32 range_count = 0;
  // Mappings that the call uses; each holds a reference.
  WindowObject* windows[kPinnedWindowsMax] = {};
  u32 window_count = 0;
  // Frames that were unlinked meanwhile and that no other slot covered ...
  FrameList deferred;
  // ... and those that others covered too; they move to one of these slots when this one ends.
  FrameList deferred_shared;
  u64 pinned_at = 0;         // the PinSet's time
  u64 last_deferred_at = 0;  // of deferred_shared
  PinSlot* previous = nullptr;
  PinSlot* next = nullptr;
  bool is_active = false;

  const PinnedRange& range(u32 i) const {
    if (i < kPinnedRangesInline) return ranges[i];
    const u32 more = i - kPinnedRangesInline;
    return more_ranges[more / kRangesPerPage][more % kRangesPerPage];
  }
  bool covers(VirtualRange wanted, Access access) const {
    for (u32 i = 0; i < range_count; ++i) {
      const bool suffices = access != Access::kWrite || range(i).access == Access::kWrite;
      if (suffices && range(i).range.contains(wanted)) return true;
    }
    return false;
  }
  bool overlaps(VirtualRange wanted) const {
    for (u32 i = 0; i < range_count; ++i) {
      if (range(i).range.overlaps(wanted)) return true;
    }
    return false;
  }
};

PinSlot& pin_slot(u32 vcpu);

class PinSet {
 public:
  constexpr PinSet() = default;
  bool is_empty() const { return first_ == nullptr; }

  void add(u32 vcpu, VirtualRange range, Access access);
  // Keeps a window alive until the call is over. False: the slot has no room for another one.
  bool add_window(u32 vcpu, WindowObject* window);
  // The vCPU's call is over: disposes of what was deferred for it.
  void remove(u32 vcpu, Line& line, DroppedWindows& dropped);

  bool overlaps(VirtualRange range) const;
  // Takes charge of an item that was unlinked from `range`, if that is pinned; returns whether.
  bool defer(VirtualRange range, PhysicalAddress item);
  // Takes charge of an item that any call in flight may be using; false: there is none.
  bool defer_for_all(PhysicalAddress item);
  // Memory moved (mremap): what was pinned in `from` is pinned at its new place too.
  void follow(VirtualRange from, VirtualAddress to);

  // Calls visit(VirtualRange) for each range that the host may be writing to.
  template <typename Visit>
  void for_each_written(Visit visit) const {
    for (const PinSlot* slot = first_; slot != nullptr; slot = slot->next) {
      for (u32 i = 0; i < slot->range_count; ++i) {
        if (slot->range(i).access == Access::kWrite) visit(slot->range(i).range);
      }
    }
  }
  const PinSlot* first() const { return first_; }

 private:
  void activate(PinSlot& slot);

  PinSlot* first_ = nullptr;
  u64 time_ = 0;
};

}  // namespace dbos
