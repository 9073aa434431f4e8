// The frame allocator's 2 MiB blocks: their states, growing the arena, giving memory back.

#include "guest/memory/frame_allocator.h"

namespace dbos {
namespace {

constexpr u32 kTableBlocks = kFrameTableSize / kLargePageSize;

}  // namespace

// ---- Blocks, with the allocator lock ----

// Skips nothing: a partly used block always has a free frame. Where there is no free block any
// more, a block of the other use serves.
bool FrameAllocator::take_frame(bool prefer_zero, BlockUse use, Taken& taken) {
  u32 block = partial(use).head;
  if (block == 0) {
    block = take_free_block(prefer_zero);
    if (block != 0) open_block(block, use);
  }
  if (block == 0) {
    block = partial(use == BlockUse::kPages ? BlockUse::kTables : BlockUse::kPages).head;
    if (block == 0) return false;
  }
  BlockInfo& info = block_info(block);
  const bool at_cursor = info.cursor < kFramesPerBlock;
  if (at_cursor && (info.free_head.is_none() || (prefer_zero && info.zero_from_cursor))) {
    taken = {FrameNumber(first_frame(block).value() + info.cursor), info.zero_from_cursor};
    ++info.cursor;
  } else {
    taken = {info.free_head, false};
    info.free_head = frame_info(taken.frame).next();
  }
  DBOS_ASSERT(frame_info(taken.frame).state() == FrameState::kFree);
  count_taken(block, 1);
  return true;
}

void FrameAllocator::count_taken(u32 block, u32 count) {
  BlockInfo& info = block_info(block);
  info.free_count = static_cast<u16>(info.free_count - count);
  free_frames_ -= count;
  if (info.free_count != 0) return;
  unlink(partial(info.use), block);
  info.state = BlockState::kFull;
}

void FrameAllocator::give_frame(FrameNumber frame) {
  const u32 block = block_of(frame);
  BlockInfo& info = block_info(block);
  FrameInfo& frame_entry = frame_info(frame);
  DBOS_ASSERT(info.state == BlockState::kFull || info.state == BlockState::kPartial);
  DBOS_ASSERT(frame_entry.state() == FrameState::kCached);
  frame_entry.set(FrameState::kFree, FrameKind::kPage);
  frame_entry.set_next(info.free_head);
  info.free_head = frame;
  ++info.free_count;
  ++free_frames_;
  if (info.state == BlockState::kFull) {
    info.state = BlockState::kPartial;
    link(partial(info.use), block);
  } else if (info.free_count == kFramesPerBlock) {
    unlink(partial(info.use), block);
    info.state = BlockState::kFreeDirty;
    link(free_dirty_, block);
  }
}

// A whole block, off every list, in its old state.
u32 FrameAllocator::take_free_block(bool prefer_zero) {
  u32 block = prefer_zero ? 0 : take_head(free_dirty_);
  if (block == 0) block = take_head(free_zero_);
  if (block == 0 && virgin_next_ != virgin_end_) {
    block = virgin_next_++;
    // Written before it is read: what is read first, Linux shows as its page of zeros, and gives
    // only small pages to when it is written (until 6.13).
    frame_info(first_frame(block)).set(FrameState::kFree, FrameKind::kPage);
  }
  return block != 0 ? block : take_head(free_dirty_);
}

// Makes a block that take_free_block() gave a source of single frames.
void FrameAllocator::open_block(u32 block, BlockUse use) {
  BlockInfo& info = block_info(block);
  info.use = use;
  info.zero_from_cursor = info.state != BlockState::kFreeDirty;
  info.free_head = FrameNumber();
  info.free_count = kFramesPerBlock;
  info.cursor = 0;
  info.state = BlockState::kPartial;
  link(partial(use), block);
}

// 2^order free frames, aligned to their size. What came back is used before a block is opened: all
// of it for single frames, what a short look finds for longer runs.
bool FrameAllocator::take_run(u32 order, FrameNumber& first) {
  if (order == 0) {
    Taken taken;
    if (!take_frame(false, BlockUse::kTables, taken)) return false;
    first = taken.frame;
    return true;
  }
  constexpr u64 kFewLooks = 2;
  if (take_fresh_run(order, first)) return true;
  if (take_returned_run(BlockUse::kTables, order, kFewLooks, first)) return true;
  const u32 block = take_free_block(false);
  if (block == 0) return false;
  open_block(block, BlockUse::kTables);
  return take_fresh_run(order, first);
}

// From where one of the first partly used blocks was not used yet.
bool FrameAllocator::take_fresh_run(u32 order, FrameNumber& first) {
  const u32 count = 1u << order;
  const u32 block = find_run_at_cursor(order);
  if (block == 0) return false;
  BlockInfo& info = block_info(block);
  const u32 begin = static_cast<u32>(align_up(info.cursor, count));
  // What alignment skips goes to the single frames.
  for (u32 i = info.cursor; i < begin; ++i) {
    const FrameNumber skipped(first_frame(block).value() + i);
    frame_info(skipped).set_next(info.free_head);
    info.free_head = skipped;
  }
  info.cursor = static_cast<u16>(begin + count);
  first = FrameNumber(first_frame(block).value() + begin);
  count_taken(block, count);
  return true;
}

u32 FrameAllocator::find_run_at_cursor(u32 order) {
  const u64 count = u64{1} << order;
  u32 block = partial(BlockUse::kTables).head;
  for (u32 tries = 0; block != 0 && tries < 8; ++tries) {
    const BlockInfo& info = block_info(block);
    if (align_up(info.cursor, count) + count <= kFramesPerBlock) return block;
    block = info.next;
  }
  return 0;
}

// From frames that came back, in one of the next `looks` partly used blocks.
bool FrameAllocator::take_returned_run(BlockUse use, u32 order, u64 looks, FrameNumber& first) {
  BlockList& list = partial(use);
  if (list.count < looks) looks = list.count;
  for (; looks != 0 && list.head != 0; --looks) {
    if (list.next_look == 0) list.next_look = list.head;
    if (take_run_of_block(list.next_look, order, first)) return true;
    list.next_look = block_info(list.next_look).next;
  }
  return false;
}

// The index of its first frame; kFramesPerBlock: there is none.
u32 FrameAllocator::find_run_in_block(u32 block, u32 order) {
  const u32 count = 1u << order;
  if (block_info(block).free_count < count) return kFramesPerBlock;
  for (u32 begin = 0; begin < kFramesPerBlock; begin += count) {
    u32 free = 0;
    while (free < count &&
           frame_info(FrameNumber(first_frame(block).value() + begin + free)).state() ==
               FrameState::kFree) {
      ++free;
    }
    if (free == count) return begin;
  }
  return kFramesPerBlock;
}

// Rebuilds the block's list.
bool FrameAllocator::take_run_of_block(u32 block, u32 order, FrameNumber& first) {
  const u32 count = 1u << order;
  BlockInfo& info = block_info(block);
  const u32 begin = find_run_in_block(block, order);
  if (begin == kFramesPerBlock) return false;
  info.free_head = FrameNumber();
  info.cursor = kFramesPerBlock;
  for (u32 i = 0; i < kFramesPerBlock; ++i) {
    const FrameNumber frame(first_frame(block).value() + i);
    if (i - begin < count || frame_info(frame).state() != FrameState::kFree) continue;
    frame_info(frame).set_next(info.free_head);
    info.free_head = frame;
  }
  first = FrameNumber(first_frame(block).value() + begin);
  count_taken(block, count);
  return true;
}

// Before the lock is released: whoever looks for a run next goes by the states.
void FrameAllocator::mark_kernel(FrameNumber first, u32 order) {
  for (u32 i = 0; i < 1u << order; ++i) {
    FrameInfo& info = frame_info(FrameNumber(first.value() + i));
    DBOS_ASSERT(info.state() == FrameState::kFree);
    info.set(FrameState::kKernel, FrameKind::kPage);
  }
}

void FrameAllocator::link(BlockList& list, u32 block) {
  BlockInfo& info = block_info(block);
  info.previous = 0;
  info.next = list.head;
  (list.head != 0 ? block_info(list.head).previous : list.tail) = block;
  list.head = block;
  ++list.count;
}

void FrameAllocator::unlink(BlockList& list, u32 block) {
  BlockInfo& info = block_info(block);
  if (list.next_look == block) list.next_look = info.next;
  if (info.previous != 0) {
    block_info(info.previous).next = info.next;
  } else {
    DBOS_ASSERT(list.head == block);
    list.head = info.next;
  }
  (info.next != 0 ? block_info(info.next).previous : list.tail) = info.previous;
  --list.count;
}

u32 FrameAllocator::take_head(BlockList& list) {
  const u32 block = list.head;
  if (block != 0) unlink(list, block);
  return block;
}

// ---- Runs, without the lock ----

// Where there is no free block any more, memory is scarce: looks everywhere, at a few blocks for
// one taking of the lock, so that nobody waits long for it.
bool FrameAllocator::try_run(u32 order, FrameNumber& first) {
  {
    LockGuard guard(lock_);
    if (take_run(order, first)) {
      mark_kernel(first, order);
      return true;
    }
  }
  constexpr u64 kLooksAtOnce = 64;
  for (const BlockUse use : {BlockUse::kTables, BlockUse::kPages}) {
    u64 looked = 0;
    u64 count = 0;
    do {
      LockGuard guard(lock_);
      if (take_returned_run(use, order, kLooksAtOnce, first)) {
        mark_kernel(first, order);
        return true;
      }
      looked += kLooksAtOnce;
      count = partial(use).count;
    } while (looked < count);
  }
  return false;
}

Result<FrameNumber> FrameAllocator::find_run(u32 order) {
  FrameNumber first;
  Result<void> grown;
  while (grown.is_ok()) {
    const u64 seen_chunks = chunk_count_.load(std::memory_order_relaxed);
    if (try_run(order, first)) return first;
    grown = grow(seen_chunks);
  }
  drain_caches();
  if (try_run(order, first)) return first;
  return refuse(grown.error());
}

// ---- Growing and giving back ----

// Adds a chunk, unless somebody else did since the caller counted them.
Result<void> FrameAllocator::grow(u64 seen_chunks) {
  LockGuard growth_guard(growth_lock_);
  const u64 index = chunk_count_.load(std::memory_order_relaxed);
  if (index != seen_chunks) return {};
  if (index * kArenaChunkSize >= kArenaSizeMax) return Error(ENOMEM);
  const u64 bytes = DBOS_TRY(platform::arena_grow(index));
  const u32 blocks = static_cast<u32>(bytes / kLargePageSize);
  if (blocks <= kTableBlocks) return Error(ENOMEM);
  const u32 first = static_cast<u32>(index * kBlocksPerChunk);
  LockGuard guard(lock_);
  DBOS_ASSERT(virgin_next_ == virgin_end_);  // who found a block free would not grow
  virgin_next_ = first + kTableBlocks;
  virgin_end_ = first + blocks;
  total_frames_ += (blocks - kTableBlocks) * kFramesPerBlock;
  free_frames_ += (blocks - kTableBlocks) * kFramesPerBlock;
  chunk_count_.store(index + 1, std::memory_order_relaxed);
  return {};
}

// Those that have been free longest: the others are the next to be allocated.
u64 FrameAllocator::release_free_blocks(u64 bytes_max) {
  u64 released = 0;
  while (released + kLargePageSize <= bytes_max) {
    u32 block = 0;
    {
      LockGuard guard(lock_);
      block = free_dirty_.tail;
      if (block == 0) break;
      unlink(free_dirty_, block);
      block_info(block).state = BlockState::kFull;  // nobody else's meanwhile
      free_frames_ -= kFramesPerBlock;
    }
    const bool is_zero =
        platform::memory_release(first_frame(block).address(), kLargePageSize).is_ok();
    LockGuard guard(lock_);
    block_info(block).state = is_zero ? BlockState::kFreeZero : BlockState::kFreeDirty;
    link(is_zero ? free_zero_ : free_dirty_, block);
    free_frames_ += kFramesPerBlock;
    if (!is_zero) break;
    released += kLargePageSize;
  }
  return released;
}

// What lies in caches does not count: whoever needed a frame has tried those.
bool FrameAllocator::ensure_frames() {
  constexpr u64 kFewFrames = 64;
  const u64 seen_chunks = chunk_count_.load(std::memory_order_relaxed);
  {
    LockGuard guard(lock_);
    if (free_frames_ >= kFewFrames) return true;
  }
  return grow(seen_chunks).is_ok();
}

u64 FrameAllocator::free_dirty_bytes() {
  LockGuard guard(lock_);
  return free_dirty_.count * kLargePageSize;
}

}  // namespace dbos
