// What an operation took out of the page tables: gather, then shoot down, then free.
//
// No frame or node is freed, and the address space's lock is not released, before every vCPU has
// forgotten the translations that led to it. Rights that were only added need no batch: the others
// take a fault that finds nothing to do.
#pragma once

#include "guest/memory/frame_table.h"
#include "guest/memory/pins.h"
#include "guest/snapshot/line.h"

namespace dbos {

class AddressSpace;

class TlbBatch {
 public:
  // With the lock of `space`, until it is destroyed or flushed.
  TlbBatch(AddressSpace& space, Line& line, PinSet& pins)
      : space_(space), line_(line), pins_(pins) {}
  ~TlbBatch() { flush(); }
  TlbBatch(const TlbBatch&) = delete;
  TlbBatch& operator=(const TlbBatch&) = delete;

  // A translation in the range was taken away, or leads somewhere else now, or allows less.
  void invalidate(VirtualRange range) {
    if (range_.size() == 0) {
      range_ = range;
      return;
    }
    if (range.begin < range_.begin) range_.begin = range.begin;
    if (range_.end < range.end) range_.end = range.end;
  }
  // A page or 2 MiB page that the line owns was taken out of the tables at `range`.
  void unlink(VirtualRange range, PhysicalAddress item) {
    frame_info(item).change(FrameState::kLinked, FrameState::kUnlinked);
    if (!pins_.is_empty() && pins_.defer(range, item)) return;
    unlinked_.push(FrameNumber::of(item));
  }
  // The same for a node.
  void unlink_node(PhysicalAddress node) {
    frame_info(node).change(FrameState::kLinked, FrameState::kUnlinked);
    unlinked_.push(FrameNumber::of(node));
  }

  void flush() {
    if (range_.size() != 0) {
      platform::shootdown(space_, range_);
      range_ = VirtualRange{};
    }
    while (!unlinked_.is_empty()) line_.dispose(unlinked_.pop().address());
  }

 private:
  AddressSpace& space_;
  Line& line_;
  PinSet& pins_;
  VirtualRange range_;
  FrameList unlinked_;
};

}  // namespace dbos
