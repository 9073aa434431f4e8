// Ready copies of page tables: that they are in step when they are handed over, and whose they are.

#include <catch2/catch.hpp>
#include <functional>

#include "tests/unit/memory/snapshot_fixture.h"

namespace dbos::test {
namespace {

struct ReadyFixture : SnapshotFixture {
  ReadyFixture() { Machine::prepare(main); }

  // Asks for no new copy first: what is there must be good.
  AddressSpace& take(AddressSpace& of) { return machine.adopt(of.snapshot()); }
  u64 copied_tables() { return main.ready_counts().table_bytes / kPageSize; }
};

}  // namespace

TEST_CASE_METHOD(ReadyFixture, "a ready snapshot and its parent clone no tables for each other") {
  map(main, 0, 1024);
  fill(main, 0, 1024, 1);
  Machine::prepare(main);
  AddressSpace& snapshot = take(main);
  CHECK(main.ready_counts().handed_over == 1);
  const u64 before = nodes();
  fill(main, 0, 1024, 5000);
  fill(snapshot, 0, 1024, 9000);
  CHECK(nodes() == before);
  CHECK(pages() == 2 * 1024 + 1024);  // the first version is retired
  CHECK(machine.read(main, page(700)) == 5700);
  CHECK(machine.read(snapshot, page(700)) == 9700);
  check_memory_invariants();
  machine.destroy(snapshot);
  CHECK(pages() == 1024);
}

TEST_CASE_METHOD(ReadyFixture, "a request that finds no copy shares the tables, and is counted") {
  map(main, 0, 8);
  fill(main, 0, 8, 1);
  AddressSpace& first = take(main);
  AddressSpace& second = take(main);
  CHECK(main.ready_counts().handed_over == 1);
  CHECK(main.ready_counts().missed == 1);
  fill(main, 0, 8, 100);
  CHECK(machine.read(first, page(3)) == 4);
  CHECK(machine.read(second, page(3)) == 4);
  check_memory_invariants();
}

TEST_CASE_METHOD(ReadyFixture, "ready and shared snapshots may end in any order") {
  std::vector<int> order = {0, 1, 2, 3};
  do {
    map(main, 0, 600);
    fill(main, 0, 600, 1);
    const u64 before = pages();
    const u64 nodes_before = nodes();
    std::vector<AddressSpace*> snapshots;
    for (u64 i = 0; i < 4; ++i) {
      if (i % 2 == 0) Machine::prepare(main);
      snapshots.push_back(&take(main));
      fill(main, 10 * i, 30, 1000 * (i + 1));
      fill(*snapshots.back(), 590, 5, 77);
    }
    CHECK(main.ready_counts().missed >= 2);
    for (int end : order) {
      CHECK(machine.read(*snapshots[0], page(5)) == 6);
      CHECK(machine.read(main, page(30)) == 4000);
      if (end != 0) machine.destroy(*snapshots[static_cast<size_t>(end)]);
      check_memory_invariants();
    }
    machine.destroy(*snapshots[0]);
    CHECK(pages() == before);
    CHECK(nodes() == nodes_before);
  } while (std::next_permutation(order.begin(), order.end()));
}

TEST_CASE_METHOD(ReadyFixture, "whatever main changed after a copy was made is in the copy") {
  using Change = std::function<void()>;
  const u64 large = 4 * 512;  // a page number: 2 MiB pages begin there
  map(main, 0, 1200);
  fill(main, 0, 1200, 1);
  map(main, large, 2 * 512, 0);
  machine.write(main, page(large), 50);
  const std::vector<std::pair<const char*, Change>> changes = {
      {"a first write", [&] { map(main, 2000, 1), machine.write(main, page(2000), 1); }},
      {"a first read", [&] { map(main, 2001, 1), machine.read(main, page(2001)); }},
      {"a first write to a large page", [&] { machine.write(main, page(large + 512), 2); }},
      {"munmap of some pages", [&] { CHECK(main.unmap(page(3), 5 * kPageSize).is_ok()); }},
      {"munmap of tables", [&] { CHECK(main.unmap(page(300), 700 * kPageSize).is_ok()); }},
      {"MADV_DONTNEED",
       [&] { CHECK(main.advise(page(100), 30 * kPageSize, MADV_DONTNEED).is_ok()); }},
      {"mprotect", [&] { CHECK(main.protect(page(200), 20 * kPageSize, PROT_NONE).is_ok()); }},
      {"mprotect that splits a large page",
       [&] { CHECK(main.protect(page(large + 7), kPageSize, PROT_READ).is_ok()); }},
      {"mremap",
       [&] {
         CHECK(main.remap(page(1100), 50 * kPageSize, 50 * kPageSize, MREMAP_MAYMOVE | MREMAP_FIXED,
                          page(5000))
                   .is_ok());
       }},
      {"mremap of a large page",
       [&] {
         CHECK(main.remap(page(large + 512), 512 * kPageSize, 512 * kPageSize,
                          MREMAP_MAYMOVE | MREMAP_FIXED, page(8192))
                   .is_ok());
       }},
      {"writes after a snapshot", [&] { fill(main, 20, 40, 3000); }},
  };
  for (const auto& [what, change] : changes) {
    INFO(what);
    Machine::prepare(main);
    change();
    AddressSpace& snapshot = take(main);
    // What the one maps, the other does, and to the same frames.
    for (u64 index = 0; index < 9000; ++index) {
      const Walk here = main.tree().find(page(index));
      const Walk there = snapshot.tree().find(page(index));
      REQUIRE(here.entry.is_empty() == there.entry.is_empty());
      REQUIRE(here.entry.is_present() == there.entry.is_present());
      if (!here.entry.is_empty()) {
        REQUIRE(here.physical(page(index)) == there.physical(page(index)));
      }
      REQUIRE(!there.is_writable());
    }
    check_memory_invariants();
    machine.destroy(snapshot);
  }
  CHECK(main.ready_counts().missed == 0);
}

TEST_CASE_METHOD(ReadyFixture, "a copy in the making is not handed over, and misses nothing") {
  map(main, 0, 20 * 512);
  for (u64 i = 0; i < 20; ++i) machine.write(main, page(i * 512), i);
  take(main);
  CHECK(main.refill(5));
  CHECK(main.ready_counts().ready == 0);
  // Below and above what is made.
  machine.write(main, page(1), 100);
  machine.write(main, page(19 * 512 + 1), 101);
  CHECK(main.unmap(page(2 * 512), 512 * kPageSize).is_ok());
  take(main);
  CHECK(main.ready_counts().missed == 1);
  while (main.refill(5)) {
  }
  check_memory_invariants();
  AddressSpace& snapshot = take(main);
  CHECK(main.ready_counts().handed_over == 2);
  CHECK(machine.read(snapshot, page(1)) == 100);
  CHECK(machine.read(snapshot, page(19 * 512 + 1)) == 101);
  CHECK(machine.read(snapshot, page(7 * 512)) == 7);
  CHECK(snapshot.handle_fault(page(2 * 512), Access::kRead) == FaultKind::kNoMapping);
}

TEST_CASE_METHOD(ReadyFixture, "more changes than can be noted are not lost") {
  const u64 spread = 3 * 512 * 17;
  map(main, 0, 200 * spread);
  for (u64 i = 0; i < 200; ++i) machine.write(main, page(i * spread), i);
  AddressSpace& snapshot = take(main);
  for (u64 i = 0; i < 200; ++i) CHECK(machine.read(snapshot, page(i * spread)) == i);
}

TEST_CASE_METHOD(ReadyFixture, "copies that are not wanted any more give their memory back") {
  map(main, 0, 2000);
  fill(main, 0, 2000, 1);
  CHECK(main.keep_ready(3).is_ok());
  while (main.refill(100)) {
  }
  CHECK(main.ready_counts().ready == 3);
  CHECK(copied_tables() == 3 * (3 + 4));
  CHECK(main.keep_ready(0).is_ok());
  while (main.refill(100)) {
  }
  CHECK(copied_tables() == 0);
  CHECK(line_count() == 1);
  CHECK(main.keep_ready(kReadyCopiesMax + 1).error() == Error(EINVAL));
}

TEST_CASE_METHOD(ReadyFixture, "without memory it is the copy that is given up, not the change") {
  map(main, 0, 4 * 512);
  std::vector<PhysicalAddress> hog;
  while (true) {
    const Result<PhysicalAddress> frame = frame_allocator.allocate_page(Clear::kNo, Ownership{});
    if (frame.is_error()) break;
    hog.push_back(frame.value());
  }
  // Enough for main's page and table, not for the copies' tables.
  for (int i = 0; i < 4; ++i) {
    frame_allocator.free(hog.back());
    hog.pop_back();
  }
  machine.write(main, page(600), 7);
  Result<AddressSpace*> snapshot = main.snapshot();
  CHECK(main.ready_counts().broken == 1);
  CHECK(main.ready_counts().handed_over == 0);
  for (PhysicalAddress frame : hog) frame_allocator.free(frame);
  if (snapshot.is_error()) snapshot = main.snapshot();
  CHECK(machine.read(machine.adopt(snapshot), page(600)) == 7);
  while (main.refill(100)) {
  }
  CHECK(main.ready_counts().ready == 1);
  check_memory_invariants();
}

// Pages 512 and 32 have their notes in the same place, so that the second one's applies the first.
TEST_CASE_METHOD(ReadyFixture,
                 "a copy that is given up may still map what is its own table by now") {
  map(main, 0, 4 * 512);
  machine.write(main, page(0), 1);
  machine.write(main, page(100), 1);
  Machine::prepare(main);
  {
    Hog hog;
    hog.give_back(2);
    machine.write(main, page(512), 7);  // main's table and page: nothing is left
    REQUIRE(main.advise(page(100), kPageSize, MADV_DONTNEED).is_ok());
    machine.write(main, page(32), 2);  // takes what was page 100 for the copy's table
  }
  CHECK(machine.read(main, page(0)) == 1);
  CHECK(machine.read(main, page(100)) == 0);
  CHECK(machine.read(main, page(512)) == 7);
  CHECK(machine.read(main, page(32)) == 2);
  check_memory_invariants();
}

TEST_CASE_METHOD(ReadyFixture, "a ready snapshot whose parent has ended owns what is left") {
  map(main, 0, 600);
  fill(main, 0, 600, 1);
  Machine::prepare(main);
  AddressSpace& child = take(main);
  fill(main, 0, 10, 100);
  fill(child, 5, 10, 200);
  machine.destroy(main);
  const PhysicalAddress before = frame_of(child, 300);
  fill(child, 300, 1, 300);
  CHECK(frame_of(child, 300) == before);
  CHECK(pages() == 600);
  CHECK(line_count() == 1);
  CHECK(frame_allocator.counts().retired_pages == 0);
  // And it goes on as any other does.
  Machine::prepare(child);
  AddressSpace& grandchild = take(child);
  fill(child, 0, 600, 5000);
  CHECK(machine.read(grandchild, page(0)) == 1);
  CHECK(machine.read(grandchild, page(5)) == 200);
  check_memory_invariants();
}

}  // namespace dbos::test
