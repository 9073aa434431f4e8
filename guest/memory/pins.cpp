#include "guest/memory/pins.h"

namespace dbos {
namespace {

constinit PinSlot slots[kVcpuCountMax];

}  // namespace

PinSlot& pin_slot(u32 vcpu) {
  DBOS_ASSERT(vcpu < kVcpuCountMax);
  return slots[vcpu];
}

void PinSet::activate(PinSlot& slot) {
  if (slot.is_active) return;
  slot.is_active = true;
  slot.range_count = 0;
  slot.window_count = 0;
  slot.pinned_at = ++time_;
  slot.last_deferred_at = 0;  // of another set's time
  slot.previous = nullptr;
  slot.next = first_;
  if (first_ != nullptr) first_->previous = &slot;
  first_ = &slot;
}

namespace {

// Null: there is no room.
PinnedRange* next_range(PinSlot& slot) {
  if (slot.range_count < kPinnedRangesInline) return &slot.ranges[slot.range_count];
  if (slot.range_count == kPinnedRangesMax) return nullptr;
  const u32 more = slot.range_count - kPinnedRangesInline;
  PinnedRange*& page = slot.more_ranges[more / kRangesPerPage];
  if (page == nullptr) {
    const Result<PhysicalAddress> memory = frame_allocator.allocate_kernel(0);
    if (memory.is_error()) return nullptr;
    page = pointer_to<PinnedRange>(memory.value());
  }
  return &page[more % kRangesPerPage];
}

}  // namespace

void PinSet::add(u32 vcpu, VirtualRange range, Access access) {
  PinSlot& slot = pin_slot(vcpu);
  activate(slot);
  if (PinnedRange* const place = next_range(slot); place != nullptr) {
    *place = {range, access};
    ++slot.range_count;
    return;
  }
  // No memory for more: what lies between is pinned, too.
  PinnedRange& last = slot.ranges[kPinnedRangesInline - 1];
  if (range.begin < last.range.begin) last.range.begin = range.begin;
  if (last.range.end < range.end) last.range.end = range.end;
  if (access == Access::kWrite) last.access = access;
}

bool PinSet::add_window(u32 vcpu, WindowObject* window) {
  PinSlot& slot = pin_slot(vcpu);
  activate(slot);
  for (u32 i = 0; i < slot.window_count; ++i) {
    if (slot.windows[i] == window) return true;
  }
  if (slot.window_count == kPinnedWindowsMax) return false;
  window->add_reference();
  slot.windows[slot.window_count++] = window;
  return true;
}

void PinSet::remove(u32 vcpu, Line& line, DroppedWindows& dropped) {
  PinSlot& slot = pin_slot(vcpu);
  if (!slot.is_active) return;
  (slot.previous == nullptr ? first_ : slot.previous->next) = slot.next;
  if (slot.next != nullptr) slot.next->previous = slot.previous;
  slot.is_active = false;
  for (PinnedRange*& page : slot.more_ranges) {
    if (page != nullptr) frame_allocator.free_kernel(platform::physical_of(page), 0);
    page = nullptr;
  }

  while (!slot.deferred.is_empty()) line.dispose(slot.deferred.pop().address());
  if (!slot.deferred_shared.is_empty()) {
    // Only a call that was in flight when the items were unlinked can be using them, so each move
    // leaves fewer slots to move to.
    PinSlot* heir = first_;
    while (heir != nullptr && heir->pinned_at > slot.last_deferred_at) heir = heir->next;
    while (!slot.deferred_shared.is_empty()) {
      const FrameNumber item = slot.deferred_shared.pop();
      if (heir == nullptr) {
        line.dispose(item.address());
      } else {
        heir->deferred_shared.push(item);
      }
    }
    if (heir != nullptr && heir->last_deferred_at < slot.last_deferred_at) {
      heir->last_deferred_at = slot.last_deferred_at;
    }
  }
  for (u32 i = 0; i < slot.window_count; ++i) dropped.drop_reference(slot.windows[i]);
}

bool PinSet::overlaps(VirtualRange range) const {
  for (const PinSlot* slot = first_; slot != nullptr; slot = slot->next) {
    if (slot->overlaps(range)) return true;
  }
  return false;
}

bool PinSet::defer(VirtualRange range, PhysicalAddress item) {
  PinSlot* found = nullptr;
  bool is_shared = false;
  for (PinSlot* slot = first_; slot != nullptr; slot = slot->next) {
    if (!slot->overlaps(range)) continue;
    is_shared = found != nullptr;
    if (is_shared) break;
    found = slot;
  }
  if (found == nullptr) return false;
  if (is_shared) {
    found->deferred_shared.push(FrameNumber::of(item));
    found->last_deferred_at = ++time_;
  } else {
    found->deferred.push(FrameNumber::of(item));
  }
  return true;
}

bool PinSet::defer_for_all(PhysicalAddress item) {
  if (first_ == nullptr) return false;
  first_->deferred_shared.push(FrameNumber::of(item));
  first_->last_deferred_at = ++time_;
  return true;
}

void PinSet::follow(VirtualRange from, VirtualAddress to) {
  for (PinSlot* slot = first_; slot != nullptr; slot = slot->next) {
    const u32 count = slot->range_count;
    for (u32 i = 0; i < count; ++i) {
      const PinnedRange pinned = slot->range(i);
      if (!pinned.range.overlaps(from)) continue;
      const VirtualRange piece = pinned.range.intersect(from);
      const VirtualRange moved = {to + (piece.begin - from.begin), to + (piece.end - from.begin)};
      // It may have been there before, and the old place stays pinned.
      if (slot->covers(moved, pinned.access)) continue;
      add(static_cast<u32>(slot - slots), moved, pinned.access);
    }
  }
}

}  // namespace dbos
