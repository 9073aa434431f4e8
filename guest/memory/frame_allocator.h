// The arena's frames: single ones and whole 2 MiB blocks.
//
//   virgin block ---> free block (zero or dirty) <---> partly used block <---> full block
//                          |  ^                            |  ^
//                          v  |                            v  |
//                       2 MiB page                    vCPU caches (single frames)
//
// A block counts its free frames, so that 512 of them are one free block again. Single frames come
// from partly used blocks before a new block is opened, and so do the kernel's longer runs where a
// short look finds one. Page tables, and what the kernel needs for itself, come from blocks of
// their own as long as there are free ones: a walk over many tables then misses the TLB less
// (making a ready copy of all tables takes half the time), and a table does not keep a block from
// being whole again. Frames that are known to be zero (never used, or given back to the host
// meanwhile) are not cleared again.
//
// Lock order: cache lock -> allocator lock. growth_lock_ comes before the allocator lock and is
// held across platform::arena_grow(). All of them come after an address space's lock and the lines'
// lock.
#pragma once

#include "guest/lib/result.h"
#include "guest/lib/spinlock.h"
#include "guest/memory/frame_table.h"
#include "hypercall/observe.h"

namespace dbos {

enum class Clear : bool { kNo, kYes };

// Who a new frame belongs to, for the rules of guest/snapshot/line.h.
struct Ownership {
  LineId owner = LineId::kNone;
  Epoch birth = 0;
};

struct FrameCounts {
  u64 total;          // usable frames of the arena so far
  u64 free;           // of these, on free lists and in caches
  u64 cached;         // of the free ones, in vCPUs' caches
  u64 pages;          // programs' memory; a 2 MiB page counts 512
  u64 nodes;          // page tables
  u64 kernel;         // heap and buffers
  u64 retired_pages;  // of the pages and nodes: kept for snapshots only
  u64 retired_nodes;
  u64 free_blocks;  // whole free blocks
};

// Of the smallest run of 2^order frames that holds so much.
constexpr u32 order_of(u64 bytes) {
  u32 order = 0;
  while ((kPageSize << order) < bytes) ++order;
  return order;
}

class FrameAllocator {
 public:
  constexpr FrameAllocator() = default;

  // ENOMEM at the arena's limit.
  Result<PhysicalAddress> allocate_page(Clear clear, Ownership ownership);
  Result<PhysicalAddress> allocate_node(Clear clear, Ownership ownership);
  Result<PhysicalAddress> allocate_large(Clear clear, Ownership ownership);
  // Sees to it that there are some frames, and grows the arena for that. False: hardly one is left.
  bool ensure_frames();
  // How often neither a page nor a run was found: an ENOMEM without that has other reasons.
  u64 refusals() const { return refusals_.load(std::memory_order_relaxed); }
  // 2^order frames for the kernel, physically contiguous and aligned to their size; not cleared.
  Result<PhysicalAddress> allocate_kernel(u32 order);

  // The frame must be kLinked or kUnlinked (page, node, large).
  void free(PhysicalAddress frame);
  void free_kernel(PhysicalAddress run, u32 order);

  // A 2 MiB page becomes 512 pages of the same owner, birth and state, or the reverse.
  void split_large(PhysicalAddress large);
  void merge_large(PhysicalAddress large);

  // A 2 MiB page that nothing maps yet counts as born in `birth`.
  void set_birth_of_large(PhysicalAddress large, Epoch birth);

  // Gives up to `bytes_max` of free, dirty blocks back to the host. For the background: exits.
  u64 release_free_blocks(u64 bytes_max);
  // Free blocks that the host still backs, in bytes.
  u64 free_dirty_bytes();
  // Takes the free frames out of all vCPUs' caches.
  void drain_caches();

  FrameCounts counts();
  // Adds to the counts of retired frames.
  void count_retired(FrameKind kind, i64 change);

  // Says where the counts lie, for those who look from outside.
  void publish(KernelView& view) const;

  // Walks everything; panics on the first inconsistency. Only while nothing else runs.
  void check_invariants();

 private:
  static constexpr u32 kCacheSize = 32;
  static constexpr u32 kCacheBatch = 16;
  static constexpr u32 kMaxOrder = 9;

  enum class BlockUse : u8 { kPages = 0, kTables };
  static constexpr u32 kUses = 2;
  enum class BlockState : u8 { kVirgin = 0, kFreeZero, kFreeDirty, kPartial, kFull, kLarge };

