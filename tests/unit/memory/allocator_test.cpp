// The frame allocator and the heap.

#include <catch2/catch.hpp>
#include <random>

#include "guest/memory/heap.h"
#include "tests/unit/memory/machine.h"

namespace dbos::test {
namespace {

constexpr Ownership kNobody{};

u64 words_that_are_not_zero(PhysicalAddress at, u64 bytes) {
  u64 count = 0;
  for (u64 i = 0; i < bytes; i += 8) count += *pointer_to<u64>(at + i) != 0;
  return count;
}

// The frames of a test, given back at its end.
struct Frames {
  Frames() { kernel_root_for_tests(); }
  ~Frames() {
    for (PhysicalAddress frame : list) frame_allocator.free(frame);
  }
  PhysicalAddress page(Clear clear = Clear::kNo) {
    list.push_back(frame_allocator.allocate_page(clear, kNobody).value());
    return list.back();
  }
  PhysicalAddress large(Clear clear = Clear::kNo) {
    list.push_back(frame_allocator.allocate_large(clear, kNobody).value());
    return list.back();
  }
  std::vector<PhysicalAddress> list;
};

void dirty(PhysicalAddress at, u64 bytes) {
  std::memset(pointer_to<char>(at), 0xab, bytes);
}

}  // namespace

TEST_CASE("frames that are asked for cleared are zero, whoever had them before") {
  Frames frames;
  for (int round = 0; round < 3; ++round) {
    std::vector<PhysicalAddress> used;
    for (int i = 0; i < 2000; ++i) {
      used.push_back(
          frame_allocator.allocate_page(i % 2 == 0 ? Clear::kYes : Clear::kNo, kNobody).value());
      if (i % 2 == 0) REQUIRE(words_that_are_not_zero(used.back(), kPageSize) == 0);
      dirty(used.back(), kPageSize);
    }
    const PhysicalAddress large = frames.large(Clear::kYes);
    REQUIRE(words_that_are_not_zero(large, kLargePageSize) == 0);
    dirty(large, kLargePageSize);
    for (PhysicalAddress frame : used) frame_allocator.free(frame);
  }
}

TEST_CASE("frames that come back become whole blocks again") {
  Frames frames;
  frame_allocator.drain_caches();
  const FrameCounts before = frame_allocator.counts();
  std::vector<PhysicalAddress> used;
  for (u64 i = 0; i < 4 * kFramesPerBlock; ++i) used.push_back(frames.page());
  CHECK(frame_allocator.counts().free == before.free - 4 * kFramesPerBlock);
  CHECK(frame_allocator.counts().pages == before.pages + 4 * kFramesPerBlock);
  std::shuffle(frames.list.begin(), frames.list.end(), std::mt19937(1));
  for (PhysicalAddress frame : frames.list) frame_allocator.free(frame);
  frames.list.clear();
  frame_allocator.drain_caches();
  const FrameCounts after = frame_allocator.counts();
  CHECK(after.free == before.free);
  CHECK(after.free_blocks == before.free_blocks);
}

TEST_CASE("single frames fill partly used blocks before another one is opened") {
  Frames frames;
  frame_allocator.drain_caches();
  std::vector<PhysicalAddress> used;
  for (u64 i = 0; i < 3 * kFramesPerBlock; ++i) frames.page();
  frame_allocator.drain_caches();
  const u64 blocks = frame_allocator.counts().free_blocks;
  // Two of three frames come back, then as many are taken again.
  std::vector<PhysicalAddress> kept;
  for (size_t i = 0; i < frames.list.size(); ++i) {
    if (i % 3 == 0)
      kept.push_back(frames.list[i]);
    else
      frame_allocator.free(frames.list[i]);
  }
  const size_t again = frames.list.size() - kept.size();
  frames.list = kept;
  for (size_t i = 0; i < again; ++i) frames.page();
  CHECK(frame_allocator.counts().free_blocks >= blocks);
}

TEST_CASE("fresh frames that are taken in a row are contiguous") {
  Frames frames;
  // Partly used blocks come first.
  const FrameCounts counts = frame_allocator.counts();
  for (u64 i = counts.free - counts.free_blocks * kFramesPerBlock; i-- > 0;) frames.page();
  u64 neighbours = 0;
  PhysicalAddress last = frames.page(Clear::kYes);
  for (int i = 0; i < 511; ++i) {
    const PhysicalAddress next = frames.page(Clear::kYes);
    neighbours += next == last + kPageSize;
    last = next;
  }
  CHECK(neighbours > 400);
}

TEST_CASE("a large page can be split and freed in pieces, in any order") {
  Frames frames;
  frame_allocator.drain_caches();
  const FrameCounts before = frame_allocator.counts();
  const PhysicalAddress large = frame_allocator.allocate_large(Clear::kNo, kNobody).value();
  CHECK(is_aligned(large.value(), kLargePageSize));
  CHECK(frame_allocator.counts().pages == before.pages + kFramesPerBlock);
  frame_allocator.split_large(large);
  for (u64 i = 0; i < kFramesPerBlock; ++i) {
    frame_allocator.free(large + (i * 7 % kFramesPerBlock) * kPageSize);
  }
  frame_allocator.drain_caches();
  CHECK(frame_allocator.counts().free == before.free);
  CHECK(frame_allocator.counts().free_blocks == before.free_blocks);
}

TEST_CASE("kernel runs are aligned to their size and come back whole") {
  Frames frames;
  frame_allocator.drain_caches();
  const FrameCounts before = frame_allocator.counts();
  std::mt19937 random(3);
  std::vector<std::pair<PhysicalAddress, u32>> runs;
  for (int i = 0; i < 300; ++i) {
    const u32 order = static_cast<u32>(random() % 10);
    const PhysicalAddress run = frame_allocator.allocate_kernel(order).value();
    CHECK(is_aligned(run.value(), kPageSize << order));
    dirty(run, kPageSize << order);
    runs.emplace_back(run, order);
    frames.page();
  }
  std::sort(runs.begin(), runs.end());
  for (size_t i = 1; i < runs.size(); ++i) {
    CHECK(runs[i - 1].first + (kPageSize << runs[i - 1].second) <= runs[i].first);
  }
  for (const auto& [run, order] : runs) frame_allocator.free_kernel(run, order);
  for (PhysicalAddress frame : frames.list) frame_allocator.free(frame);
  frames.list.clear();
  frame_allocator.drain_caches();
  CHECK(frame_allocator.counts().free == before.free);
  CHECK(frame_allocator.counts().free_blocks == before.free_blocks);
}

namespace {

// Runs of the kernel's come and go; one of each round stays.
class Rounds {
 public:
  explicit Rounds(u32 order) : order_(order) { kernel_root_for_tests(); }
  ~Rounds() {
    for (PhysicalAddress run : kept_) frame_allocator.free_kernel(run, order_);
  }
  Rounds(const Rounds&) = delete;
  Rounds& operator=(const Rounds&) = delete;

