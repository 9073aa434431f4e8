// Whoever writes one page after the other while a snapshot lives gets copies of several at once.

#include <catch2/catch.hpp>

#include "tests/unit/memory/snapshot_fixture.h"

namespace dbos::test {
namespace {

// Pages of a 2 MiB table's 64 KiB pieces.
constexpr u64 kPiece = ReadyTables::kPieceSize / kPageSize;
constexpr u64 kTable = kLargePageSize / kPageSize;

struct CopyRuns : SnapshotFixture {
  void check_values(AddressSpace& space, u64 first, u64 count, u64 value) {
    for (u64 i = 0; i < count; ++i) REQUIRE(machine.read(space, page(first + i)) == value + i);
  }
  u64 copied(AddressSpace& space) { return space.statistics().copied_pages; }
};

}  // namespace

TEST_CASE_METHOD(CopyRuns, "one page after the other takes a fault for each 64 KiB") {
  map(main, 0, 2 * kTable);
  fill(main, 0, 2 * kTable, 1);
  AddressSpace& snapshot = machine.take_snapshot(main);
  // Another processor has read what is there, and must forget it before anything is written.
  host::set_vcpu(1);
  check_values(main, 0, 2 * kTable, 1);
  host::set_vcpu(0);
  const u64 faults = machine.faults();
  const u64 shootdowns = machine.shootdowns();
  fill(main, 0, 2 * kTable, 10'000);
  // Of each table's first piece: 0, 1, 2 (with 3 and 4), 5 (to 10), 11 (to 15).
  const u64 expected = 2 * (5 + kTable / kPiece - 1);
  CHECK(machine.faults() == faults + expected);
  CHECK(machine.shootdowns() == shootdowns + expected);
  CHECK(copied(main) == 2 * kTable);
  check_values(snapshot, 0, 2 * kTable, 1);
  check_values(main, 0, 2 * kTable, 10'000);
  host::set_vcpu(1);
  check_values(main, 0, 2 * kTable, 10'000);
  host::set_vcpu(0);
  check_memory_invariants();
}

TEST_CASE_METHOD(CopyRuns, "here and there takes one page each") {
  map(main, 0, kTable);
  fill(main, 0, kTable, 1);
  AddressSpace& snapshot = machine.take_snapshot(main);
  // Pairs: the larger object that two pages are.
  u64 written = 0;
  for (u64 i = 0; i + 1 < kTable; i += 3, written += 2) fill(main, i, 2, 10'000 + i);
  CHECK(copied(main) == written);
  CHECK(snapshot.statistics().retired_bytes == written * kPageSize);
}

TEST_CASE_METHOD(CopyRuns, "no more is copied in vain than was written before") {
  map(main, 0, kTable);
  fill(main, 0, kTable, 1);
  AddressSpace& snapshot = machine.take_snapshot(main);
  fill(main, 0, 3, 10'000);
  CHECK(copied(main) == 5);
  // Nobody has written 3 and 4, so what ends with them is no run, also where they were read.
  if (GENERATE(false, true)) check_values(main, 3, 2, 4);
  fill(main, 5, 1, 10'005);
  CHECK(copied(main) == 6);
  CHECK(machine.read(main, page(4)) == 5);
  check_values(snapshot, 0, 16, 1);
  const PageUsage usage = main.usage({page(0), page(16)});
  CHECK(usage.private_dirty == 6);
  CHECK(usage.dirty == 16);
  check_memory_invariants();
}

TEST_CASE_METHOD(CopyRuns, "a buffer that the host writes is a run") {
  map(main, 0, kTable);
  fill(main, 0, kTable, 1);
  AddressSpace& snapshot = machine.take_snapshot(main);
  const u64 shootdowns = machine.shootdowns();
  std::vector<HostSegment> segments(64);
  const ResolveOutcome written =
      main.resolve_for_host(page(0), 64 * kPageSize, Access::kWrite, segments.data(), 64);
  main.unpin();
  CHECK(written.bytes == 64 * kPageSize);
  CHECK(written.copied_pages == 64);
  CHECK(copied(main) == 64);
  CHECK(machine.shootdowns() == shootdowns + 5 + 3);
  check_values(snapshot, 0, 64, 1);
}

TEST_CASE_METHOD(CopyRuns, "a snapshot that writes one page after the other does the same") {
  map(main, 0, kTable);
  fill(main, 0, kTable, 1);
  AddressSpace& snapshot = machine.take_snapshot(main);
  const u64 faults = machine.faults();
  fill(snapshot, 0, kTable, 10'000);
  CHECK(machine.faults() == faults + 5 + kTable / kPiece - 1);
  CHECK(snapshot.statistics().copied_pages == kTable);
  CHECK(snapshot.statistics().retired_bytes == 0);
  check_values(main, 0, kTable, 1);
}

TEST_CASE_METHOD(CopyRuns, "a run ends where the mapping does, or its pages are of another kind") {
  map(main, 0, kTable);
  fill(main, 0, 32, 1);
  AddressSpace* snapshot = nullptr;
  SECTION("another mapping") {
    CHECK(main.protect(page(6), kPageSize, PROT_READ).is_ok());
    snapshot = &machine.take_snapshot(main);
    fill(main, 0, 6, 10'000);
    CHECK(copied(main) == 6);
  }
  SECTION("what was never written") {
    CHECK(main.advise(page(6), kPageSize, MADV_DONTNEED).is_ok());
    CHECK(machine.read(main, page(6)) == 0);
    snapshot = &machine.take_snapshot(main);
    fill(main, 0, 6, 10'000);
    CHECK(copied(main) == 6);
  }
  SECTION("what is younger than the snapshot") {
    CHECK(main.advise(page(6), kPageSize, MADV_DONTNEED).is_ok());
    snapshot = &machine.take_snapshot(main);
    machine.write(main, page(6), 7);
    fill(main, 0, 6, 10'000);
    CHECK(copied(main) == 6);
  }
  check_values(*snapshot, 0, 6, 1);
  check_values(main, 0, 6, 10'000);
  check_memory_invariants();
}

// The table still says that nobody may touch them: that is left to the fault handler.
TEST_CASE_METHOD(CopyRuns, "pages whose rights were given lately are copied one by one") {
  map(main, 0, kTable);
  fill(main, 0, 32, 1);
  CHECK(main.protect(page(0), 32 * kPageSize, PROT_NONE).is_ok());
  AddressSpace& snapshot = machine.take_snapshot(main);
  CHECK(main.protect(page(0), 32 * kPageSize, PROT_READ | PROT_WRITE).is_ok());
  const u64 faults = machine.faults();
  fill(main, 0, 16, 10'000);
  CHECK(machine.faults() == faults + 16);
  std::vector<HostSegment> segments(16);
  const ResolveOutcome written =
      main.resolve_for_host(page(16), 16 * kPageSize, Access::kWrite, segments.data(), 16);
  main.unpin();
  CHECK(written.bytes == 16 * kPageSize);
  CHECK(copied(main) == 32);
  check_values(main, 0, 16, 10'000);
  CHECK(snapshot.statistics().retired_bytes == 32 * kPageSize);
}

TEST_CASE_METHOD(CopyRuns, "a run ends before what a host call writes") {
  map(main, 0, kTable);
  fill(main, 0, kTable, 1);
  HostSegment segments[2];
  const ResolveOutcome written =
      main.resolve_for_host(page(3), 2 * kPageSize, Access::kWrite, segments, 2);
  REQUIRE(written.bytes == 2 * kPageSize);
  AddressSpace& snapshot = machine.take_snapshot(main);
  fill(main, 0, 3, 10'000);
  CHECK(copied(main) == 3);
  *pointer_to<u64>(segments[0].address) = 77;  // the host's
  main.unpin();
  CHECK(machine.read(main, page(3)) == 77);
  CHECK(machine.read(snapshot, page(3)) == 4);
  check_memory_invariants();
}

TEST_CASE_METHOD(CopyRuns, "a run ends before pages of a file, and is not begun by them") {
  const bool is_shared = GENERATE(false, true);
  map_file(main, is_shared ? 16 : 0, 16, is_shared);
  if (is_shared) map(main, 32, 16);
  const u64 first = is_shared ? 32 : 0;
  fill(main, first, is_shared ? 16 : 5, 1);
  if (!is_shared) machine.read(main, page(5));
  machine.take_snapshot(main);
  if (is_shared) {
    fill(main, 29, 3, 5);  // the file's last ones
    fill(main, 32, 1, 7);
    CHECK(copied(main) == 1);
  } else {
    const u64 before = copied(main);
    fill(main, 0, 5, 7);
    CHECK(copied(main) == before + 5);
  }
  check_memory_invariants();
}

TEST_CASE_METHOD(CopyRuns, "a large page that was split is copied in runs") {
  map(main, 0, 2 * kTable, 0);
  fill(main, 0, 2 * kTable, 1);
  REQUIRE(main.usage({page(0), page(2 * kTable)}).large == 2 * kTable);
  AddressSpace& snapshot = machine.take_snapshot(main);
  AddressSpace& writer = GENERATE(false, true) ? snapshot : main;
  AddressSpace& other = &writer == &main ? snapshot : main;
  const u64 before = copied(writer);
  fill(writer, 0, 2 * kTable, 10'000);
  CHECK(copied(writer) == before + 2 * kTable);
  check_values(other, 0, 2 * kTable, 1);
  check_memory_invariants();
  machine.destroy(snapshot);
  check_memory_invariants();
}

TEST_CASE_METHOD(CopyRuns, "ready copies follow a run") {
  map(main, 0, kTable);
  fill(main, 0, kTable, 1);
  AddressSpace& first = machine.take_snapshot(main);
  Machine::prepare(main);
  fill(main, 0, 64, 10'000);
  check_memory_invariants();
  AddressSpace& second = machine.adopt(main.snapshot());
  check_values(first, 0, 64, 1);
  check_values(second, 0, 64, 10'000);
  CHECK(main.keep_ready(0).is_ok());
}

TEST_CASE_METHOD(CopyRuns, "a run is as long as there is memory for it") {
  map(main, 0, kTable);
  fill(main, 0, kTable, 1);
  AddressSpace& snapshot = machine.take_snapshot(main);
  fill(main, 0, 2, 10'000);
  const u64 frames = GENERATE(1, 2);
  {
    Hog hog;
    hog.give_back(frames);
    fill(main, 2, 1, 10'002);
    CHECK(copied(main) == 2 + frames);
    PhysicalAddress unused;
    const VirtualAddress next = page(2 + frames);
    CHECK(machine.access(main, next, Access::kWrite, &unused) == FaultKind::kOutOfMemory);
  }
  check_values(snapshot, 0, 4, 1);
  check_values(main, 0, 3, 10'000);
  check_memory_invariants();
}

TEST_CASE_METHOD(CopyRuns, "a run that passes the limit is told whole") {
  map(main, 0, kTable);
  fill(main, 0, kTable, 1);
  machine.take_snapshot(main);
  fill(main, 0, 2, 10'000);
  std::vector<u32> limited;
  host::on_copy_limit = [&](u64, u32 pages) { limited.push_back(pages); };
  set_copy_limit(main.left_for_snapshots() + kPageSize);
  fill(main, 2, 1, 10'002);
  set_copy_limit(kUnlimited);
  host::on_copy_limit = nullptr;
  CHECK(limited == std::vector<u32>{3});
}

TEST_CASE_METHOD(CopyRuns, "where snapshots keep too much, pages are copied one by one") {
  map(main, 0, kTable);
  fill(main, 0, kTable, 1);
  AddressSpace& snapshot = machine.take_snapshot(main);
  fill(main, 0, 2, 10'000);
  std::vector<u32> limited;
  host::on_copy_limit = [&](u64, u32 pages) { limited.push_back(pages); };
  set_copy_limit(main.left_for_snapshots() - 1);
  fill(main, 2, 6, 10'002);
  set_copy_limit(kUnlimited);
  host::on_copy_limit = nullptr;
  CHECK(copied(main) == 8);
  CHECK(limited == std::vector<u32>(6, 1));
  check_values(snapshot, 0, 8, 1);
}

TEST_CASE_METHOD(CopyRuns, "what a host call reads stays until the call is over") {
  map(main, 0, kTable);
  fill(main, 0, 16, 1);
  AddressSpace& snapshot = machine.take_snapshot(main);
  HostSegment segments[16];
  const ResolveOutcome read =
      main.resolve_for_host(page(3), 2 * kPageSize, Access::kRead, segments, 16);
  REQUIRE(read.bytes == 2 * kPageSize);
  const PhysicalAddress before = segments[0].address;
  fill(main, 0, 3, 10'000);
  CHECK(frame_of(main, 3) != before);
  machine.destroy(snapshot);
  CHECK(*pointer_to<u64>(before) == 4);
  Machine::check_in_use(before);
  CHECK(pages() == 16 + 2);
  main.unpin();
  CHECK(pages() == 16);
  check_memory_invariants();
}

}  // namespace dbos::test