  struct BlockInfo {
    u32 previous;  // block numbers; 0: none
    u32 next;
    FrameNumber free_head;  // single frames that came back
    u16 free_count;         // these, and those from `cursor` on
    u16 cursor;             // frames from here on were not handed out since the block was opened
    BlockState state;
    bool zero_from_cursor;
    BlockUse use;  // of a partly used or full one
    u8 reserved[13];
  };
  static_assert(sizeof(BlockInfo) == 32);
  static_assert(sizeof(BlockInfo) * kBlocksPerChunk <=
                    kFrameTableSize / kPageSize * sizeof(FrameInfo),
                "the BlockInfos fit where the table's own frames would be described");

  struct BlockList {
    u32 head = 0;
    u32 tail = 0;
    u32 next_look = 0;  // where a search for a run goes on; 0: at the head
    u64 count = 0;
  };

  // Free frames of one use.
  struct Pool {
    u32 dirty_count = 0;
    u32 zero_count = 0;
    FrameNumber dirty[kCacheSize];
    FrameNumber zero[kCacheSize];
    bool is_empty() const { return dirty_count + zero_count == 0; }
  };
  // One vCPU's free frames. The lock is contended only when frames run out.
  struct alignas(64) Cache {
    Spinlock lock;
    i64 pages = 0;  // how many more frames this vCPU allocated than it freed
    i64 nodes = 0;
    i64 kernel = 0;
    Pool pools[kUses];
  };

  struct Taken {
    FrameNumber frame;
    bool zero;
  };

  static BlockUse use_of(FrameKind kind) {
    return kind == FrameKind::kNode ? BlockUse::kTables : BlockUse::kPages;
  }
  BlockList& partial(BlockUse use) { return partial_[static_cast<u32>(use)]; }
  Error refuse(Error error) {
    refusals_.fetch_add(1, std::memory_order_relaxed);
    return error;
  }
  Cache& cache() { return caches_[platform::current_vcpu()]; }
  Result<PhysicalAddress> allocate_single(Clear clear, FrameKind kind, Ownership ownership);
  Result<Taken> take_from_cache(Cache& cache, bool prefer_zero, FrameKind kind);
  void give_to_cache(PhysicalAddress frame, FrameKind kind);
  void count_frames(i64 Cache::*counter, i64 change);
  Result<void> refill(Pool& pool, bool prefer_zero, BlockUse use);

  // With the allocator lock:
  bool take_frame(bool prefer_zero, BlockUse use, Taken& taken);
  void give_frame(FrameNumber frame);
  u32 take_free_block(bool prefer_zero);  // 0: none
  void open_block(u32 block, BlockUse use);
  void count_taken(u32 block, u32 count);
  bool take_run(u32 order, FrameNumber& first);
  bool take_fresh_run(u32 order, FrameNumber& first);
  u32 find_run_at_cursor(u32 order);  // 0: none
  bool take_returned_run(BlockUse use, u32 order, u64 looks, FrameNumber& first);
  static u32 find_run_in_block(u32 block, u32 order);
  bool take_run_of_block(u32 block, u32 order, FrameNumber& first);
  void mark_kernel(FrameNumber first, u32 order);
  void link(BlockList& list, u32 block);
  void unlink(BlockList& list, u32 block);
  u32 take_head(BlockList& list);  // 0: it is empty
  // Without it:
  Result<FrameNumber> find_run(u32 order);
  bool try_run(u32 order, FrameNumber& first);
  Result<void> grow(u64 seen_chunks);

  static u32 block_of(FrameNumber frame) {
    return frame.value() / static_cast<u32>(kFramesPerBlock);
  }
  static FrameNumber first_frame(u32 block) {
    return FrameNumber(block * static_cast<u32>(kFramesPerBlock));
  }
  static BlockInfo& block_info(u32 block) {
    const PhysicalAddress chunk(kArenaBase + block / kBlocksPerChunk * kArenaChunkSize);
    return pointer_to<BlockInfo>(chunk)[block % kBlocksPerChunk];
  }

  Spinlock lock_;  // protects the block lists, the BlockInfos and free frames' FrameInfos
  BlockList free_zero_;
  BlockList free_dirty_;
  BlockList partial_[kUses];
  u32 virgin_next_ = 0;  // blocks [virgin_next_, virgin_end_) of the newest chunk were never used
  u32 virgin_end_ = 0;
  std::atomic<u64> chunk_count_{0};
  u64 total_frames_ = 0;
  u64 free_frames_ = 0;  // not counting caches

  Spinlock growth_lock_;
  std::atomic<i64> retired_pages_{0};
  std::atomic<i64> retired_nodes_{0};
  alignas(64) std::atomic<u64> refusals_{0};  // read at system calls, hardly ever written
  Cache caches_[kVcpuCountMax];
};

extern FrameAllocator frame_allocator;

}  // namespace dbos
