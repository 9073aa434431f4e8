#include "guest/memory/frame_allocator.h"

namespace dbos {

constinit FrameAllocator frame_allocator;

namespace {
constexpr u32 kTableBlocks = kFrameTableSize / kLargePageSize;

constexpr u64 frames_of(FrameKind kind) {
  return kind == FrameKind::kLarge ? kFramesPerBlock : 1;
}
}  // namespace

// ---- Single frames: the vCPU's cache, then the blocks ----

Result<PhysicalAddress> FrameAllocator::allocate_page(Clear clear, Ownership ownership) {
  return allocate_single(clear, FrameKind::kPage, ownership);
}

Result<PhysicalAddress> FrameAllocator::allocate_node(Clear clear, Ownership ownership) {
  return allocate_single(clear, FrameKind::kNode, ownership);
}

Result<PhysicalAddress> FrameAllocator::allocate_single(Clear clear, FrameKind kind,
                                                        Ownership ownership) {
  const bool prefer_zero = clear == Clear::kYes;
  Result<Taken> taken = take_from_cache(cache(), prefer_zero, kind);
  if (taken.is_error()) {
    drain_caches();
    taken = take_from_cache(cache(), prefer_zero, kind);
    if (taken.is_error()) return taken.error();
  }
  const PhysicalAddress address = taken.value().frame.address();
  FrameInfo& info = frame_info(address);
  DBOS_ASSERT(info.state() == FrameState::kCached);
  info.set_owner(ownership.owner);
  info.set(FrameState::kLinked, kind, ownership.birth);
  if (prefer_zero && !taken.value().zero) clear_memory(address, kPageSize);
  return address;
}

Result<FrameAllocator::Taken> FrameAllocator::take_from_cache(Cache& cache, bool prefer_zero,
                                                              FrameKind kind) {
  LockGuard guard(cache.lock);
  if (cache.zero_count + cache.dirty_count == 0) DBOS_CHECK_OK(refill(cache, prefer_zero));
  const bool zero = cache.dirty_count == 0 || (prefer_zero && cache.zero_count != 0);
  const FrameNumber frame =
      zero ? cache.zero[--cache.zero_count] : cache.dirty[--cache.dirty_count];
  ++(kind == FrameKind::kNode ? cache.nodes : cache.pages);
  return Taken{frame, zero};
}

// The cache is empty; its lock is held.
Result<void> FrameAllocator::refill(Cache& cache, bool prefer_zero) {
  while (true) {
    const u64 seen_chunks = chunk_count_.load(std::memory_order_relaxed);
    {
      LockGuard guard(lock_);
      Taken taken[kCacheBatch];
      u32 count = 0;
      while (count < kCacheBatch && take_frame(prefer_zero, taken[count])) ++count;
      // In reverse, so that they are handed out in ascending order: a buffer that is touched from
      // front to back gets contiguous frames, and becomes one segment of a host call.
      for (u32 i = count; i-- > 0;) {
        frame_info(taken[i].frame).set(FrameState::kCached, FrameKind::kPage);
        if (taken[i].zero) {
          cache.zero[cache.zero_count++] = taken[i].frame;
        } else {
          cache.dirty[cache.dirty_count++] = taken[i].frame;
        }
      }
      if (count != 0) return {};
    }
    DBOS_CHECK_OK(grow(seen_chunks));
  }
}

void FrameAllocator::give_to_cache(PhysicalAddress frame, FrameKind kind) {
  Cache& mine = cache();
  LockGuard guard(mine.lock);
  --(kind == FrameKind::kNode ? mine.nodes : mine.pages);
  if (mine.dirty_count == kCacheSize) {
    LockGuard global_guard(lock_);
    for (u32 i = 0; i < kCacheBatch; ++i) give_frame(mine.dirty[--mine.dirty_count]);
  }
  mine.dirty[mine.dirty_count++] = FrameNumber::of(frame);
}

void FrameAllocator::drain_caches() {
  for (Cache& other : caches_) {
    LockGuard guard(other.lock);
    if (other.dirty_count + other.zero_count == 0) continue;
    LockGuard global_guard(lock_);
    while (other.dirty_count != 0) give_frame(other.dirty[--other.dirty_count]);
    while (other.zero_count != 0) give_frame(other.zero[--other.zero_count]);
  }
}

// ---- Freeing, 2 MiB pages, kernel runs ----

void FrameAllocator::free(PhysicalAddress frame) {
  FrameInfo& info = frame_info(frame);
  const FrameState state = info.state();
  const FrameKind kind = info.kind();
  DBOS_ASSERT(state == FrameState::kLinked || state == FrameState::kUnlinked);
  DBOS_ASSERT(kind != FrameKind::kLargeTail);
  info.set_owner(LineId::kNone);
  if (kind != FrameKind::kLarge) {
    info.set(FrameState::kCached, FrameKind::kPage);
    give_to_cache(frame, kind);
    return;
  }
  DBOS_ASSERT(is_aligned(frame.value(), kLargePageSize));
  for (u64 i = 0; i < kFramesPerBlock; ++i) {
    FrameInfo& part = frame_info(frame + i * kPageSize);
    DBOS_ASSERT(i == 0 || part.kind() == FrameKind::kLargeTail);
    part.set_owner(LineId::kNone);
    part.set(FrameState::kFree, FrameKind::kPage);
  }
  {
    Cache& mine = cache();
    LockGuard guard(mine.lock);
    mine.pages -= static_cast<i64>(kFramesPerBlock);
  }
  LockGuard guard(lock_);
  const u32 block = block_of(FrameNumber::of(frame));
  BlockInfo& info_of_block = block_info(block);
  DBOS_ASSERT(info_of_block.state == BlockState::kLarge);
  info_of_block.state = BlockState::kFreeDirty;
  link(free_dirty_, block);
  free_frames_ += kFramesPerBlock;
}

Result<PhysicalAddress> FrameAllocator::allocate_large(Clear clear, Ownership ownership) {
  u32 block = 0;
  bool zero = false;
  while (true) {
    const u64 seen_chunks = chunk_count_.load(std::memory_order_relaxed);
    {
      LockGuard guard(lock_);
      block = take_free_block(clear == Clear::kYes);
      if (block != 0) {
        BlockInfo& info = block_info(block);
        zero = info.state != BlockState::kFreeDirty;
        info.state = BlockState::kLarge;
        free_frames_ -= kFramesPerBlock;
        break;
      }
    }
    DBOS_CHECK_OK(grow(seen_chunks));
  }
  {
    Cache& mine = cache();
    LockGuard guard(mine.lock);
    mine.pages += static_cast<i64>(kFramesPerBlock);
  }
  const PhysicalAddress address = first_frame(block).address();
  for (u64 i = 0; i < kFramesPerBlock; ++i) {
    FrameInfo& part = frame_info(address + i * kPageSize);
    DBOS_ASSERT(part.state() == FrameState::kFree);
    part.set_owner(ownership.owner);
    part.set(FrameState::kLinked, i == 0 ? FrameKind::kLarge : FrameKind::kLargeTail,
             ownership.birth);
  }
  if (clear == Clear::kYes && !zero) clear_memory(address, kLargePageSize);
  return address;
}

void FrameAllocator::set_birth_of_large(PhysicalAddress large, Epoch birth) {
  if (frame_info(large).birth() == birth) return;
  for (u64 i = 0; i < kFramesPerBlock; ++i) frame_info(large + i * kPageSize).set_birth(birth);
}

void FrameAllocator::split_large(PhysicalAddress large) {
  DBOS_ASSERT(frame_info(large).kind() == FrameKind::kLarge);
  const Epoch birth = frame_info(large).birth();
  for (u64 i = 0; i < kFramesPerBlock; ++i) {
    FrameInfo& part = frame_info(large + i * kPageSize);
    DBOS_ASSERT(part.state() == FrameState::kLinked);
    part.set(FrameState::kLinked, FrameKind::kPage, birth);
  }
  LockGuard guard(lock_);
  BlockInfo& info = block_info(block_of(FrameNumber::of(large)));
  DBOS_ASSERT(info.state == BlockState::kLarge);
  info.state = BlockState::kFull;
  info.free_head = FrameNumber();
  info.free_count = 0;
  info.cursor = kFramesPerBlock;
}

Result<PhysicalAddress> FrameAllocator::allocate_kernel(u32 order) {
  DBOS_ASSERT(order <= kMaxOrder);
  const u32 count = 1u << order;
  FrameNumber first;
  while (true) {
    const u64 seen_chunks = chunk_count_.load(std::memory_order_relaxed);
    {
      LockGuard guard(lock_);
      const u32 block = find_run(order);
      if (block != 0) {
        BlockInfo& info = block_info(block);
        const u32 begin = static_cast<u32>(align_up(info.cursor, count));
        // What alignment skips goes to the single frames.
        for (u32 i = info.cursor; i < begin; ++i) {
          const FrameNumber skipped(first_frame(block).value() + i);
          frame_info(skipped).set_next(info.free_head);
          info.free_head = skipped;
        }
        info.cursor = static_cast<u16>(begin + count);
        info.free_count = static_cast<u16>(info.free_count - count);
        free_frames_ -= count;
        first = FrameNumber(first_frame(block).value() + begin);
        if (info.free_count == 0) {
          unlink(partial_, block);
          info.state = BlockState::kFull;
        }
        break;
      }
    }
    DBOS_CHECK_OK(grow(seen_chunks));
  }
  for (u32 i = 0; i < count; ++i) {
    FrameInfo& info = frame_info(FrameNumber(first.value() + i));
    DBOS_ASSERT(info.state() == FrameState::kFree);
    info.set(FrameState::kKernel, FrameKind::kPage);
  }
  Cache& mine = cache();
  LockGuard guard(mine.lock);
  mine.kernel += count;
  return first.address();
}

void FrameAllocator::free_kernel(PhysicalAddress run, u32 order) {
  const u32 count = 1u << order;
  DBOS_ASSERT(is_aligned(run.value(), count * kPageSize));
  {
    Cache& mine = cache();
    LockGuard guard(mine.lock);
    mine.kernel -= count;
  }
  LockGuard guard(lock_);
  for (u32 i = 0; i < count; ++i) {
    const FrameNumber frame(FrameNumber::of(run).value() + i);
    frame_info(frame).change(FrameState::kKernel, FrameState::kCached);
    give_frame(frame);
  }
}

// ---- Blocks, with the allocator lock ----

// Skips nothing: a partly used block always has a free frame.
bool FrameAllocator::take_frame(bool prefer_zero, Taken& taken) {
  if (partial_.head == 0) {
    const u32 block = take_free_block(prefer_zero);
    if (block == 0) return false;
    open_block(block);
  }
  const u32 block = partial_.head;
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
  --info.free_count;
  --free_frames_;
  if (info.free_count == 0) {
    unlink(partial_, block);
    info.state = BlockState::kFull;
  }
  return true;
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
    link(partial_, block);
  } else if (info.free_count == kFramesPerBlock) {
    unlink(partial_, block);
    info.state = BlockState::kFreeDirty;
    link(free_dirty_, block);
  }
}

