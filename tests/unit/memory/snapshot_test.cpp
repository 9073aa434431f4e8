// Snapshots: who shares what, who copies, and when memory comes back.

#include <algorithm>
#include <catch2/catch.hpp>

#include "tests/unit/memory/snapshot_fixture.h"

namespace dbos::test {
TEST_CASE_METHOD(SnapshotFixture, "a snapshot takes one node, whatever the heap") {
  map(main, 0, 4096);
  fill(main, 0, 4096, 1);
  const u64 nodes_before = nodes();
  AddressSpace& snapshot = machine.take_snapshot(main);
  // A ready copy has a table for each 2 MiB, which 0x1000'0000 and 16 MiB begin and end at.
  CHECK(nodes() == nodes_before + (uses_ready_tables() ? 3 + 8 : 1));
  CHECK(pages() == 4096);
  CHECK(machine.shootdowns() == 1);
  CHECK(snapshot.statistics().resident_anonymous_bytes == 4096 * kPageSize);
}

TEST_CASE_METHOD(SnapshotFixture, "the writer gets the new page, the snapshot keeps the old one") {
  map(main, 0, 8);
  fill(main, 0, 8, 1);
  const PhysicalAddress before = frame_of(main, 3);
  AddressSpace& snapshot = machine.take_snapshot(main);
  machine.write(main, page(3), 100);
  CHECK(frame_of(snapshot, 3) == before);
  CHECK(frame_of(main, 3) != before);
  CHECK(frame_info(before).state() == FrameState::kRetired);
  CHECK(snapshot.statistics().retired_bytes == kPageSize);
  CHECK(pages() == 9);
  machine.destroy(snapshot);
  CHECK(pages() == 8);
}

// machine.h looks at each shootdown: a third thread would write to the new page, and the second go
// on reading the old one.
TEST_CASE("a page is written by nobody before all have forgotten the one in its place") {
  Machine machine(2);
  AddressSpace& space = machine.new_space();
  const u64 length = 4 * kMiB;
  const VirtualAddress at = machine.map(space, length);
  const VirtualAddress large(align_up(at.value(), kLargePageSize));
  const bool is_small = GENERATE(true, false);
  if (is_small) REQUIRE(space.advise(at, length, MADV_NOHUGEPAGE).is_ok());
  const u64 before = machine.shootdowns();
  host::set_vcpu(1);
  CHECK(machine.read(space, large) == 0);
  host::set_vcpu(0);
  machine.write(space, large, 1);  // in the place of the page of zeroes
  host::set_vcpu(1);
  CHECK(machine.read(space, large) == 1);
  host::set_vcpu(0);
  AddressSpace& snapshot = machine.take_snapshot(space);
  host::set_vcpu(1);
  CHECK(machine.read(space, large) == 1);
  host::set_vcpu(0);
  machine.write(space, large, 2);  // in the place of the snapshot's page
  host::set_vcpu(1);
  CHECK(machine.read(space, large) == 2);
  CHECK(machine.shootdowns() >= before + 3);
  host::set_vcpu(0);
  machine.destroy(snapshot);
}

TEST_CASE_METHOD(SnapshotFixture, "what a snapshot costs can be asked of it") {
  map(main, 0, 1024);
  fill(main, 0, 1024, 1);
  CHECK(main.line().departure() == 0);
  AddressSpace& snapshot = machine.take_snapshot(main);
  CHECK(snapshot.line().departure() == current_epoch() - 1);
  CHECK(snapshot.statistics().copied_pages == 0);
  const u64 tables = snapshot.statistics().table_bytes;
  fill_apart(main, 0, 10, 100);
  fill_apart(snapshot, 600, 3, 100);
  const SpaceStatistics cost = snapshot.statistics();
  CHECK(cost.retired_bytes == 10 * kPageSize);
  CHECK(cost.copied_pages == 3);
  // Main cloned what led to its pages, and the snapshot what leads to its own.
  CHECK(snapshot.line().retired_nodes() == (uses_ready_tables() ? 0 : 3));
  CHECK(cost.table_bytes == tables + (uses_ready_tables() ? 0 : 3 * kPageSize));
  CHECK(main.statistics().copied_pages == 10);
  CHECK(frame_allocator.counts().retired_pages == 10);
  // Its own writes made the snapshot's copy; what the parent left to it stays until it ends.
  machine.destroy(snapshot);
  CHECK(frame_allocator.counts().retired_pages == 0);
}

TEST_CASE_METHOD(SnapshotFixture, "what became exclusive again is written in place") {
  map(main, 0, 512);
  fill(main, 0, 512, 1);
  AddressSpace& snapshot = machine.take_snapshot(main);
  machine.write(main, page(0), 100);
  machine.destroy(snapshot);
  std::vector<PhysicalAddress> frames;
  for (u64 i = 0; i < 512; ++i) frames.push_back(frame_of(main, i));
  fill(main, 0, 512, 1000);
  for (u64 i = 0; i < 512; ++i) CHECK(frame_of(main, i) == frames[i]);
  CHECK(pages() == 512);
  check_memory_invariants();
}

TEST_CASE_METHOD(SnapshotFixture,
                 "a node nobody cloned is writable at once when its snapshot is gone") {
  map(main, 0, 512);
  fill(main, 0, 512, 1);
  machine.destroy(machine.take_snapshot(main));
  const u64 before = machine.faults();
  fill(main, 0, 512, 1000);
  CHECK(machine.faults() == before + 1);
}

TEST_CASE_METHOD(SnapshotFixture,
                 "when the last snapshot is gone one fault gives a whole table back") {
  map(main, 0, 512);
  fill(main, 0, 512, 1);
  CHECK(main.protect(page(100), kPageSize, PROT_READ).is_ok());
  AddressSpace& snapshot = machine.take_snapshot(main);
  machine.write(main, page(0), 100);
  machine.write(main, page(200), 100);
  machine.destroy(snapshot);
  const u64 before = machine.faults();
  fill(main, 101, 411, 1000);
  CHECK(machine.faults() == before + 1);
  fill(main, 0, 100, 1000);  // another vma
  CHECK(machine.faults() == before + 2);
  CHECK(main.handle_fault(page(100), Access::kWrite) == FaultKind::kNoAccess);
  check_memory_invariants();
}

TEST_CASE_METHOD(SnapshotFixture, "retired pages are freed exactly when no snapshot sees them") {
  // Every order in which four snapshots can end.
  std::vector<int> order = {0, 1, 2, 3};
  do {
    AddressSpace& space = machine.new_space();
    const u64 before = pages();
    map(space, 0, 10);
    fill(space, 0, 10, 1);
    std::vector<AddressSpace*> snapshots;
    for (u64 i = 0; i < 4; ++i) {
      snapshots.push_back(&machine.take_snapshot(space));
      // Page 2(i+1) has another version for each of the snapshots after this one.
      fill_apart(space, 2, i + 1, 100 * (i + 1));
    }
    // Versions of page 2p: one born before the snapshots, one after each of snapshots p-1..3.
    CHECK(pages() - before == 10 + 4 + 3 + 2 + 1);
    std::set<int> alive = {0, 1, 2, 3};
    for (int end : order) {
      machine.destroy(*snapshots[static_cast<size_t>(end)]);
      alive.erase(end);
      u64 expected = 10;
      for (int p = 1; p <= 4; ++p) {
        // Version k of page 2p (k = p-1..3 numbers the write that ended it) lives in (k-1, k].
        for (int k = p - 1; k < 4; ++k) {
          const int from = k == p - 1 ? 0 : k;
          expected += std::any_of(alive.begin(), alive.end(),
                                  [&](int each) { return each >= from && each <= k; });
        }
      }
      CHECK(pages() - before == expected);
      check_memory_invariants();
    }
    machine.destroy(space);
    CHECK(pages() == before);
  } while (std::next_permutation(order.begin(), order.end()));
}

TEST_CASE_METHOD(SnapshotFixture, "a family of three generations may end in any order") {
  std::vector<int> order = {0, 1, 2, 3};
  do {
    AddressSpace& parent = machine.new_space();
    const u64 before = pages();
    map(parent, 0, 8);
    fill(parent, 0, 8, 1);
    AddressSpace& child = machine.take_snapshot(parent);
    fill(child, 0, 2, 100);
    AddressSpace& grandchild = machine.take_snapshot(child);
    AddressSpace& second = machine.take_snapshot(parent);
    fill(parent, 0, 8, 200);
    fill(child, 1, 2, 300);
    fill(grandchild, 0, 1, 400);
    fill(second, 7, 1, 500);
    AddressSpace* family[] = {&parent, &child, &grandchild, &second};
    std::set<int> alive = {0, 1, 2, 3};
    for (int end : order) {
      for (int each : alive) {
        AddressSpace& space = *family[each];
        if (each == 0) CHECK(machine.read(space, page(7)) == 207);
        if (each == 1) {
          CHECK(machine.read(space, page(0)) == 100);
          CHECK(machine.read(space, page(1)) == 300);
          CHECK(machine.read(space, page(7)) == 8);
        }
        if (each == 2) {
          CHECK(machine.read(space, page(0)) == 400);
          CHECK(machine.read(space, page(1)) == 101);
          CHECK(machine.read(space, page(2)) == 3);
        }
        if (each == 3) {
          CHECK(machine.read(space, page(0)) == 1);
          CHECK(machine.read(space, page(7)) == 500);
        }
      }
      machine.destroy(*family[end]);
      alive.erase(end);
      check_memory_invariants();
    }
    CHECK(pages() == before);
  } while (std::next_permutation(order.begin(), order.end()));
  CHECK(lines() == 1);
}

TEST_CASE_METHOD(SnapshotFixture,
                 "a snapshot whose parent has ended owns what is left, and writes it in place") {
  map(main, 0, 512);
  map(main, 512, 1024, 0);
  fill(main, 0, 512, 1);
  machine.write(main, page(600), 7);
  machine.write(main, page(1100), 8);
  AddressSpace& child = machine.take_snapshot(main);
  machine.write(main, page(1100), 9);   // splits one large page in main ...
  machine.write(child, page(600), 10);  // ... and one in the child
  machine.write(main, page(3), 11);
  machine.write(child, page(4), 12);
  machine.destroy(main);
  const PhysicalAddress before = frame_of(child, 5);
  fill(child, 5, 1, 13);
  CHECK(frame_of(child, 5) == before);
  CHECK(pages() == 512 + 1024);
  CHECK(frame_allocator.counts().retired_pages == 0);
  CHECK(lines() == 1);
  CHECK(machine.read(child, page(3)) == 4);
  CHECK(machine.read(child, page(4)) == 12);
  CHECK(machine.read(child, page(600)) == 10);
  CHECK(machine.read(child, page(1100)) == 8);
  check_memory_invariants();
}

TEST_CASE_METHOD(SnapshotFixture, "generations that fork and end leave nothing behind") {
  AddressSpace* space = &main;
  map(main, 0, 600);
  fill(main, 0, 600, 1);
  for (u64 generation = 0; generation < 50; ++generation) {
    AddressSpace& child = machine.take_snapshot(*space);
    fill(*space, 100, 100, 1000);
    machine.destroy(*space);
    fill(child, generation, 300, 5000 + generation);
    space = &child;
    check_memory_invariants();
  }
  CHECK(pages() == 600);
  CHECK(lines() == 1);
}

TEST_CASE_METHOD(SnapshotFixture, "a page that was born after a snapshot is freed at once") {
  map(main, 0, 8);
  machine.take_snapshot(main);
  fill(main, 0, 8, 1);
  CHECK(pages() == 8);
  CHECK(main.unmap(page(0), 8 * kPageSize).is_ok());
  CHECK(pages() == 0);
}

TEST_CASE_METHOD(SnapshotFixture,
                 "unmapping what a snapshot sees keeps it, and gives it back with it") {
  map(main, 0, 1024);
  fill(main, 0, 1024, 1);
  AddressSpace& snapshot = machine.take_snapshot(main);
  CHECK(main.unmap(page(0), 1024 * kPageSize).is_ok());
  CHECK(frame_allocator.counts().retired_pages == 1024);
  CHECK(machine.read(snapshot, page(1000)) == 1001);
  machine.destroy(snapshot);
  CHECK(pages() == 0);
}

TEST_CASE_METHOD(SnapshotFixture,
                 "a large page is shared, then split by the first write, copying 4 KiB") {
  map(main, 0, 1024, 0);
  machine.write(main, page(5), 1);
  machine.write(main, page(600), 2);
  AddressSpace& snapshot = machine.take_snapshot(main);
  machine.write(main, page(5), 100);
  CHECK(pages() == 1024 + 1);
  CHECK(machine.read(snapshot, page(5)) == 1);
  machine.write(snapshot, page(600), 200);
  CHECK(pages() == 1024 + 2);
  CHECK(machine.read(main, page(600)) == 2);
  check_memory_invariants();
  // The one that is still whole in main is retired whole.
  CHECK(main.unmap(page(512), 512 * kPageSize).is_ok());
  CHECK(machine.read(snapshot, page(601)) == 0);
  CHECK(machine.read(snapshot, page(600)) == 200);
  machine.destroy(snapshot);
  CHECK(pages() == 512);
  check_memory_invariants();
}

TEST_CASE_METHOD(SnapshotFixture, "a large page that a write has split is put together again") {
  map(main, 0, 2 * 512, 0);
  machine.write(main, page(5), 1);
  machine.write(main, page(600), 2);
  AddressSpace& snapshot = machine.take_snapshot(main);
  machine.write(main, page(5), 100);
  const auto put_together = [&] {
    while (main.reassemble(1)) {
    }
  };
  put_together();
  CHECK(main.statistics().reassembled_pages == 0);  // the snapshot sees most of its pages
  machine.destroy(snapshot);
  // A second processor remembers the pages where they are now.
  host::set_vcpu(1);
  CHECK(machine.read(main, page(5)) == 100);
  CHECK(machine.read(main, page(6)) == 0);
  host::set_vcpu(0);
  put_together();
  CHECK(main.statistics().reassembled_pages == 1);
  CHECK(main.usage({page(0), page(1024)}).large == 1024);
  CHECK(pages() == 1024);
  machine.write(main, page(6), 7);
  host::set_vcpu(1);
  CHECK(machine.read(main, page(5)) == 100);
  CHECK(machine.read(main, page(6)) == 7);
  host::set_vcpu(0);
  check_memory_invariants();
}

TEST_CASE_METHOD(SnapshotFixture,
                 "a large page that was split and not copied is put together in place") {
  map(main, 0, 512, 0);
  machine.write(main, page(5), 1);
  const PhysicalAddress before = frame_of(main, 0);
  CHECK(main.protect(page(7), kPageSize, PROT_READ).is_ok());
  while (main.reassemble(8)) {
  }
  CHECK(main.statistics().reassembled_pages == 0);  // two mappings share it
  CHECK(main.protect(page(7), kPageSize, PROT_READ | PROT_WRITE).is_ok());
  while (main.reassemble(8)) {
  }
  CHECK(main.statistics().reassembled_pages == 1);
  CHECK(frame_of(main, 0) == before);
  CHECK(main.usage({page(0), page(512)}).large == 512);
  machine.write(main, page(7), 3);
  CHECK(machine.read(main, page(5)) == 1);
}

TEST_CASE_METHOD(SnapshotFixture,
                 "pages that a host call uses, or of small-page memory, stay where they are") {
  map(main, 0, 512, 0);
  machine.write(main, page(5), 1);
  AddressSpace& snapshot = machine.take_snapshot(main);
  machine.write(main, page(5), 2);
  machine.destroy(snapshot);
  HostSegment segments[4];
  main.resolve_for_host(page(9), kPageSize, Access::kRead, segments, 4);
  while (main.reassemble(8)) {
  }
  CHECK(main.statistics().reassembled_pages == 0);
  main.unpin();
  CHECK(main.advise(page(0), 512 * kPageSize, MADV_NOHUGEPAGE).is_ok());
  while (main.reassemble(8)) {
  }
  CHECK(main.statistics().reassembled_pages == 0);
}

TEST_CASE_METHOD(SnapshotFixture, "MADV_DONTFORK and MADV_WIPEONFORK") {
  map(main, 0, 16);
  fill(main, 0, 16, 1);
  CHECK(main.advise(page(4), 4 * kPageSize, MADV_DONTFORK).is_ok());
  CHECK(main.advise(page(8), 4 * kPageSize, MADV_WIPEONFORK).is_ok());
  AddressSpace& snapshot = machine.take_snapshot(main);
  CHECK(machine.read(snapshot, page(3)) == 4);
  CHECK(snapshot.handle_fault(page(4), Access::kRead) == FaultKind::kNoMapping);
  CHECK(machine.read(snapshot, page(8)) == 0);
  CHECK(machine.read(snapshot, page(12)) == 13);
  CHECK(machine.read(main, page(4)) == 5);
  CHECK(machine.read(main, page(8)) == 9);
  CHECK(snapshot.statistics().virtual_bytes == 12 * kPageSize);
  check_memory_invariants();
}

TEST_CASE_METHOD(SnapshotFixture, "mprotect that only adds rights leaves shared nodes alone") {
  map(main, 0, 512);
  fill(main, 0, 512, 1);
  CHECK(main.protect(page(0), 512 * kPageSize, PROT_READ).is_ok());
  AddressSpace& snapshot = machine.take_snapshot(main);
  const u64 before = nodes();
  CHECK(main.protect(page(0), 512 * kPageSize, PROT_READ | PROT_WRITE).is_ok());
  CHECK(nodes() == before);
  machine.write(main, page(3), 100);
  CHECK(machine.read(snapshot, page(3)) == 4);
  CHECK(snapshot.handle_fault(page(3), Access::kWrite) == FaultKind::kNoAccess);
  check_memory_invariants();
}

// A stale paging-structure cache: the second processor remembers a table that the first one clones,
// and that is freed with the snapshot.
TEST_CASE_METHOD(SnapshotFixture, "a table that was cloned is forgotten before it can be freed") {
  map(main, 0, 512);
  fill(main, 0, 256, 1);
  AddressSpace& snapshot = machine.take_snapshot(main);
  host::set_vcpu(1);
  CHECK(machine.read(main, page(7)) == 8);
  host::set_vcpu(0);
  machine.write(main, page(300), 1);  // clones the table, and replaces no page
  machine.destroy(snapshot);
  host::set_vcpu(1);
  CHECK(machine.read(main, page(8)) == 9);
  host::set_vcpu(0);
}

TEST_CASE_METHOD(SnapshotFixture,
                 "a table that munmap cloned is forgotten before it can be freed") {
  map(main, 0, 512);
  fill(main, 0, 256, 1);
  AddressSpace& snapshot = machine.take_snapshot(main);
  host::set_vcpu(1);
  CHECK(machine.read(main, page(7)) == 8);
  host::set_vcpu(0);
  CHECK(main.unmap(page(300), kPageSize).is_ok());
  machine.destroy(snapshot);
  host::set_vcpu(1);
  CHECK(machine.read(main, page(8)) == 9);
  host::set_vcpu(0);
}

TEST_CASE_METHOD(SnapshotFixture,
                 "a table that mprotect cloned is forgotten before it can be freed") {
  map(main, 0, 512);
  fill(main, 0, 256, 1);
  AddressSpace& snapshot = machine.take_snapshot(main);
  host::set_vcpu(1);
  CHECK(machine.read(main, page(7)) == 8);
  host::set_vcpu(0);
  CHECK(main.protect(page(300), kPageSize, PROT_READ).is_ok());
  machine.destroy(snapshot);
  host::set_vcpu(1);
  CHECK(machine.read(main, page(8)) == 9);
  host::set_vcpu(0);
}

TEST_CASE_METHOD(SnapshotFixture,
                 "a processor that read the zero page sees what another one writes") {
  map(main, 0, 512, 0);
  map(main, 512, 4);
  for (u64 index : {u64{9}, u64{513}}) {
    host::set_vcpu(1);
    CHECK(machine.read(main, page(index)) == 0);
    host::set_vcpu(0);
    machine.write(main, page(index), 5);
    host::set_vcpu(1);
    CHECK(machine.read(main, page(index)) == 5);
    host::set_vcpu(0);
  }
}

TEST_CASE_METHOD(SnapshotFixture, "a processor sees what another one writes after a snapshot") {
  map(main, 0, 8);
  fill(main, 0, 8, 1);
  machine.take_snapshot(main);
  host::set_vcpu(1);
  CHECK(machine.read(main, page(3)) == 4);
  host::set_vcpu(0);
  machine.write(main, page(3), 100);
  host::set_vcpu(1);
  CHECK(machine.read(main, page(3)) == 100);
  host::set_vcpu(0);
}

}  // namespace dbos::test
