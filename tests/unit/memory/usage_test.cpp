// What is told of memory: smaps of pages that snapshots share, faults, peaks.

#include <catch2/catch.hpp>

#include "tests/unit/memory/snapshot_fixture.h"

namespace dbos::test {

TEST_CASE_METHOD(SnapshotFixture, "smaps: what was copied is private, what is shared is not") {
  map(main, 0, 16);
  fill(main, 0, 16, 1);
  CHECK(main.usage({page(0), page(16)}).private_dirty == 16);
  AddressSpace& snapshot = machine.take_snapshot(main);
  CHECK(main.usage({page(0), page(16)}).private_dirty == 0);
  CHECK(main.usage({page(0), page(16)}).shared_dirty == 16);
  fill(main, 0, 5, 100);
  // Both sides have five pages of their own now.
  CHECK(main.usage({page(0), page(16)}).private_dirty == 5);
  CHECK(snapshot.usage({page(0), page(16)}).private_dirty == 5);
  CHECK(snapshot.usage({page(0), page(16)}).shared_dirty == 11);
  machine.destroy(snapshot);
  CHECK(main.usage({page(0), page(16)}).private_dirty == 16);
}

TEST_CASE_METHOD(SnapshotFixture,
                 "smaps: of a large page that one side has split, each page counts") {
  map(main, 0, 1024, 0);
  machine.write(main, page(5), 1);
  machine.write(main, page(600), 2);
  AddressSpace& snapshot = machine.take_snapshot(main);
  const auto private_pages = [&snapshot](u64 first, u64 end) {
    const PageUsage usage = snapshot.usage({page(first), page(end)});
    CHECK(usage.private_clean == 0);
    CHECK(usage.private_dirty + usage.shared_dirty == end - first);
    return usage.private_dirty;
  };
  // Main splits the first one.
  machine.write(main, page(7), 3);
  CHECK(snapshot.usage({page(0), page(512)}).large == 512);
  CHECK(private_pages(0, 512) == 1);
  CHECK(private_pages(7, 8) == 1);
  CHECK(private_pages(8, 512) == 0);
  machine.write(main, page(0), 4);
  CHECK(private_pages(0, 512) == 2);
  // The snapshot splits the second one, which main then unmaps whole.
  machine.write(snapshot, page(600), 5);
  CHECK(private_pages(512, 1024) == 1);
  CHECK(main.unmap(page(512), 512 * kPageSize).is_ok());
  CHECK(private_pages(512, 1024) == 512);
}

TEST_CASE_METHOD(SnapshotFixture,
                 "populating goes by the pages that it finds, and ends with its thread") {
  map(main, 0, 4 * 512, 0);
  CHECK(main.populate(page(3), 700 * kPageSize, Access::kWrite) == FaultKind::kResolved);
  CHECK(main.usage({page(0), page(4 * 512)}).large == 1024);
  CHECK(main.statistics().faults <= 512);  // page by page as far as the first page of 2 MiB
  host::is_dying = true;
  CHECK(main.populate(page(1024), kPageSize, Access::kWrite) == FaultKind::kOutOfMemory);
  host::is_dying = false;
  CHECK(!main.usage({page(1024), page(1025)}).present);
  check_memory_invariants();
}

TEST_CASE_METHOD(SnapshotFixture, "the peak of what is mapped does not count twice what moves") {
  map(main, 0, 100);
  CHECK(main.remap(page(0), 100 * kPageSize, 100 * kPageSize, MREMAP_MAYMOVE | MREMAP_FIXED,
                   page(200))
            .is_ok());
  CHECK(main.statistics().virtual_bytes_peak == 100 * kPageSize);
  CHECK(main.remap(page(200), 100 * kPageSize, 120 * kPageSize, MREMAP_MAYMOVE | MREMAP_FIXED,
                   page(400))
            .is_ok());
  CHECK(main.statistics().virtual_bytes_peak == 120 * kPageSize);
}

}  // namespace dbos::test
