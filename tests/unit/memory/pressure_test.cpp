// What happens when memory runs out, or snapshots keep too much of it.

#include <catch2/catch.hpp>

#include "guest/memory/shortage.h"
#include "guest/process/copy_limit.h"
#include "tests/unit/memory/snapshot_fixture.h"

namespace dbos::test {
namespace {

struct PressureFixture : SnapshotFixture {
  ~PressureFixture() {
    set_copy_limit(kUnlimited);
    host::on_copy_limit = nullptr;
    host::on_no_memory = nullptr;
  }
};

}  // namespace

TEST_CASE_METHOD(PressureFixture, "a page that is copied beyond the limit is told, no other") {
  std::vector<u64> told;
  host::on_copy_limit = [&](u64 kept, u32) { told.push_back(kept); };
  map(main, 0, 1024);
  fill(main, 0, 1024, 1);
  AddressSpace& snapshot = machine.take_snapshot(main);
  fill(main, 0, 1, 2);  // and page tables
  const u64 kept = main.left_for_snapshots();
  set_copy_limit(kept + 4 * kPageSize);
  fill_apart(main, 2, 4, 2);
  REQUIRE(told.empty());
  fill(main, 10, 1, 2);
  REQUIRE(told == std::vector<u64>{kept + 5 * kPageSize});
  fill_apart(main, 0, 5, 3);  // written again, not copied
  map(main, 2048, 8);
  fill(main, 2048, 8, 1);  // new
  REQUIRE(told.size() == 1);
  machine.destroy(snapshot);
  fill(main, 0, 1024, 4);
  REQUIRE(told.size() == 1);
}

TEST_CASE_METHOD(PressureFixture, "what a child left to its own children is none of main's limit") {
  u32 told = 0;
  map(main, 0, 64);
  fill(main, 0, 64, 1);
  AddressSpace& child = machine.take_snapshot(main);
  fill(child, 0, 20, 2);
  machine.take_snapshot(child);
  machine.take_snapshot(child);
  machine.destroy(child);
  host::on_copy_limit = [&](u64, u32) { ++told; };
  set_copy_limit(10 * kPageSize);
  fill(main, 32, 1, 2);
  CHECK(told == 0);
  CHECK(main.left_for_snapshots() != 0);
  fill_apart(main, 32, 12, 3);
  CHECK(told != 0);
}

TEST_CASE_METHOD(PressureFixture, "a page of a file that is copied beyond the limit is not told") {
  map_file(main, 2048, 40);
  machine.read(main, page(2048));
  map(main, 0, 1);
  fill(main, 0, 1, 1);
  machine.take_snapshot(main);
  u32 told = 0;
  host::on_copy_limit = [&](u64, u32) { ++told; };
  set_copy_limit(0);
  fill(main, 0, 1, 2);
  REQUIRE(told == 1);
  fill(main, 2049, 1, 2);  // mapped, and seen by the snapshot, which keeps nothing for it
  fill(main, 2048 + 20, 1, 2);
  REQUIRE(told == 1);
}

TEST_CASE_METHOD(PressureFixture, "a buffer whose pages are copied beyond the limit is told") {
  u32 told = 0;
  map(main, 0, 64);
  fill(main, 0, 64, 1);
  AddressSpace& snapshot = machine.take_snapshot(main);
  set_copy_limit(0);
  host::on_copy_limit = [&](u64, u32 pages) { told += pages; };
  HostSegment segments[64];
  const ResolveOutcome outcome =
      main.resolve_for_host(page(8), 4 * kPageSize, Access::kWrite, segments, 64);
  REQUIRE(outcome.bytes == 4 * kPageSize);
  REQUIRE(told == 4);
  main.unpin();
  machine.destroy(snapshot);
}

TEST_CASE_METHOD(PressureFixture,
                 "a write that finds no memory goes on when a snapshot has ended") {
  map(main, 0, 256);
  fill(main, 0, 256, 1);
  AddressSpace* snapshot = &machine.take_snapshot(main);
  fill(main, 0, 128, 2);
  const Hog hog;
  u32 asked = 0;
  host::on_no_memory = [&] {
    ++asked;
    if (snapshot == nullptr) return false;
    machine.destroy(*snapshot);
    snapshot = nullptr;
    return true;
  };
  SECTION("of the program") {
    REQUIRE(main.handle_fault(page(200), Access::kWrite) == FaultKind::kResolved);
    REQUIRE(snapshot == nullptr);
  }
  SECTION("of Linux") {
    HostSegment segments[8];
    const ResolveOutcome outcome =
        main.resolve_for_host(page(126), 4 * kPageSize, Access::kWrite, segments, 8);
    REQUIRE((outcome.kind == FaultKind::kResolved && outcome.bytes == 4 * kPageSize));
    main.unpin();
  }
  REQUIRE(asked == 1);
  map(main, 1 << 20, 1024);
  u64 written = 0;
  while (main.handle_fault(page((1 << 20) + written), Access::kWrite) == FaultKind::kResolved) {
    ++written;
  }
  REQUIRE((written > 50 && asked == 2));
}

TEST_CASE_METHOD(PressureFixture, "frames that are there again are enough for another try") {
  map(main, 0, 64);
  Hog hog;
  u32 asked = 0;
  SECTION("before somebody is asked to make room") {
    // The first try takes back what is ready; the frames come back while it does.
    host::on_no_memory = [&] {
      ++asked;
      return false;
    };
    const u64 refusals = frame_allocator.refusals();
    while (main.try_fault(page(0), Access::kWrite).kind != FaultKind::kOutOfMemory) {
    }
    CHECK(frame_allocator.refusals() > refusals);
    hog.give_back(200);
    Shortage shortage(main);
    CHECK(shortage.try_again());
    CHECK(asked == 0);
    // They did not suffice: room is made, and looked for once more where that can't be.
    u32 more = 0;
    while (more < 10 && shortage.try_again()) ++more;
    CHECK(more < 10);
    CHECK(asked == 2);
  }
  SECTION("while it was made for nothing") {
    host::on_no_memory = [&] {
      ++asked;
      hog.give_back(200);
      return false;
    };
    REQUIRE(main.handle_fault(page(1), Access::kWrite) == FaultKind::kResolved);
    REQUIRE(asked == 1);
  }
}

TEST_CASE_METHOD(PressureFixture,
                 "what is ready for the next snapshots goes before a snapshot does") {
  host::on_no_memory = [] { return false; };
  map(main, 0, 256);
  fill(main, 0, 256, 1);
  REQUIRE(main.keep_ready(2).is_ok());
  while (main.refill(16)) {
  }
  REQUIRE(main.ready_counts().ready == 2);
  map(main, 1 << 20, 8);
  {
    const Hog hog;
    CHECK(main.handle_fault(page(1 << 20), Access::kWrite) == FaultKind::kResolved);
    CHECK(main.ready_counts().ready == 0);
    CHECK(!main.refill(16));  // and does not come back before there is memory
    CHECK(main.ready_counts().table_bytes == 0);
  }
  while (main.refill(16)) {
  }
  CHECK(main.ready_counts().ready == 2);
}

TEST_CASE_METHOD(PressureFixture,
                 "memory is short when no frame is left and the arena can't grow") {
  CHECK(frame_allocator.ensure_frames());
  const Hog hog;
  CHECK(!frame_allocator.ensure_frames());
  host::set_arena_limit(arena_bytes_for_tests + 16 * kMiB);
  CHECK(frame_allocator.ensure_frames());
}

TEST_CASE_METHOD(PressureFixture, "frames in the caches of vCPUs can be had, but are no surplus") {
  constexpr u32 kVcpus = 8;
  constexpr u32 kInEach = 16;
  Hog hog;
  for (u32 vcpu = 1; vcpu <= kVcpus; ++vcpu) {
    host::set_vcpu(vcpu);
    hog.give_back(kInEach);
  }
  host::set_vcpu(0);
  CHECK(frame_allocator.counts().free == kVcpus * kInEach);
  CHECK(!frame_allocator.ensure_frames());
  const Result<PhysicalAddress> frame = frame_allocator.allocate_kernel(0);
  REQUIRE(frame.is_ok());
  frame_allocator.free_kernel(frame.value(), 0);
}

TEST_CASE_METHOD(PressureFixture, "a run is found in the last of many blocks that are in pieces") {
  Hog hog;
  const PhysicalAddress first = hog.scatter(200 * kFramesPerBlock / 2);
  CHECK(frame_allocator.allocate_kernel(1).is_error());
  hog.give_back(first + kPageSize);
  const Result<PhysicalAddress> run = frame_allocator.allocate_kernel(1);
  REQUIRE(run.is_ok());
  CHECK(run.value() == first);
  CHECK(frame_allocator.allocate_kernel(1).is_error());
  frame_allocator.free_kernel(run.value(), 1);
  frame_allocator.check_invariants();
}

TEST_CASE_METHOD(PressureFixture, "mprotect that finds no memory half-way has changed nothing") {
  map(main, 0, 1024, 0);
  machine.write(main, page(0), 1);
  machine.write(main, page(600), 2);
  REQUIRE(main.protect(page(0), 1024 * kPageSize, PROT_READ).is_ok());
  {
    const Hog hog;
    // The second large page would have to be split.
    CHECK(main.protect(page(0), 600 * kPageSize, PROT_READ | PROT_WRITE).is_error());
    CHECK(!main.tree().find(page(0)).entry.is_writable());
  }
  CHECK(main.protect(page(0), 600 * kPageSize, PROT_READ | PROT_WRITE).is_ok());
  machine.write(main, page(0), 3);
  check_memory_invariants();
}

TEST_CASE_METHOD(PressureFixture, "a pass that finds no memory is over, the next begins anew") {
  map(main, 0, 2 * 512, 0);
  machine.write(main, page(5), 1);
  machine.write(main, page(600), 2);
  AddressSpace& snapshot = machine.take_snapshot(main);
  machine.write(main, page(5), 100);
  machine.write(main, page(600), 200);
  machine.destroy(snapshot);
  {
    const Hog hog;
    CHECK(!main.reassemble(8));
  }
  while (main.reassemble(8)) {
  }
  CHECK(main.statistics().reassembled_pages == 2);
}

TEST_CASE("main is slowed the more, the further the limit is passed") {
  constexpr u64 kMs = 1'000'000;
  CHECK(copy_delay_ns(kGiB, kGiB, 1) == 0);
  CHECK(copy_delay_ns(kGiB + kPageSize, kGiB, 1) == kMs);
  CHECK(copy_delay_ns(kGiB + kPageSize, kGiB, 16) == 16 * kMs);
  CHECK(copy_delay_ns(kGiB + kGiB / 10, kGiB, 1) / kMs == 40);
  CHECK(copy_delay_ns(2 * kGiB, kGiB, 1) == 200 * kMs);
  CHECK(copy_delay_ns(100 * kGiB, kGiB, 1) == 200 * kMs);
  CHECK(copy_delay_ns(100 * kGiB, kGiB, 512) == 2000 * kMs);
  CHECK(copy_delay_ns(kGiB, 0, 1) == 0);
  for (u64 kept = kGiB; kept < 3 * kGiB; kept += 16 * kMiB) {
    CHECK(copy_delay_ns(kept, kGiB, 3) <= copy_delay_ns(kept + 16 * kMiB, kGiB, 3));
  }
}

}  // namespace dbos::test
