// Mappings of files and of shared memory.

#include <catch2/catch.hpp>

#include "tests/unit/memory/machine.h"

namespace dbos::test {
namespace {

constexpr VirtualAddress kBase{0x1000'0000};
VirtualAddress page(u64 index) {
  return kBase + index * kPageSize;
}
constexpr int kReadWrite = PROT_READ | PROT_WRITE;

struct Fixture {
  Machine machine{2};
  AddressSpace& space = machine.new_space();

  // A file of `pages` pages, mapped from kBase + first pages on; returns where the host has it.
  PhysicalAddress map(u64 first, u64 pages, bool is_shared, int protection = kReadWrite,
                      WindowKind kind = WindowKind::kFile, u64 file_pages = 0,
                      bool may_write = true) {
    const PhysicalAddress at =
        host::make_window(pages * kPageSize, (file_pages == 0 ? pages : file_pages) * kPageSize);
    for (u64 i = 0; i < pages; ++i) *pointer_to<u64>(at + i * kPageSize) = 1000 + i;
    FileIdentity file;
    file.inode = 42;
    file.path = "/data/file";
    WindowObject* object = window_create(at, pages * kPageSize, kind, file).value();
    last = space.map_window(page(first), pages * kPageSize, protection, MAP_FIXED,
                            {object, 0, is_shared, may_write});
    window_release(object);
    return at;
  }
  Result<VirtualAddress> last = Error(1);
};

}  // namespace

TEST_CASE_METHOD(Fixture, "a shared mapping is the file") {
  const PhysicalAddress at = map(0, 40, true);
  CHECK(machine.read(space, page(3)) == 1003);
  machine.write(space, page(3), 5);
  CHECK(*pointer_to<u64>(at + 3 * kPageSize) == 5);
  *pointer_to<u64>(at + 20 * kPageSize) = 6;
  CHECK(machine.read(space, page(20)) == 6);
  AddressSpace& snapshot = machine.take_snapshot(space);
  machine.write(space, page(4), 7);
  CHECK(machine.read(snapshot, page(4)) == 7);
  machine.write(snapshot, page(5), 8);
  CHECK(machine.read(space, page(5)) == 8);
  CHECK(space.statistics().resident_anonymous_bytes == 0);
  check_memory_invariants();
}

TEST_CASE_METHOD(Fixture, "a snapshot does not inherit a shared mapping that is kept from it") {
  map(0, 40, true);
  map(40, 40, true);
  for (const u64 index : {3, 39, 40}) CHECK(machine.read(space, page(index)) != 0);
  REQUIRE(space.advise(page(0), 40 * kPageSize, MADV_DONTFORK).is_ok());
  AddressSpace& without = machine.take_snapshot(space);
  REQUIRE(space.advise(page(0), 40 * kPageSize, MADV_DOFORK).is_ok());
  AddressSpace& with = machine.take_snapshot(space);
  CHECK(without.handle_fault(page(3), Access::kRead) == FaultKind::kNoMapping);
  CHECK(machine.read(without, page(40)) == 1000);
  CHECK(without.statistics().virtual_bytes == 40 * kPageSize);
  CHECK(machine.read(with, page(3)) == 1003);
  machine.write(space, page(3), 5);
  CHECK(machine.read(with, page(3)) == 5);
  machine.destroy(space);
  check_memory_invariants();
}

TEST_CASE_METHOD(Fixture, "a private mapping is the file until it is written") {
  const PhysicalAddress at = map(0, 40, false);
  CHECK(machine.read(space, page(3)) == 1003);
  *pointer_to<u64>(at + 3 * kPageSize) = 2003;
  CHECK(machine.read(space, page(3)) == 2003);
  machine.write(space, page(3), 5);
  machine.write(space, page(9), 6);
  CHECK(*pointer_to<u64>(at + 3 * kPageSize) == 2003);
  CHECK(*pointer_to<u64>(at + 9 * kPageSize) == 1009);
  AddressSpace& snapshot = machine.take_snapshot(space);
  CHECK(machine.read(snapshot, page(3)) == 5);
  machine.write(snapshot, page(3), 7);
  machine.write(snapshot, page(10), 8);
  CHECK(machine.read(space, page(3)) == 5);
  CHECK(machine.read(space, page(10)) == 1010);
  CHECK(space.advise(page(0), 40 * kPageSize, MADV_DONTNEED).is_ok());
  CHECK(machine.read(space, page(3)) == 2003);
  CHECK(machine.read(snapshot, page(3)) == 7);
  check_memory_invariants();
}

TEST_CASE_METHOD(Fixture, "reads map sixteen pages with one host call, writes to a file one") {
  map(0, 64, true);
  const u64 before = host::populate_calls();
  for (u64 i = 0; i < 32; ++i) machine.read(space, page(i));
  CHECK(host::populate_calls() == before + 2);
  for (u64 i = 0; i < 4; ++i) machine.write(space, page(i), 1);
  CHECK(host::populate_calls() == before + 6);
  // After a snapshot the host need not be asked again.
  AddressSpace& snapshot = machine.take_snapshot(space);
  for (u64 i = 0; i < 4; ++i) machine.write(space, page(i), 2);
  for (u64 i = 0; i < 4; ++i) machine.write(snapshot, page(i), 2);
  CHECK(host::populate_calls() == before + 6);
  map(100, 64, true, kReadWrite, WindowKind::kSharedAnonymous);
  for (u64 i = 100; i < 132; ++i) machine.write(space, page(i), 1);
  CHECK(host::populate_calls() <= before + 9);
}

TEST_CASE_METHOD(Fixture, "past the end of the file there is a bus error, before it there isn't") {
  map(0, 16, true, kReadWrite, WindowKind::kFile, 5);
  CHECK(machine.read(space, page(4)) == 1004);
  CHECK(space.handle_fault(page(5), Access::kRead) == FaultKind::kBusError);
  CHECK(space.handle_fault(page(5), Access::kWrite) == FaultKind::kBusError);
  CHECK(space.handle_fault(page(4), Access::kWrite) == FaultKind::kResolved);
  map(32, 16, false, kReadWrite, WindowKind::kFile, 5);
  CHECK(space.handle_fault(page(37), Access::kWrite) == FaultKind::kBusError);
  CHECK(space.handle_fault(page(36), Access::kWrite) == FaultKind::kResolved);
  HostSegment segments[16];
  const ResolveOutcome outcome =
      space.resolve_for_host(page(0), 10 * kPageSize, Access::kRead, segments, 16);
  CHECK(outcome.kind == FaultKind::kBusError);
  CHECK(outcome.bytes == 5 * kPageSize);
  space.unpin();
}

TEST_CASE_METHOD(Fixture,
                 "a private page whose file was cut before its first write is a bus error") {
  const PhysicalAddress at = map(0, 8, false);
  CHECK(machine.read(space, page(3)) == 1003);
  host::cut_window(at, 2 * kPageSize);
  const u64 pages = frame_allocator.counts().pages;
  CHECK(space.handle_fault(page(3), Access::kWrite) == FaultKind::kBusError);
  CHECK(frame_allocator.counts().pages == pages);
  machine.write(space, page(1), 5);
  CHECK(machine.read(space, page(1)) == 5);
}

TEST_CASE_METHOD(Fixture,
                 "a mapping that replaces another while the host is asked for it is used") {
  map(0, 8, true);
  host::on_populate = [&](PhysicalAddress) {
    host::on_populate = nullptr;
    machine.map(space, 8 * kPageSize, kReadWrite, MAP_FIXED, page(0));
  };
  CHECK(machine.read(space, page(3)) == 0);
  map(0, 8, true);
  host::on_populate = [&](PhysicalAddress) {
    host::on_populate = nullptr;
    map(0, 8, true, kReadWrite, WindowKind::kFile, 8);
  };
  CHECK(machine.read(space, page(3)) == 1003);
}

TEST_CASE_METHOD(Fixture, "a file that is not open for writing can't be made writable") {
  map(0, 4, true, PROT_READ, WindowKind::kFile, 0, false);
  CHECK(space.protect(page(0), kPageSize, kReadWrite).error() == Error(EACCES));
  CHECK(space.protect(page(0), kPageSize, PROT_READ | PROT_EXEC).is_ok());
  map(8, 4, true, kReadWrite, WindowKind::kFile, 0, false);
  CHECK(last.error() == Error(EACCES));
  map(8, 4, false, kReadWrite, WindowKind::kFile, 0, false);
  CHECK(last.is_ok());
}

TEST_CASE_METHOD(Fixture,
                 "a window is unmapped with its last mapping, and after the last host call") {
  const u64 before = host::open_windows();
  map(0, 16, true);
  CHECK(host::open_windows() == before + 1);
  CHECK(space.unmap(page(4), 4 * kPageSize).is_ok());
  AddressSpace& snapshot = machine.take_snapshot(space);
  CHECK(space.unmap(page(0), 16 * kPageSize).is_ok());
  CHECK(host::open_windows() == before + 1);
  HostSegment segments[4];
  CHECK(snapshot.resolve_for_host(page(0), kPageSize, Access::kRead, segments, 4).segment_count ==
        1);
  CHECK(snapshot.unmap(page(0), 16 * kPageSize).is_ok());
  CHECK(host::open_windows() == before + 1);
  snapshot.unpin();
  CHECK(host::open_windows() == before);
}

TEST_CASE_METHOD(Fixture, "what /proc/self/maps says about a file follows splits and moves") {
  map(0, 16, true);
  CHECK(space.protect(page(4), 4 * kPageSize, PROT_READ).is_ok());
  VmaInfo info;
  CHECK(space.query(page(5), &info));
  CHECK(info.range == VirtualRange{page(4), page(8)});
  CHECK(info.file.offset == 4 * kPageSize);
  CHECK(info.file.inode == 42);
  CHECK(std::string(info.path) == "/data/file");
  CHECK(space.remap(page(4), 4 * kPageSize, 4 * kPageSize, MREMAP_MAYMOVE | MREMAP_FIXED, page(100))
            .is_ok());
  CHECK(space.query(page(101), &info));
  CHECK(info.file.offset == 4 * kPageSize);
  CHECK(machine.read(space, page(101)) == 1005);
}

TEST_CASE_METHOD(Fixture, "msync and madvise learn which ranges of windows are concerned") {
  const PhysicalAddress at = map(0, 16, true);
  const PhysicalAddress own = map(20, 4, false);
  machine.map(space, 4 * kPageSize, PROT_READ, MAP_FIXED, page(30));
  VirtualAddress from = page(2);
  WindowRanges ranges;
  space.window_ranges(&from, page(100), &ranges);
  CHECK(ranges.count == 2);
  CHECK(ranges.ranges[0].begin == page(2));
  CHECK(ranges.ranges[0].address == at + 2 * kPageSize);
  CHECK(ranges.ranges[0].length == 14 * kPageSize);
  CHECK(ranges.ranges[1].address == own);
  CHECK(ranges.ranges[1].length == 4 * kPageSize);
  CHECK(from == page(100));
  machine.write(space, page(3), 9);
  CHECK(space.advise(page(0), 16 * kPageSize, MADV_REMOVE).is_ok());
  CHECK(space.advise(page(20), kPageSize, MADV_REMOVE).error() == Error(EACCES));
  CHECK(space.advise(page(30), kPageSize, MADV_REMOVE).error() == Error(EINVAL));
  CHECK(space.protect(page(0), 16 * kPageSize, PROT_READ).is_ok());
  CHECK(space.advise(page(0), 16 * kPageSize, MADV_REMOVE).error() == Error(EACCES));
}

TEST_CASE_METHOD(Fixture, "a window that the host is asked about stays mapped until it answered") {
  const u64 before = host::open_windows();
  const PhysicalAddress at = map(0, 16, true);
  map(16, 4, false);
  machine.map(space, kPageSize, PROT_READ, MAP_FIXED, page(20));
  {
    WindowRanges ranges;
    VirtualAddress from = page(0);
    space.window_ranges(&from, page(21), &ranges);
    REQUIRE(ranges.count == 2);
    CHECK(ranges.ranges[0].window.get()->references() == 2);
    CHECK(space.unmap(page(0), 20 * kPageSize).is_ok());
    CHECK(ranges.ranges[0].window.get()->references() == 1);
    CHECK(host::is_window(at));
    CHECK(host::open_windows() == before + 2);
  }
  CHECK(host::open_windows() == before);

  map(0, 16, true);
  {
    WindowPlace place;
    CHECK(space.find_window(page(3), &place));
    CHECK(place.is_shared);
    CHECK(place.address() == place.window.get()->address() + 3 * kPageSize);
    CHECK(space.unmap(page(0), 16 * kPageSize).is_ok());
    CHECK(host::open_windows() == before + 1);
    WindowPlace nothing;
    CHECK(!space.find_window(page(3), &nothing));
    CHECK(space.find_window(page(20), &nothing));
    CHECK(nothing.window.get() == nullptr);
  }
  CHECK(host::open_windows() == before);
}

TEST_CASE_METHOD(Fixture, "mremap with an old length of zero maps shared memory twice") {
  map(0, 8, true);
  CHECK(space.remap(page(2), 0, 4 * kPageSize, MREMAP_MAYMOVE | MREMAP_FIXED, page(50)).is_ok());
  machine.write(space, page(51), 5);
  CHECK(machine.read(space, page(3)) == 5);
  check_memory_invariants();
}

TEST_CASE_METHOD(Fixture, "detaching a segment unmaps what is left of it in its place") {
  const u64 before = host::open_windows();
  map(0, 16, true, kReadWrite, WindowKind::kSegment);
  map(20, 4, true, kReadWrite, WindowKind::kFile);
  CHECK(space.detach_segment(page(1)).error() == Error(EINVAL));
  CHECK(space.detach_segment(page(0) + 1).error() == Error(EINVAL));
  CHECK(space.detach_segment(page(20)).error() == Error(EINVAL));
  // The first page goes, one in the middle is another's, one has moved away.
  CHECK(space.unmap(page(0), kPageSize).is_ok());
  map(5, 1, true, kReadWrite, WindowKind::kFile);
  CHECK(
      space.remap(page(8), kPageSize, kPageSize, MREMAP_MAYMOVE | MREMAP_FIXED, page(100)).is_ok());
  CHECK(space.detach_segment(page(0)).is_ok());
  VmaInfo info;
  CHECK(space.next_vma(page(0), &info));
  CHECK(info.range == VirtualRange{page(5), page(6)});
  CHECK(space.next_vma(page(6), &info));
  CHECK(info.range == VirtualRange{page(20), page(24)});
  CHECK(machine.read(space, page(100)) == 1008);
  CHECK(space.detach_segment(page(0)).error() == Error(EINVAL));
  // The page that moved is where an attachment at page 92 would have it.
  CHECK(space.detach_segment(page(92)).is_ok());
  CHECK(host::open_windows() == before + 2);
  check_memory_invariants();
}

}  // namespace dbos::test