  // The last of `keep_every` runs stay.
  void allocate_and_free(u64 count, u64 keep_every) {
    std::vector<PhysicalAddress> used;
    for (u64 i = 1; i <= count; ++i) {
      const PhysicalAddress run = frame_allocator.allocate_kernel(order_).value();
      (i % keep_every == 0 ? kept_ : used).push_back(run);
    }
    for (PhysicalAddress run : used) frame_allocator.free_kernel(run, order_);
  }

 private:
  const u32 order_;
  std::vector<PhysicalAddress> kept_;
};

}  // namespace

TEST_CASE("kernel frames that came back are used before another block is opened") {
  Rounds rounds(0);
  rounds.allocate_and_free(4 * kFramesPerBlock, 64);
  const u64 blocks = frame_allocator.counts().free_blocks;
  for (int i = 0; i < 100; ++i) rounds.allocate_and_free(500, 500);
  CHECK(frame_allocator.counts().free_blocks >= blocks);
}

TEST_CASE("kernel runs that came back are mostly used before another block is opened") {
  for (const u32 order : {1u, 3u}) {
    Rounds rounds(order);
    rounds.allocate_and_free((4 * kFramesPerBlock) >> order, 16);
    const u64 blocks = frame_allocator.counts().free_blocks;
    for (int i = 0; i < 100; ++i) rounds.allocate_and_free(256 >> order, 256 >> order);
    CHECK(frame_allocator.counts().free_blocks + 4 >= blocks);
  }
}

TEST_CASE("at the arena's limit there is ENOMEM, and every frame can be had before") {
  Frames frames;
  const u64 free = frame_allocator.counts().free;
  const u64 before = frame_allocator.refusals();
  // What the limit leaves to grow is taken first.
  while (true) {
    const Result<PhysicalAddress> frame = frame_allocator.allocate_page(Clear::kNo, kNobody);
    if (frame.is_error()) {
      CHECK(frame.error() == Error(ENOMEM));
      break;
    }
    frames.list.push_back(frame.value());
  }
  CHECK(frames.list.size() >= free);
  CHECK(frame_allocator.counts().free == 0);
  const u64 refusals = frame_allocator.refusals();
  CHECK(refusals == before + 1);
  CHECK(frame_allocator.allocate_large(Clear::kNo, kNobody).is_error());
  CHECK(frame_allocator.refusals() == refusals);  // who asks for one does with small pages
  CHECK(frame_allocator.allocate_kernel(0).is_error());
  CHECK(frame_allocator.refusals() == refusals + 1);
  // Frames in another vCPU's cache can be had too.
  host::set_vcpu(7);
  frame_allocator.free(frames.list.back());
  frames.list.pop_back();
  host::set_vcpu(0);
  frames.page();
  CHECK(frame_allocator.refusals() == refusals + 1);
}

TEST_CASE("blocks that were given back to the host read as zero and are not cleared again") {
  Frames frames;
  std::vector<PhysicalAddress> blocks;
  for (int i = 0; i < 8; ++i) {
    blocks.push_back(frame_allocator.allocate_large(Clear::kNo, kNobody).value());
    dirty(blocks.back(), kLargePageSize);
  }
  for (PhysicalAddress block : blocks) frame_allocator.free(block);
  host::fail_releases(true);
  CHECK(frame_allocator.release_free_blocks(kUnlimited) == 0);
  host::fail_releases(false);
  CHECK(words_that_are_not_zero(frames.large(Clear::kYes), kLargePageSize) == 0);
  const u64 released = host::released_bytes();
  CHECK(frame_allocator.release_free_blocks(5 * kLargePageSize) == 5 * kLargePageSize);
  CHECK(host::released_bytes() == released + 5 * kLargePageSize);
  frame_allocator.release_free_blocks(kUnlimited);
  CHECK(frame_allocator.release_free_blocks(kUnlimited) == 0);
  for (int i = 0; i < 8; ++i) {
    CHECK(words_that_are_not_zero(frames.large(Clear::kYes), kLargePageSize) == 0);
  }
}

TEST_CASE("the block that was freed last is not the one that is given back to the host") {
  Frames frames;
  frame_allocator.release_free_blocks(kUnlimited);
  const PhysicalAddress first = frame_allocator.allocate_large(Clear::kYes, kNobody).value();
  const PhysicalAddress last = frame_allocator.allocate_large(Clear::kYes, kNobody).value();
  frame_allocator.free(first);
  frame_allocator.free(last);
  CHECK(frame_allocator.release_free_blocks(kLargePageSize) == kLargePageSize);
  CHECK(frames.large(Clear::kNo) == last);
}

TEST_CASE("a frame that is freed twice is caught") {
  Frames frames;
  const PhysicalAddress frame = frame_allocator.allocate_page(Clear::kNo, kNobody).value();
  frame_allocator.free(frame);
  host::throw_on_panic(true);
  CHECK_THROWS(frame_allocator.free(frame));
  host::throw_on_panic(false);
}

TEST_CASE("heap objects of all sizes are apart, aligned, and come back") {
  kernel_root_for_tests();
  const u64 kernel_before = frame_allocator.counts().kernel;
  std::mt19937 random(5);
  std::vector<std::pair<char*, size_t>> objects;
  for (int round = 0; round < 3; ++round) {
    for (int i = 0; i < 3000; ++i) {
      const size_t size = 1 + random() % (i % 50 == 0 ? 20000 : 1100);
      char* object = static_cast<char*>(heap_allocate(size));
      REQUIRE(object != nullptr);
      const size_t alignment = size >= 256 ? 16 : size >= 64 ? 64 : 16;
      CHECK(reinterpret_cast<u64>(object) % alignment == 0);
      std::memset(object, static_cast<char>(objects.size()), size);
      objects.emplace_back(object, size);
    }
    std::shuffle(objects.begin(), objects.end(), random);
    while (objects.size() > 500) {
      heap_free(objects.back().first, objects.back().second);
      objects.pop_back();
    }
  }
  std::sort(objects.begin(), objects.end());
  for (size_t i = 1; i < objects.size(); ++i) {
    CHECK(objects[i - 1].first + objects[i - 1].second <= objects[i].first);
  }
  for (const auto& [object, size] : objects) heap_free(object, size);
  // One empty slab a class may stay.
  CHECK(frame_allocator.counts().kernel <= kernel_before + 8);
}

}  // namespace dbos::test
