// The frame table: 16 bytes about every 4 KiB frame of the arena.
//
// The table of a chunk lies at the chunk's own start, so an entry is found by arithmetic and the
// table grows with the arena. A chunk that is new reads as zero, and zero means: free. The entries
// of the table's own frames would go unused; in their place lie the chunk's BlockInfos
// (frame_allocator.h).
//
// Who may change an entry: a free or cached frame's belongs to the allocator, every other one's to
// the frame's owner. Readers without a lock (an address space looks at what it inherited) only ask
// for owner, birth, kind and state, each of which is one atomic load.
#pragma once

#include <atomic>

#include "guest/lib/assert.h"
#include "guest/lib/types.h"
#include "guest/memory/direct_map.h"

namespace dbos {

// The time of snapshots: counts them, for the whole machine.
using Epoch = u64;
inline constexpr u32 kEpochBits = 48;

// Names a line (guest/snapshot/line.h); 0: nobody.
enum class LineId : u32 { kNone = 0 };

// The index of a frame in the arena; 0 (a frame of the first table) stands for "none".
class FrameNumber {
 public:
  constexpr FrameNumber() = default;
  constexpr explicit FrameNumber(u32 value) : value_(value) {}
  static constexpr FrameNumber of(PhysicalAddress address) {
    return FrameNumber(static_cast<u32>((address.value() - kArenaBase) / kPageSize));
  }
  constexpr PhysicalAddress address() const {
    return PhysicalAddress(kArenaBase + u64{value_} * kPageSize);
  }
  constexpr u32 value() const { return value_; }
  constexpr bool is_none() const { return value_ == 0; }
  constexpr bool operator==(const FrameNumber&) const = default;

 private:
  u32 value_ = 0;
};

enum class FrameState : u8 {
  kFree = 0,  // in its block, see frame_allocator.h
  kCached,    // free, in a vCPU's cache
  kLinked,    // in an address space's tables, or about to be
  kUnlinked,  // taken out of them; a translation or a host call may still use it
  kRetired,   // on a line's deadlist: only snapshots refer to it
  kKernel,    // the kernel heap's, or a buffer
  kZero,      // a shared page of zeroes: mapped by everybody, owned by nobody
};

enum class FrameKind : u8 {
  kPage = 0,   // 4 KiB of a program's memory
  kNode,       // a page table
  kLarge,      // the first of the 512 frames of a 2 MiB page
  kLargeTail,  // one of the others; its state follows the first one's
};

class FrameInfo {
 public:
  Epoch birth() const { return word_.load(std::memory_order_relaxed) >> 16; }
  FrameState state() const {
    return static_cast<FrameState>(word_.load(std::memory_order_relaxed) & 0xff);
  }
  FrameKind kind() const {
    return static_cast<FrameKind>((word_.load(std::memory_order_relaxed) >> 8) & 0xff);
  }
  LineId owner() const { return static_cast<LineId>(owner_.load(std::memory_order_relaxed)); }
  // The list that this frame is on, whichever its state says.
  FrameNumber next() const { return FrameNumber(next_.load(std::memory_order_relaxed)); }
  void set_next(FrameNumber next) { next_.store(next.value(), std::memory_order_relaxed); }

  void set(FrameState state, FrameKind kind, Epoch birth = 0) {
    DBOS_ASSERT(birth >> kEpochBits == 0);
    word_.store(birth << 16 | static_cast<u64>(kind) << 8 | static_cast<u64>(state),
                std::memory_order_relaxed);
  }
  void set_owner(LineId owner) { owner_.store(static_cast<u32>(owner), std::memory_order_relaxed); }
  void set_birth(Epoch birth) { set(state(), kind(), birth); }
  // From a state that the caller knows, to another.
  void change(FrameState from, FrameState to) {
    DBOS_ASSERT(state() == from);
    set(to, kind(), birth());
  }

 private:
  std::atomic<u64> word_;  // birth epoch 48, kind 8, state 8
  std::atomic<u32> owner_;
  std::atomic<u32> next_;
};
static_assert(sizeof(FrameInfo) == 16);

inline constexpr u64 kFramesPerBlock = kLargePageSize / kPageSize;
constexpr u64 frames_of(FrameKind kind) {
  return kind == FrameKind::kLarge ? kFramesPerBlock : 1;
}
inline constexpr u64 kFramesPerChunk = kArenaChunkSize / kPageSize;
inline constexpr u64 kBlocksPerChunk = kArenaChunkSize / kLargePageSize;
inline constexpr u64 kFrameTableSize = kFramesPerChunk * sizeof(FrameInfo);
static_assert(is_aligned(kFrameTableSize, kLargePageSize), "the table takes whole blocks");
static_assert(is_aligned(kArenaBase, kArenaChunkSize));

// Whether an address is the arena's; the others that page tables hold are the window's.
constexpr bool is_arena(PhysicalAddress address) {
  return address.value() >= kArenaBase && address.value() < kArenaBase + kArenaSizeMax;
}

inline FrameInfo& frame_info(PhysicalAddress address) {
  const u64 chunk = align_down(address.value(), kArenaChunkSize);
  const u64 index = (address.value() - chunk) / kPageSize;
  return pointer_to<FrameInfo>(PhysicalAddress(chunk))[index];
}
inline FrameInfo& frame_info(FrameNumber frame) {
  return frame_info(frame.address());
}

// A stack of frames, linked through their FrameInfos.
class FrameList {
 public:
  constexpr FrameList() = default;
  bool is_empty() const { return head_.is_none(); }
  u64 size() const { return size_; }
  FrameNumber head() const { return head_; }
  void push(FrameNumber frame) {
    frame_info(frame).set_next(head_);
    head_ = frame;
    ++size_;
  }
  FrameNumber pop() {
    DBOS_ASSERT(!is_empty());
    const FrameNumber frame = head_;
    head_ = frame_info(frame).next();
    --size_;
    return frame;
  }

 private:
  FrameNumber head_;
  u64 size_ = 0;
};

}  // namespace dbos