// A whole block, off every list, in its old state.
u32 FrameAllocator::take_free_block(bool prefer_zero) {
  if (!prefer_zero && free_dirty_.head != 0) {
    const u32 block = free_dirty_.head;
    unlink(free_dirty_, block);
    return block;
  }
  if (free_zero_.head != 0) {
    const u32 block = free_zero_.head;
    unlink(free_zero_, block);
    return block;
  }
  if (virgin_next_ != virgin_end_) return virgin_next_++;
  if (free_dirty_.head != 0) {
    const u32 block = free_dirty_.head;
    unlink(free_dirty_, block);
    return block;
  }
  return 0;
}

// Makes a block that take_free_block() gave a source of single frames.
void FrameAllocator::open_block(u32 block) {
  BlockInfo& info = block_info(block);
  info.zero_from_cursor = info.state != BlockState::kFreeDirty;
  info.free_head = FrameNumber();
  info.free_count = kFramesPerBlock;
  info.cursor = 0;
  info.state = BlockState::kPartial;
  link(partial_, block);
}

// A partly used block with room for an aligned run; looks at a few, then opens another one.
u32 FrameAllocator::find_run(u32 order) {
  const u64 count = u64{1} << order;
  u32 block = partial_.head;
  for (u32 tries = 0; block != 0 && tries < 8; ++tries) {
    const BlockInfo& info = block_info(block);
    if (align_up(info.cursor, count) + count <= kFramesPerBlock) return block;
    block = info.next;
  }
  block = take_free_block(false);
  if (block != 0) open_block(block);
  return block;
}

