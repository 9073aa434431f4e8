// Mappings of files that grow beyond their windows (mremap).

#include <catch2/catch.hpp>

#include "tests/unit/memory/machine.h"

namespace dbos::test {
namespace {

constexpr VirtualAddress kBase{0x1000'0000};
constexpr u64 kFilePages = 4096;
constexpr int kReadWrite = PROT_READ | PROT_WRITE;

VirtualAddress page(u64 index) {
  return kBase + index * kPageSize;
}

struct Fixture {
  Machine machine{2};
  AddressSpace& space = machine.new_space();
  u64 windows_before = host::open_windows();

  // The beginning of a file whose page i holds 1000 + i, at kBase + first pages.
  PhysicalAddress map(u64 first, u64 pages, bool is_shared, u64 file_pages = kFilePages,
                      WindowKind kind = WindowKind::kFile) {
    const u64 size = pages * kPageSize;
    const PhysicalAddress at = host::make_window(size, file_pages * kPageSize);
    const PhysicalAddress all = host::duplicate_window(at, file_pages * kPageSize);
    for (u64 i = 0; i < file_pages; ++i) *pointer_to<u64>(all + i * kPageSize) = 1000 + i;
    platform::window_unmap(all, file_pages * kPageSize);
    WindowObject* object = window_create(at, size, kind, {}).value();
    const auto mapped =
        space.map_window(page(first), size, kReadWrite, MAP_FIXED, {object, 0, is_shared, true});
    window_release(object);
    if (mapped.is_error()) throw std::runtime_error("a file can't be mapped");
    return at;
  }

  struct Growth {
    VirtualAddress address;
    u64 old_pages;
    u64 new_pages;
    int flags = 0;
    VirtualAddress to{};
    u64 spare_pages = 0;
  };
  Result<VirtualAddress> remap(AddressSpace& in, const Growth& growth,
                               const LongerWindow* longer = nullptr) {
    return in.remap(growth.address, growth.old_pages * kPageSize, growth.new_pages * kPageSize,
                    growth.flags, growth.to, longer);
  }
  // As the system call does it, for a mapping whose window is too short.
  Result<VirtualAddress> grow(AddressSpace& in, const Growth& growth) {
    REQUIRE(remap(in, growth).error() == Error(AddressSpace::kWindowTooShort));
    WindowPlace place;
    REQUIRE(in.find_window(growth.address, &place));
    const u64 size =
        place.offset - place.vma_offset + (growth.new_pages + growth.spare_pages) * kPageSize;
    const PhysicalAddress at =
        host::duplicate_window(place.window.get()->address() + place.vma_offset, size);
    FileIdentity file = place.window.get()->file();
    file.offset += place.vma_offset;
    WindowObject* object = window_create(at, size, place.window.get()->kind(), file).value();
    const LongerWindow longer{object, place.window.get(), place.vma_offset};
    const auto result = remap(in, growth, &longer);
    check_memory_invariants();
    window_release(object);
    return result;
  }
  Result<VirtualAddress> grow(const Growth& growth) { return grow(space, growth); }

  // One vma, which begins at this page of the file.
  bool is_one_vma(VirtualAddress begin, u64 pages, u64 file_page) {
    VmaInfo info;
    return space.query(begin, &info) &&
           info.range == VirtualRange{begin, begin + pages * kPageSize} &&
           info.file.offset == file_page * kPageSize;
  }
  // What the pages hold that nobody has written.
  bool shows_file(VirtualAddress begin, u64 pages, u64 file_page) {
    for (u64 i = 0; i < pages; ++i) {
      if (machine.read(space, begin + i * kPageSize) != 1000 + file_page + i) return false;
    }
    return true;
  }
  u64 windows() const { return host::open_windows() - windows_before; }
};

}  // namespace

TEST_CASE_METHOD(Fixture, "a mapping that has grown in its place is one, and grows again") {
  const bool is_shared = GENERATE(true, false);
  map(0, 4, is_shared);
  machine.write(space, page(1), 5);
  for (u64 pages = 4; pages < 1024; pages *= 2) {
    REQUIRE(grow({page(0), pages, 2 * pages}).value() == page(0));
    CHECK(is_one_vma(page(0), 2 * pages, 0));
    CHECK(windows() == 1);
    CHECK(machine.read(space, page(1)) == 5);
    CHECK(shows_file(page(2), 2 * pages - 2, 2));
    machine.write(space, page(2 * pages - 1), 1000 + 2 * pages - 1);
    check_memory_invariants();
  }
}

TEST_CASE_METHOD(Fixture, "a mapping that has grown and moved is one, and grows again") {
  const bool is_shared = GENERATE(true, false);
  map(0, 4, is_shared);
  machine.write(space, page(1), 5);
  VirtualAddress at = page(0);
  for (u64 pages = 4; pages < 1024; pages *= 2) {
    machine.map(space, kPageSize, PROT_READ, MAP_FIXED, at + pages * kPageSize);
    const VirtualAddress moved = grow({at, pages, 2 * pages, MREMAP_MAYMOVE}).value();
    REQUIRE(moved != at);
    CHECK(is_one_vma(moved, 2 * pages, 0));
    CHECK(windows() == 1);
    CHECK(space.handle_fault(at, Access::kRead) == FaultKind::kNoMapping);
    at = moved;
    CHECK(machine.read(space, at + kPageSize) == 5);
    CHECK(shows_file(at + 2 * kPageSize, 2 * pages - 2, 2));
    check_memory_invariants();
  }
}

TEST_CASE_METHOD(Fixture, "growth within a window needs no other one") {
  map(0, 4, true);
  REQUIRE(grow({.address = page(0), .old_pages = 4, .new_pages = 8, .spare_pages = 8}).is_ok());
  CHECK(shows_file(page(0), 8, 0));
  const u64 asked = host::populate_calls();
  CHECK(remap(space, {page(0), 8, 12}).is_ok());
  CHECK(shows_file(page(0), 8, 0));
  CHECK(host::populate_calls() == asked);
  CHECK(is_one_vma(page(0), 12, 0));
  CHECK(remap(space, {page(0), 12, 2}).is_ok());
  CHECK(remap(space, {page(0), 2, 16}).is_ok());
  CHECK(shows_file(page(0), 16, 0));
  CHECK(remap(space, {page(0), 16, 17}).error() == Error(AddressSpace::kWindowTooShort));
}

TEST_CASE_METHOD(Fixture, "what was written to a private mapping stays its own when it grows") {
  map(0, 600, false);
  for (u64 i = 0; i < 600; i += 7) machine.write(space, page(i), i);
  for (u64 i = 0; i < 600; ++i) machine.read(space, page(i));
  const u64 own = space.statistics().resident_anonymous_bytes;
  REQUIRE(grow({page(0), 600, 800}).is_ok());
  CHECK(space.statistics().resident_anonymous_bytes == own);
  CHECK(space.statistics().resident_window_bytes == 0);
  for (u64 i = 0; i < 800; ++i) {
    REQUIRE(machine.read(space, page(i)) == (i < 600 && i % 7 == 0 ? i : 1000 + i));
  }
  check_memory_invariants();
}

TEST_CASE_METHOD(Fixture, "a snapshot keeps what it saw when a mapping grows") {
  const bool is_shared = GENERATE(true, false);
  const bool in_place = GENERATE(true, false);
  map(0, 600, is_shared);
  machine.map(space, 16 * kPageSize, kReadWrite, MAP_FIXED, page(1100));  // in the same tables
  for (u64 i = 0; i < 600; ++i) machine.read(space, page(i));
  machine.write(space, page(3), 5);
  machine.write(space, page(1100), 6);
  AddressSpace& snapshot = machine.take_snapshot(space);
  if (!in_place) machine.map(space, kPageSize, kReadWrite, MAP_FIXED, page(600));
  const VirtualAddress at = grow({page(0), 600, 1000, MREMAP_MAYMOVE}).value();
  CHECK((at == page(0)) == in_place);
  CHECK(windows() == 2);
  CHECK(machine.read(space, at + 3 * kPageSize) == 5);
  CHECK(machine.read(space, page(1100)) == 6);
  CHECK(shows_file(at + 4 * kPageSize, 996, 4));
  CHECK(machine.read(snapshot, page(3)) == 5);
  CHECK(machine.read(snapshot, page(599)) == 1599);
  check_memory_invariants();
  machine.write(space, at + 3 * kPageSize, 7);
  CHECK(machine.read(snapshot, page(3)) == (is_shared ? 7 : 5));
  // It grows by itself, too.
  REQUIRE(grow(snapshot, {page(0), 600, 700}).value() == page(0));
  CHECK(machine.read(snapshot, page(699)) == 1699);
  CHECK(machine.read(snapshot, page(3)) == (is_shared ? 7 : 5));
  check_memory_invariants();
}

TEST_CASE_METHOD(Fixture, "where a mapping's end grows in its place, all of it does") {
  map(0, 8, true);
  CHECK(space.unmap(page(0), 2 * kPageSize).is_ok());
  CHECK(shows_file(page(2), 6, 2));
  REQUIRE(grow({page(5), 3, 10}).value() == page(5));
  CHECK(is_one_vma(page(2), 13, 2));
  CHECK(shows_file(page(2), 13, 2));
  CHECK(windows() == 1);
}

TEST_CASE_METHOD(Fixture, "what grows and moves out of a mapping leaves the rest as it was") {
  const bool is_fixed = GENERATE(true, false);
  map(0, 12, true);
  CHECK(shows_file(page(0), 12, 0));
  const int flags = is_fixed ? MREMAP_MAYMOVE | MREMAP_FIXED : MREMAP_MAYMOVE;
  const VirtualAddress at = grow({page(4), 3, 20, flags, page(100)}).value();
  CHECK((!is_fixed || at == page(100)));
  CHECK(is_one_vma(at, 20, 4));
  CHECK(is_one_vma(page(0), 4, 0));
  CHECK(is_one_vma(page(7), 5, 7));
  CHECK(shows_file(at, 20, 4));
  CHECK(shows_file(page(0), 4, 0));
  CHECK(shows_file(page(7), 5, 7));
  CHECK(windows() == 2);
  machine.write(space, at + kPageSize, 9);
  check_memory_invariants();
}

TEST_CASE_METHOD(Fixture, "a second mapping may be longer than the first one's window") {
  map(0, 4, true);
  const VirtualAddress twin = grow({page(1), 0, 8, MREMAP_MAYMOVE}).value();
  CHECK(is_one_vma(twin, 8, 1));
  CHECK(shows_file(twin, 8, 1));
  machine.write(space, twin, 5);
  CHECK(machine.read(space, page(1)) == 5);
  CHECK(windows() == 2);
  check_memory_invariants();
}

TEST_CASE_METHOD(Fixture, "shared memory does not grow with its mapping") {
  map(0, 4, true, 4, WindowKind::kSharedAnonymous);
  machine.write(space, page(3), 5);
  REQUIRE(grow({page(0), 4, 8}).is_ok());
  CHECK(machine.read(space, page(3)) == 5);
  CHECK(space.handle_fault(page(4), Access::kRead) == FaultKind::kBusError);
  CHECK(space.handle_fault(page(7), Access::kWrite) == FaultKind::kBusError);
}

TEST_CASE_METHOD(Fixture, "a host call in flight keeps the window that its buffer was in") {
  const PhysicalAddress at = map(0, 4, true);
  HostSegment segment;
  const ResolveOutcome outcome =
      space.resolve_for_host(page(2), kPageSize, Access::kWrite, &segment, 1);
  REQUIRE(outcome.bytes == kPageSize);
  CHECK(segment.address == at + 2 * kPageSize);
  REQUIRE(grow({page(0), 4, 8}).is_ok());
  CHECK(windows() == 2);
  *pointer_to<u64>(segment.address) = 7;
  CHECK(machine.read(space, page(2)) == 7);
  space.unpin();
  CHECK(windows() == 1);
}

TEST_CASE_METHOD(Fixture, "a page that was asked for when the mapping grew comes from its window") {
  map(0, 4, true);
  host::on_populate = [&](PhysicalAddress) {
    host::on_populate = nullptr;
    REQUIRE(grow({page(0), 4, 8}).is_ok());
  };
  CHECK(machine.read(space, page(3)) == 1003);
  CHECK(windows() == 1);
  check_memory_invariants();
}

TEST_CASE_METHOD(Fixture, "a longer window of another file is none") {
  map(0, 4, true);
  map(100, 4, true);
  WindowPlace other;
  REQUIRE(space.find_window(page(100), &other));
  const PhysicalAddress at = host::duplicate_window(other.address(), 8 * kPageSize);
  WindowObject* object = window_create(at, 8 * kPageSize, WindowKind::kFile, {}).value();
  const LongerWindow longer{object, other.window.get(), 0};
  const Growth growth{page(0), 4, 8};
  CHECK(remap(space, growth, &longer).error() == Error(AddressSpace::kWindowTooShort));
  CHECK(is_one_vma(page(0), 4, 0));
  // One that begins behind the mapping, or ends too early, is none either.
  WindowPlace place;
  REQUIRE(space.find_window(page(0), &place));
  const LongerWindow behind{object, place.window.get(), kPageSize};
  CHECK(remap(space, growth, &behind).error() == Error(AddressSpace::kWindowTooShort));
  const LongerWindow short_one{object, place.window.get(), 0};
  CHECK(remap(space, {page(0), 4, 9}, &short_one).error() == Error(AddressSpace::kWindowTooShort));
  window_release(object);
}

TEST_CASE_METHOD(Fixture, "locked memory stays counted when its mapping grows") {
  map(0, 4, true);
  REQUIRE(space.lock_memory(page(0), 4 * kPageSize, 0).is_ok());
  REQUIRE(grow({page(0), 4, 8}).is_ok());
  CHECK(space.statistics().locked_bytes == 8 * kPageSize);
  machine.map(space, kPageSize, PROT_READ, MAP_FIXED, page(8));
  REQUIRE(grow({page(0), 8, 16, MREMAP_MAYMOVE}).is_ok());
  CHECK(space.statistics().locked_bytes == 16 * kPageSize);
}

TEST_CASE_METHOD(Fixture, "where no memory is left a mapping does not grow, and stays as it was") {
  const bool in_place = GENERATE(true, false);
  map(0, 600, false);
  for (u64 i = 0; i < 600; ++i) machine.read(space, page(i));
  machine.write(space, page(3), 5);
  if (!in_place) machine.map(space, kPageSize, kReadWrite, MAP_FIXED, page(600));
  machine.take_snapshot(space);  // tables have to be copied, or made for another place
  const Growth growth{page(0), 600, 800, MREMAP_MAYMOVE};
  {
    WindowPlace place;
    REQUIRE(space.find_window(page(0), &place));
    const PhysicalAddress at = host::duplicate_window(place.address(), 800 * kPageSize);
    WindowObject* object = window_create(at, 800 * kPageSize, WindowKind::kFile, {}).value();
    const LongerWindow longer{object, place.window.get(), 0};
    const Hog hog;
    const auto result = remap(space, growth, &longer);
    CHECK((result.is_ok() || result.error() == Error(ENOMEM)));
    if (!uses_ready_tables() || !in_place) CHECK(result.is_error());
    window_release(object);
    if (result.is_ok()) return;
  }
  CHECK(is_one_vma(page(0), 600, 0));
  CHECK(machine.read(space, page(3)) == 5);
  CHECK(shows_file(page(4), 596, 4));
  check_memory_invariants();
  CHECK((grow(growth).value() == page(0)) == in_place);
  check_memory_invariants();
}

}  // namespace dbos::test
