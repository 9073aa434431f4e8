// Snapshots while host calls are in flight, and when memory runs out.

#include <catch2/catch.hpp>

#include "tests/unit/memory/snapshot_fixture.h"

namespace dbos::test {

// ---- Host calls in flight ----

TEST_CASE_METHOD(SnapshotFixture,
                 "a page that the host writes to stays its owner's, the snapshot copies it") {
  map(main, 0, 8);
  fill(main, 0, 8, 1);
  HostSegment segments[4];
  const ResolveOutcome outcome =
      main.resolve_for_host(page(2), 2 * kPageSize, Access::kWrite, segments, 4);
  CHECK(outcome.bytes == 2 * kPageSize);
  const PhysicalAddress pinned = frame_of(main, 2);
  AddressSpace& snapshot = machine.take_snapshot(main);
  *pointer_to<u64>(pinned) = 77;  // the host
  CHECK(machine.read(main, page(2)) == 77);
  CHECK(machine.read(snapshot, page(2)) == 3);
  machine.write(main, page(2), 78);
  CHECK(frame_of(main, 2) == pinned);
  CHECK(machine.read(snapshot, page(4)) == 5);
  check_memory_invariants();
  main.unpin();
  // A second snapshot while nothing is pinned shares again.
  AddressSpace& second = machine.take_snapshot(main);
  CHECK(frame_of(second, 2) == pinned);
}

TEST_CASE_METHOD(SnapshotFixture,
                 "an inherited page that is unmapped under a host call outlives its owner") {
  map(main, 0, 4);
  fill(main, 0, 4, 1);
  AddressSpace& child = machine.take_snapshot(main);
  HostSegment segments[4];
  child.resolve_for_host(page(2), kPageSize, Access::kRead, segments, 4);
  host::set_vcpu(1);
  child.resolve_for_host(page(3), kPageSize, Access::kRead, segments + 1, 3);
  CHECK(child.unmap(page(2), kPageSize).is_ok());
  machine.destroy(main);
  machine.write(child, page(0), 7);  // adopts what is left
  CHECK(line_count() == 1);
  Machine::check_in_use(segments[0].address);
  CHECK(*pointer_to<u64>(segments[0].address) == 3);
  check_memory_invariants();
  child.unpin(1);
  Machine::check_in_use(segments[0].address);
  child.unpin(0);
  host::set_vcpu(0);
  CHECK(pages() == 3);
}

TEST_CASE_METHOD(SnapshotFixture, "a snapshot copies the pages of many buffers, and none between") {
  constexpr u64 kBuffers = 100;
  map(main, 0, 8 * kBuffers);
  fill(main, 0, 8 * kBuffers, 1);
  const FrameCounts before = frame_allocator.counts();
  for (u64 i = 0; i < kBuffers; ++i) {
    main.pins().add(0, {page(8 * i), page(8 * i + 1)}, Access::kWrite);
  }
  AddressSpace& snapshot = machine.take_snapshot(main);
  CHECK(frame_allocator.counts().pages == before.pages + kBuffers);
  for (u64 i = 0; i < 8 * kBuffers; ++i) {
    CHECK((frame_of(main, i) == frame_of(snapshot, i)) == (i % 8 != 0));
  }
  main.unpin();
  machine.destroy(snapshot);
  CHECK(frame_allocator.counts().kernel == before.kernel);
}

TEST_CASE_METHOD(SnapshotFixture, "many buffers stay apart where memory is in pieces") {
  constexpr u64 kBuffers = 100;
  Hog hog;
  hog.scatter(kBuffers);
  for (u64 i = 0; i < kBuffers; ++i) {
    main.pins().add(0, {page(8 * i), page(8 * i + 1)}, Access::kWrite);
  }
  CHECK(main.pins().overlaps({page(8 * 50), page(8 * 50 + 1)}));
  CHECK(!main.pins().overlaps({page(8 * 50 + 1), page(8 * 51)}));
  main.unpin();
}

TEST_CASE_METHOD(SnapshotFixture, "a snapshot does not walk what is empty in a pinned range") {
  map(main, 0, 8);
  fill(main, 0, 8, 1);
  main.pins().add(0, {VirtualAddress(0), VirtualAddress(kProgramEnd)}, Access::kWrite);
  AddressSpace& snapshot = machine.take_snapshot(main);
  for (u64 i = 0; i < 8; ++i) CHECK(frame_of(main, i) != frame_of(snapshot, i));
  check_memory_invariants();
  main.unpin();
}

TEST_CASE_METHOD(SnapshotFixture, "a pinned piece of a large page splits it") {
  map(main, 0, 512, 0);
  machine.write(main, page(0), 1);
  HostSegment segments[4];
  CHECK(main.resolve_for_host(page(9), 3 * kPageSize, Access::kWrite, segments, 4).segment_count ==
        1);
  AddressSpace& snapshot = machine.take_snapshot(main);
  CHECK(pages() == 512 + 3);
  *pointer_to<u64>(segments[0].address) = 5;
  CHECK(machine.read(main, page(9)) == 5);
  CHECK(machine.read(snapshot, page(9)) == 0);
  check_memory_invariants();
  main.unpin();
}

TEST_CASE_METHOD(SnapshotFixture, "a buffer that moves to and fro is pinned at both places, once") {
  map(main, 0, 2);
  fill(main, 0, 1, 1);
  HostSegment segments[4];
  main.resolve_for_host(page(0), kPageSize, Access::kWrite, segments, 4);
  for (u32 i = 0; i < 16; ++i) {
    const VirtualAddress from = page(i % 2 == 0 ? 0 : 2000);
    const VirtualAddress to = page(i % 2 == 0 ? 2000 : 0);
    CHECK(main.remap(from, kPageSize, kPageSize, MREMAP_MAYMOVE | MREMAP_FIXED, to).is_ok());
  }
  CHECK(pin_slot(0).range_count == 2);
  main.unpin();
}

TEST_CASE_METHOD(SnapshotFixture, "frames that are unmapped under a host call are freed after it") {
  map(main, 0, 4);
  fill(main, 0, 4, 1);
  HostSegment segments[4];
  main.resolve_for_host(page(0), 4 * kPageSize, Access::kRead, segments, 4);
  host::set_vcpu(1);
  main.resolve_for_host(page(1), kPageSize, Access::kWrite, segments, 4);
  host::set_vcpu(2);
  CHECK(main.unmap(page(0), 4 * kPageSize).is_ok());
  CHECK(pages() == 4);
  main.unpin(0);
  CHECK(pages() == 1);
  main.unpin(1);
  CHECK(pages() == 0);
  host::set_vcpu(0);
}

TEST_CASE_METHOD(SnapshotFixture,
                 "a buffer that the program writes after a snapshot is not freed under the host") {
  map(main, 0, 4);
  fill(main, 0, 4, 1);
  AddressSpace& snapshot = machine.take_snapshot(main);
  HostSegment segments[4];
  main.resolve_for_host(page(0), kPageSize, Access::kRead, segments, 4);
  host::set_vcpu(1);
  machine.write(main, page(0), 100);  // moves main's page; the snapshot's is the old one
  machine.destroy(snapshot);
  Machine::check_in_use(segments[0].address);
  CHECK(*pointer_to<u64>(segments[0].address) == 1);
  host::set_vcpu(0);
  main.unpin();
  CHECK(pages() == 4);
}

TEST_CASE_METHOD(SnapshotFixture, "segments: neighbours are merged, the first bad page ends them") {
  map(main, 0, 512, 0);
  map(main, 600, 4);
  CHECK(main.protect(page(602), 2 * kPageSize, PROT_READ).is_ok());
  HostSegment segments[8];
  ResolveOutcome outcome =
      main.resolve_for_host(page(0) + 100, 512 * kPageSize - 100, Access::kWrite, segments, 8);
  CHECK(outcome.segment_count == 1);
  CHECK(segments[0].length == 512 * kPageSize - 100);
  outcome = main.resolve_for_host(page(0), 513 * kPageSize, Access::kWrite, segments, 8);
  CHECK(outcome.kind == FaultKind::kResolved);
  CHECK(outcome.bytes == kResolvedMax);
  outcome = main.resolve_for_host(page(511) + 10, kPageSize, Access::kWrite, segments, 8);
  CHECK(outcome.kind == FaultKind::kNoMapping);
  CHECK(outcome.bytes == kPageSize - 10);
  outcome = main.resolve_for_host(page(600), 4 * kPageSize, Access::kWrite, segments, 8);
  CHECK(outcome.kind == FaultKind::kNoAccess);
  CHECK(outcome.bytes == 2 * kPageSize);
  outcome = main.resolve_for_host(page(600), 4 * kPageSize, Access::kRead, segments, 8);
  CHECK(outcome.kind == FaultKind::kResolved);
  CHECK(outcome.bytes == 4 * kPageSize);
  CHECK(main.resolve_for_host(VirtualAddress(kDirectMapBase), 8, Access::kRead, segments, 8).kind ==
        FaultKind::kNoMapping);
  CHECK(main.resolve_for_host(VirtualAddress(kProgramEnd - 8), ~u64{0}, Access::kRead, segments, 8)
            .bytes == 0);
  CHECK(main.resolve_for_host(page(0), 0, Access::kRead, segments, 8).kind == FaultKind::kResolved);
  main.unpin();
}

TEST_CASE_METHOD(SnapshotFixture, "a snapshot that runs out of memory leaves nothing behind") {
  map(main, 0, 600);
  fill(main, 0, 600, 1);
  main.pins().add(0, {page(0), page(600)}, Access::kWrite);
  Hog hog;
  for (size_t spare = 0; spare < 620; spare += 31) {
    hog.give_back(31);
    const Result<AddressSpace*> result = main.snapshot();
    if (result.is_ok()) {
      AddressSpace::destroy(result.value());
      CHECK(spare > 500);
    } else {
      CHECK(result.error() == Error(ENOMEM));
    }
  }
  hog.give_back(~size_t{0});
  for (u64 i = 0; i < 600; ++i) CHECK(machine.read(main, page(i)) == i + 1);
  main.unpin();
  CHECK(lines() == 1);
}

}  // namespace dbos::test