void FrameAllocator::link(BlockList& list, u32 block) {
  BlockInfo& info = block_info(block);
  info.previous = 0;
  info.next = list.head;
  if (list.head != 0) block_info(list.head).previous = block;
  list.head = block;
  ++list.count;
}

void FrameAllocator::unlink(BlockList& list, u32 block) {
  BlockInfo& info = block_info(block);
  if (info.previous != 0) {
    block_info(info.previous).next = info.next;
  } else {
    DBOS_ASSERT(list.head == block);
    list.head = info.next;
  }
  if (info.next != 0) block_info(info.next).previous = info.previous;
  --list.count;
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
  // Left over only by grow_ahead(), which may add a chunk before the last one is used up.
  while (virgin_next_ != virgin_end_) {
    block_info(virgin_next_).state = BlockState::kFreeZero;
    link(free_zero_, virgin_next_++);
  }
  virgin_next_ = first + kTableBlocks;
  virgin_end_ = first + blocks;
  total_frames_ += (blocks - kTableBlocks) * kFramesPerBlock;
  free_frames_ += (blocks - kTableBlocks) * kFramesPerBlock;
  chunk_count_.store(index + 1, std::memory_order_relaxed);
  return {};
}

Result<void> FrameAllocator::grow_ahead(u64 bytes) {
  while (true) {
    const u64 seen_chunks = chunk_count_.load(std::memory_order_relaxed);
    {
      LockGuard guard(lock_);
      if (free_frames_ * kPageSize >= bytes) return {};
    }
    DBOS_CHECK_OK(grow(seen_chunks));
  }
}

