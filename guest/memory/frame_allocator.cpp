#include "guest/memory/frame_allocator.h"

namespace dbos {

constinit FrameAllocator frame_allocator;

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
    if (taken.is_error()) return refuse(taken.error());
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
  const BlockUse use = use_of(kind);
  Pool& pool = cache.pools[static_cast<u32>(use)];
  if (pool.is_empty()) DBOS_RETURN_IF_ERROR(refill(pool, prefer_zero, use));
  const bool zero = pool.dirty_count == 0 || (prefer_zero && pool.zero_count != 0);
  const FrameNumber frame = zero ? pool.zero[--pool.zero_count] : pool.dirty[--pool.dirty_count];
  ++(kind == FrameKind::kNode ? cache.nodes : cache.pages);
  return Taken{frame, zero};
}

// The pool is empty; its cache's lock is held.
Result<void> FrameAllocator::refill(Pool& pool, bool prefer_zero, BlockUse use) {
  while (true) {
    const u64 seen_chunks = chunk_count_.load(std::memory_order_relaxed);
    {
      LockGuard guard(lock_);
      Taken taken[kCacheBatch];
      u32 count = 0;
      while (count < kCacheBatch && take_frame(prefer_zero, use, taken[count])) ++count;
      // In reverse, so that they are handed out in ascending order: a buffer that is touched from
      // front to back gets contiguous frames, and becomes one segment of a host call.
      for (u32 i = count; i-- > 0;) {
        frame_info(taken[i].frame).set(FrameState::kCached, FrameKind::kPage);
        if (taken[i].zero) {
          pool.zero[pool.zero_count++] = taken[i].frame;
        } else {
          pool.dirty[pool.dirty_count++] = taken[i].frame;
        }
      }
      if (count != 0) return {};
    }
    DBOS_RETURN_IF_ERROR(grow(seen_chunks));
  }
}

void FrameAllocator::give_to_cache(PhysicalAddress frame, FrameKind kind) {
  Cache& mine = cache();
  LockGuard guard(mine.lock);
  --(kind == FrameKind::kNode ? mine.nodes : mine.pages);
  Pool& pool = mine.pools[static_cast<u32>(use_of(kind))];
  if (pool.dirty_count == kCacheSize) {
    LockGuard global_guard(lock_);
    for (u32 i = 0; i < kCacheBatch; ++i) give_frame(pool.dirty[--pool.dirty_count]);
  }
  pool.dirty[pool.dirty_count++] = FrameNumber::of(frame);
}

void FrameAllocator::drain_caches() {
  for (Cache& other : caches_) {
    LockGuard guard(other.lock);
    for (Pool& pool : other.pools) {
      if (pool.is_empty()) continue;
      LockGuard global_guard(lock_);
      while (pool.dirty_count != 0) give_frame(pool.dirty[--pool.dirty_count]);
      while (pool.zero_count != 0) give_frame(pool.zero[--pool.zero_count]);
    }
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
  count_frames(&Cache::pages, -static_cast<i64>(kFramesPerBlock));
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
    DBOS_RETURN_IF_ERROR(grow(seen_chunks));
  }
  count_frames(&Cache::pages, static_cast<i64>(kFramesPerBlock));
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
  const FrameInfo& head = frame_info(large);
  DBOS_ASSERT(head.kind() == FrameKind::kLarge);
  const FrameState state = head.state();
  const Epoch birth = head.birth();
  for (u64 i = 0; i < kFramesPerBlock; ++i) {
    FrameInfo& part = frame_info(large + i * kPageSize);
    DBOS_ASSERT(i == 0 || part.kind() == FrameKind::kLargeTail);
    part.set(state, FrameKind::kPage, birth);
  }
  LockGuard guard(lock_);
  BlockInfo& info = block_info(block_of(FrameNumber::of(large)));
  DBOS_ASSERT(info.state == BlockState::kLarge);
  info.state = BlockState::kFull;
  info.use = BlockUse::kPages;
  info.free_head = FrameNumber();
  info.free_count = 0;
  info.cursor = kFramesPerBlock;
}

void FrameAllocator::merge_large(PhysicalAddress large) {
  const FrameInfo& head = frame_info(large);
  const FrameState state = head.state();
  const LineId owner = head.owner();
  // A page of it may be younger than the others: a snapshot left it to a host call.
  Epoch birth = 0;
  for (u64 i = 0; i < kFramesPerBlock; ++i) {
    const FrameInfo& part = frame_info(large + i * kPageSize);
    DBOS_ASSERT(part.kind() == FrameKind::kPage && part.state() == state && part.owner() == owner);
    if (part.birth() > birth) birth = part.birth();
  }
  for (u64 i = 0; i < kFramesPerBlock; ++i) {
    frame_info(large + i * kPageSize)
        .set(state, i == 0 ? FrameKind::kLarge : FrameKind::kLargeTail, birth);
  }
  LockGuard guard(lock_);
  BlockInfo& info = block_info(block_of(FrameNumber::of(large)));
  DBOS_ASSERT(info.state == BlockState::kFull);
  info.state = BlockState::kLarge;
}

Result<PhysicalAddress> FrameAllocator::allocate_kernel(u32 order) {
  DBOS_ASSERT(order <= kMaxOrder);
  const FrameNumber first = DBOS_TRY(find_run(order));
  count_frames(&Cache::kernel, i64{1} << order);
  return first.address();
}

void FrameAllocator::free_kernel(PhysicalAddress run, u32 order) {
  const u32 count = 1u << order;
  DBOS_ASSERT(is_aligned(run.value(), count * kPageSize));
  count_frames(&Cache::kernel, -i64{count});
  LockGuard guard(lock_);
  for (u32 i = 0; i < count; ++i) {
    const FrameNumber frame(FrameNumber::of(run).value() + i);
    frame_info(frame).change(FrameState::kKernel, FrameState::kCached);
    give_frame(frame);
  }
}

// ---- Counting ----

// What this vCPU has allocated, or freed, without its cache.
void FrameAllocator::count_frames(i64 Cache::*counter, i64 change) {
  Cache& mine = cache();
  LockGuard guard(mine.lock);
  mine.*counter += change;
}

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
    for (const Pool& pool : each.pools) cached += pool.dirty_count + pool.zero_count;
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