u64 FrameAllocator::release_free_blocks(u64 bytes_max) {
  u64 released = 0;
  while (released + kLargePageSize <= bytes_max) {
    u32 block = 0;
    {
      LockGuard guard(lock_);
      block = free_dirty_.head;
      if (block == 0) break;
      unlink(free_dirty_, block);
      block_info(block).state = BlockState::kFull;  // nobody else's meanwhile
      free_frames_ -= kFramesPerBlock;
    }
    platform::memory_release(first_frame(block).address(), kLargePageSize);
    LockGuard guard(lock_);
    block_info(block).state = BlockState::kFreeZero;
    link(free_zero_, block);
    free_frames_ += kFramesPerBlock;
    released += kLargePageSize;
  }
  return released;
}

u64 FrameAllocator::free_dirty_bytes() {
  LockGuard guard(lock_);
  return free_dirty_.count * kLargePageSize;
}

// ---- Counting ----

void FrameAllocator::count_retired(FrameKind kind, i64 change) {
  if (kind == FrameKind::kNode) {
    retired_nodes_.fetch_add(change, std::memory_order_relaxed);
  } else {
    retired_pages_.fetch_add(change * static_cast<i64>(frames_of(kind)), std::memory_order_relaxed);
  }
}

FrameCounts FrameAllocator::counts() {
  i64 pages = 0;
  i64 nodes = 0;
  i64 kernel = 0;
  u64 cached = 0;
  for (Cache& each : caches_) {
    LockGuard guard(each.lock);
    pages += each.pages;
    nodes += each.nodes;
    kernel += each.kernel;
    cached += each.dirty_count + each.zero_count;
  }
  LockGuard guard(lock_);
  FrameCounts result{};
  result.total = total_frames_;
  result.free = free_frames_ + cached;
  result.cached = cached;
  result.pages = static_cast<u64>(pages);
  result.nodes = static_cast<u64>(nodes);
  result.kernel = static_cast<u64>(kernel);
  result.retired_pages = static_cast<u64>(retired_pages_.load(std::memory_order_relaxed));
  result.retired_nodes = static_cast<u64>(retired_nodes_.load(std::memory_order_relaxed));
  result.free_blocks = free_zero_.count + free_dirty_.count + (virgin_end_ - virgin_next_);
  return result;
}

}  // namespace dbos
