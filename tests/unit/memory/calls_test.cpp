// The edges of Linux's memory calls, as its manual pages and mm/*.c have them.

#include <catch2/catch.hpp>

#include "tests/unit/memory/machine.h"

namespace dbos::test {
namespace {

constexpr VirtualAddress kBase{0x1000'0000};
VirtualAddress page(u64 index) {
  return kBase + index * kPageSize;
}
constexpr int kReadWrite = PROT_READ | PROT_WRITE;
constexpr int kAnonymous = MAP_PRIVATE | MAP_ANONYMOUS;
constexpr u64 kMost = ~u64{0};

struct Fixture {
  Machine machine;
  AddressSpace& space = machine.new_space();
  VirtualAddress map(u64 first, u64 count, int protection = kReadWrite, int flags = 0) {
    return machine.map(space, count * kPageSize, protection, MAP_FIXED | flags, page(first));
  }
  int map_errno(VirtualAddress hint, u64 length, int flags) {
    const Result<VirtualAddress> result =
        space.map_anonymous(hint, length, kReadWrite, kAnonymous | flags);
    return result.is_ok() ? 0 : result.error().code();
  }
  int remap_errno(VirtualAddress at, u64 old_length, u64 new_length, int flags,
                  VirtualAddress to = VirtualAddress(0)) {
    const Result<VirtualAddress> result = space.remap(at, old_length, new_length, flags, to);
    return result.is_ok() ? 0 : result.error().code();
  }
  void write(u64 index, u64 value) { machine.write(space, page(index), value); }
  u64 read(u64 index) { return machine.read(space, page(index)); }
  bool is_mapped(u64 index) {
    VmaInfo info;
    return space.query(page(index), &info);
  }
  void check() { check_memory_invariants(); }
};

int code(Result<void> result) {
  return result.is_ok() ? 0 : result.error().code();
}

}  // namespace

TEST_CASE_METHOD(Fixture, "mmap: errors") {
  CHECK(map_errno(VirtualAddress(0), 0, 0) == EINVAL);
  CHECK(map_errno(VirtualAddress(0), kMost, 0) == ENOMEM);
  CHECK(map_errno(VirtualAddress(0), kMost - kPageSize, 0) == ENOMEM);
  CHECK(map_errno(VirtualAddress(0), kProgramEnd, 0) == ENOMEM);
  CHECK(map_errno(page(0) + 1, kPageSize, MAP_FIXED) == EINVAL);
  CHECK(map_errno(VirtualAddress(kProgramEnd), kPageSize, MAP_FIXED) == ENOMEM);
  CHECK(map_errno(VirtualAddress(kProgramEnd - kPageSize), kPageSize, MAP_FIXED) == 0);
  CHECK(map_errno(VirtualAddress(kDirectMapBase), kPageSize, MAP_FIXED) == ENOMEM);
  CHECK(map_errno(VirtualAddress(0), kPageSize, MAP_FIXED) == EPERM);
  map(0, 2);
  CHECK(map_errno(page(1), 2 * kPageSize, MAP_FIXED_NOREPLACE) == EEXIST);
  CHECK(map_errno(page(2), 2 * kPageSize, MAP_FIXED_NOREPLACE) == 0);
  SpaceLimits limits;
  limits.address_space = 5 * kPageSize;
  space.set_limits(limits);
  CHECK(map_errno(VirtualAddress(0), kPageSize, 0) == ENOMEM);
  CHECK(map_errno(page(0), kPageSize, MAP_FIXED) == 0);
  check();
}

TEST_CASE_METHOD(Fixture, "mmap over a mapping replaces it with zeroes") {
  map(0, 8);
  for (u64 i = 0; i < 8; ++i) write(i, i + 1);
  map(2, 3);
  CHECK(read(1) == 2);
  CHECK(read(2) == 0);
  CHECK(read(4) == 0);
  CHECK(read(5) == 6);
  check();
}

TEST_CASE_METHOD(Fixture, "munmap: errors, and holes that are none") {
  map(0, 4);
  CHECK(code(space.unmap(page(0) + 1, kPageSize)) == EINVAL);
  CHECK(code(space.unmap(page(0), 0)) == EINVAL);
  CHECK(code(space.unmap(VirtualAddress(kProgramEnd), kPageSize)) == EINVAL);
  CHECK(code(space.unmap(page(0), kMost)) == EINVAL);
  CHECK(code(space.unmap(VirtualAddress(kDirectMapBase), kPageSize)) == EINVAL);
  CHECK(code(space.unmap(page(100), 50 * kPageSize)) == 0);
  CHECK(code(space.unmap(page(1), 1)) == 0);
  CHECK(is_mapped(0));
  CHECK(!is_mapped(1));
  CHECK(is_mapped(2));
  CHECK(code(space.unmap(VirtualAddress(0), kProgramEnd)) == 0);
  CHECK(space.statistics().virtual_bytes == 0);
  CHECK(space.statistics().virtual_bytes_peak == 4 * kPageSize);
}

TEST_CASE_METHOD(Fixture, "munmap gives frames and tables back") {
  const FrameCounts before = frame_allocator.counts();
  map(0, 2048, kReadWrite, MAP_STACK);
  for (u64 i = 0; i < 2048; ++i) write(i, i);
  CHECK(frame_allocator.counts().pages == before.pages + 2048);
  CHECK(space.statistics().resident_anonymous_bytes == 2048 * kPageSize);
  CHECK(code(space.unmap(page(0), 2048 * kPageSize)) == 0);
  CHECK(frame_allocator.counts().pages == before.pages);
  CHECK(frame_allocator.counts().nodes == before.nodes);
  CHECK(space.statistics().resident_anonymous_bytes == 0);
  CHECK(space.statistics().resident_bytes_peak == 2048 * kPageSize);
}

TEST_CASE_METHOD(Fixture, "large pages: first touch, split by munmap, mprotect and madvise") {
  map(0, 4 * 512);  // kBase is a multiple of 2 MiB
  write(5, 1);
  CHECK(space.usage({page(0), page(512)}).large == 512);
  CHECK(space.statistics().resident_anonymous_bytes == 2 * kMiB);
  write(100, 2);
  CHECK(machine.faults() == 1);
  CHECK(code(space.unmap(page(10), kPageSize)) == 0);
  CHECK(space.usage({page(0), page(512)}).present == 511);
  CHECK(space.usage({page(0), page(512)}).large == 0);
  CHECK(read(5) == 1);
  CHECK(read(100) == 2);
  check();
  write(600, 3);
  CHECK(code(space.protect(page(600), kPageSize, PROT_READ)) == 0);
  CHECK(read(600) == 3);
  CHECK(space.handle_fault(page(600), Access::kWrite) == FaultKind::kNoAccess);
  check();
  write(1100, 4);
  CHECK(code(space.advise(page(1024), 10 * kPageSize, MADV_DONTNEED)) == 0);
  CHECK(read(1030) == 0);
  CHECK(read(1100) == 4);
  // A flag alone splits the vma and leaves the large page.
  write(1600, 5);
  CHECK(code(space.advise(page(1600), kPageSize, MADV_DONTFORK)) == 0);
  CHECK(space.usage({page(1536), page(2048)}).large == 512);
  CHECK(space.usage({page(1600), page(1601)}).large == 1);
  check();
}

TEST_CASE_METHOD(Fixture,
                 "large pages: a process can give them up, and its children inherit that") {
  map(0, 1024);
  write(0, 1);
  space.set_large_pages(LargePages::kNo);
  write(512, 1);
  CHECK(space.usage({page(0), page(512)}).large == 512);
  CHECK(space.usage({page(512), page(1024)}).large == 0);
  AddressSpace& child = machine.take_snapshot(space);
  CHECK(child.large_pages() == LargePages::kNo);
  child.set_large_pages(LargePages::kYes);
  CHECK(space.large_pages() == LargePages::kNo);
  space.set_large_pages(LargePages::kYes);
  map(1024, 512);
  write(1024, 1);
  CHECK(space.usage({page(1024), page(1536)}).large == 512);
}

TEST_CASE_METHOD(Fixture, "large pages: not for stacks, advice, or what is too small") {
  map(0, 512, kReadWrite, MAP_STACK);
  write(0, 1);
  map(1024, 512);
  CHECK(code(space.advise(page(1024), 512 * kPageSize, MADV_NOHUGEPAGE)) == 0);
  write(1024, 1);
  map(2049, 512);
  write(2049, 1);
  CHECK(space.usage({page(0), page(4096)}).large == 0);
  CHECK(space.usage({page(0), page(4096)}).present == 3);
}

TEST_CASE_METHOD(Fixture, "reads map the zero pages, which are nobody's memory") {
  map(0, 1024);
  CHECK(read(3) == 0);
  CHECK(read(200) == 0);
  map(2048, 4);
  CHECK(read(2049) == 0);
  CHECK(space.statistics().resident_anonymous_bytes == 0);
  CHECK(space.usage({page(0), page(4096)}).present == 0);
  write(200, 7);
  CHECK(read(200) == 7);
  CHECK(read(3) == 0);
  write(2049, 8);
  CHECK(read(2049) == 8);
  CHECK(read(2048) == 0);
  check();
}

TEST_CASE_METHOD(Fixture, "mprotect: errors, holes, and rights that come and go") {
  map(0, 8);
  write(1, 11);
  CHECK(code(space.protect(page(0) + 1, kPageSize, PROT_READ)) == EINVAL);
  CHECK(code(space.protect(page(0), 0, PROT_READ)) == 0);
  CHECK(code(space.protect(page(0), kMost - page(0).value(), PROT_READ)) == ENOMEM);
  CHECK(code(space.protect(page(0), kPageSize, 0x40)) == EINVAL);
  CHECK(code(space.protect(page(0), kPageSize, PROT_GROWSDOWN | PROT_GROWSUP)) == EINVAL);
  CHECK(code(space.protect(page(0), kPageSize, PROT_READ | PROT_GROWSDOWN)) == EINVAL);
  CHECK(code(space.protect(page(100), kPageSize, PROT_READ)) == ENOMEM);
  CHECK(code(space.protect(page(6), 4 * kPageSize, PROT_READ)) == ENOMEM);
  // What lies before the hole has changed.
  CHECK(space.handle_fault(page(7), Access::kWrite) == FaultKind::kNoAccess);
  CHECK(code(space.protect(page(0), 4 * kPageSize, PROT_NONE)) == 0);
  CHECK(space.handle_fault(page(1), Access::kRead) == FaultKind::kNoAccess);
  check();
  CHECK(code(space.protect(page(0), 4 * kPageSize, PROT_READ)) == 0);
  CHECK(read(1) == 11);
  CHECK(space.handle_fault(page(1), Access::kWrite) == FaultKind::kNoAccess);
  CHECK(space.handle_fault(page(1), Access::kExecute) == FaultKind::kNoAccess);
  CHECK(code(space.protect(page(0), 4 * kPageSize, kReadWrite | PROT_EXEC)) == 0);
  CHECK(space.handle_fault(page(1), Access::kExecute) == FaultKind::kResolved);
  write(1, 12);
  CHECK(read(1) == 12);
  check();
}

TEST_CASE_METHOD(Fixture, "mprotect with PROT_GROWSDOWN reaches down to the stack's begin") {
  map(0, 8, kReadWrite, MAP_GROWSDOWN);
  CHECK(code(space.protect(page(6), kPageSize, PROT_READ | PROT_GROWSDOWN)) == 0);
  CHECK(space.handle_fault(page(0), Access::kWrite) == FaultKind::kNoAccess);
  CHECK(space.handle_fault(page(7), Access::kWrite) == FaultKind::kResolved);
}

TEST_CASE_METHOD(Fixture, "mremap: errors") {
  map(0, 4);
  map(4, 4, PROT_READ);
  CHECK(remap_errno(page(0), kPageSize, kPageSize, 8) == EINVAL);
  CHECK(remap_errno(page(0), kPageSize, kPageSize, MREMAP_FIXED, page(20)) == EINVAL);
  CHECK(remap_errno(page(0), kPageSize, 2 * kPageSize, MREMAP_MAYMOVE | MREMAP_DONTUNMAP) ==
        EINVAL);
  CHECK(remap_errno(page(0), kPageSize, kPageSize, MREMAP_DONTUNMAP) == EINVAL);
  // Lengths that leave the program's half, or wrap around.
  CHECK(remap_errno(page(0), u64{1} << 47, kPageSize, 0) == EINVAL);
  CHECK(remap_errno(page(0), ~u64{0} - kPageSize, kPageSize, MREMAP_MAYMOVE) == EINVAL);
  CHECK(remap_errno(page(0), kPageSize, ~u64{0} - 2 * kPageSize, 0) == ENOMEM);
  CHECK(remap_errno(page(0), kPageSize, 0x20000 - page(0).value(), MREMAP_MAYMOVE) == ENOMEM);
  CHECK(remap_errno(page(0), u64{1} << 47, u64{1} << 48, MREMAP_MAYMOVE) == EFAULT);
  CHECK(remap_errno(page(0) + 1, kPageSize, kPageSize, 0) == EINVAL);
  CHECK(remap_errno(page(0), kPageSize, 0, 0) == EINVAL);
  CHECK(remap_errno(page(50), kPageSize, kPageSize, 0) == EFAULT);
  CHECK(remap_errno(page(2), 4 * kPageSize, 8 * kPageSize, MREMAP_MAYMOVE) == EFAULT);
  CHECK(remap_errno(page(2), 0, kPageSize, MREMAP_MAYMOVE) == EINVAL);
  CHECK(remap_errno(page(0), 4 * kPageSize, 5 * kPageSize, 0) == ENOMEM);
  const int fixed = MREMAP_MAYMOVE | MREMAP_FIXED;
  CHECK(remap_errno(page(0), 4 * kPageSize, 4 * kPageSize, fixed, page(3)) == EINVAL);
  CHECK(remap_errno(page(0), kPageSize, kPageSize, fixed, page(9) + 1) == EINVAL);
  CHECK(remap_errno(page(0), kPageSize, kPageSize, fixed, VirtualAddress(kProgramEnd)) == EINVAL);
  CHECK(remap_errno(page(0), kPageSize, kPageSize, fixed, VirtualAddress(0)) == EPERM);
  SpaceLimits limits;
  limits.address_space = 9 * kPageSize;
  space.set_limits(limits);
  CHECK(remap_errno(page(4), 4 * kPageSize, 6 * kPageSize, 0) == ENOMEM);
  CHECK(remap_errno(page(4), 4 * kPageSize, 5 * kPageSize, 0) == 0);
  check();
}

TEST_CASE_METHOD(Fixture, "mremap: growth beyond all memory is refused where it counts") {
  map(0, 1);
  map(100, 1, PROT_READ);
  map(200, 1, kReadWrite, MAP_NORESERVE);
  SpaceLimits limits;
  limits.at_once = 8 * kPageSize;
  space.set_limits(limits);
  CHECK(remap_errno(page(0), kPageSize, 10 * kPageSize, 0) == ENOMEM);
  CHECK(remap_errno(page(0), kPageSize, 9 * kPageSize, 0) == 0);
  CHECK(remap_errno(page(100), kPageSize, 10 * kPageSize, 0) == 0);
  CHECK(remap_errno(page(200), kPageSize, 10 * kPageSize, 0) == 0);
}

TEST_CASE_METHOD(Fixture, "mremap: shrinks, grows in place, moves with its contents") {
  map(0, 4);
  for (u64 i = 0; i < 4; ++i) write(i, 100 + i);
  CHECK(remap_errno(page(0), 4 * kPageSize, 2 * kPageSize, 0) == 0);
  CHECK(!is_mapped(2));
  CHECK(remap_errno(page(0), 2 * kPageSize, 6 * kPageSize, 0) == 0);
  CHECK(read(1) == 101);
  CHECK(read(2) == 0);
  map(6, 1, PROT_READ);
  const VirtualAddress moved =
      space.remap(page(0), 6 * kPageSize, 10 * kPageSize, MREMAP_MAYMOVE, VirtualAddress(0))
          .value();
  CHECK(!is_mapped(0));
  CHECK(machine.read(space, moved + kPageSize) == 101);
  CHECK(machine.read(space, moved + 9 * kPageSize) == 0);
  // A part of a vma, over another mapping, to an end of its own.
  CHECK(remap_errno(moved + kPageSize, 2 * kPageSize, kPageSize, MREMAP_MAYMOVE | MREMAP_FIXED,
                    page(6)) == 0);
  CHECK(read(6) == 101);
  CHECK(machine.read(space, moved) == 100);
  check();
}

TEST_CASE_METHOD(Fixture, "mremap moves large pages and whole tables as they are") {
  map(0, 3 * 512);
  write(0, 1);
  map(512, 512, kReadWrite, MAP_STACK);
  for (u64 i = 512; i < 1024; ++i) write(i, i);
  CHECK(code(space.advise(page(512), 512 * kPageSize, MADV_NORMAL)) == 0);
  write(1024 + 77, 3);
  const u64 nodes = space.tree().counts().nodes;
  CHECK(remap_errno(page(0), 512 * kPageSize, 512 * kPageSize, MREMAP_MAYMOVE | MREMAP_FIXED,
                    page(8 * 512)) == 0);
  CHECK(remap_errno(page(512), 512 * kPageSize, 512 * kPageSize, MREMAP_MAYMOVE | MREMAP_FIXED,
                    page(9 * 512)) == 0);
  CHECK(space.tree().counts().nodes == nodes);
  CHECK(space.usage({page(8 * 512), page(9 * 512)}).large == 512);
  CHECK(read(8 * 512) == 1);
  for (u64 i = 0; i < 512; ++i) CHECK(read(9 * 512 + i) == 512 + i);
  CHECK(read(1024 + 77) == 3);
  // Askew, they are split.
  CHECK(remap_errno(page(8 * 512), 512 * kPageSize, 512 * kPageSize, MREMAP_MAYMOVE | MREMAP_FIXED,
                    page(20 * 512 + 3)) == 0);
  CHECK(read(20 * 512 + 3) == 1);
  check();
}

TEST_CASE_METHOD(Fixture, "mremap with MREMAP_DONTUNMAP leaves an empty mapping") {
  map(0, 4);
  write(2, 5);
  const VirtualAddress moved = space
                                   .remap(page(0), 4 * kPageSize, 4 * kPageSize,
                                          MREMAP_MAYMOVE | MREMAP_DONTUNMAP, VirtualAddress(0))
                                   .value();
  CHECK(machine.read(space, moved + 2 * kPageSize) == 5);
  CHECK(read(2) == 0);
  check();
}

TEST_CASE_METHOD(Fixture, "madvise: errors and holes") {
  map(0, 4);
  map(6, 4);
  for (u64 i : {0, 3, 6, 9}) write(i, i + 1);
  CHECK(code(space.advise(page(0), kPageSize, 9999)) == EINVAL);
  CHECK(code(space.advise(page(0) + 1, kPageSize, MADV_DONTNEED)) == EINVAL);
  CHECK(code(space.advise(page(0), kMost, MADV_DONTNEED)) == EINVAL);
  CHECK(code(space.advise(page(0), 0, MADV_DONTNEED)) == 0);
  CHECK(code(space.advise(page(100), kPageSize, MADV_DONTNEED)) == ENOMEM);
  CHECK(code(space.advise(page(2), 6 * kPageSize, MADV_DONTNEED)) == ENOMEM);
  CHECK(read(0) == 1);
  CHECK(read(3) == 0);
  CHECK(read(6) == 0);
  CHECK(read(9) == 10);
  CHECK(code(space.advise(page(6), 4 * kPageSize, MADV_FREE)) == 0);
  CHECK(read(9) == 0);
  CHECK(code(space.advise(page(0), kPageSize, MADV_REMOVE)) == EINVAL);
  CHECK(code(space.lock_memory(page(0), kPageSize, 0)) == 0);
  for (int advice : {MADV_DONTNEED, MADV_FREE, MADV_COLD, MADV_PAGEOUT}) {
    CHECK(code(space.advise(page(0), kPageSize, advice)) == EINVAL);
  }
  for (int advice : {MADV_NORMAL, MADV_WILLNEED, MADV_HUGEPAGE, MADV_DONTDUMP, MADV_DODUMP}) {
    CHECK(code(space.advise(page(0), kPageSize, advice)) == 0);
  }
  check();
}

TEST_CASE_METHOD(Fixture, "MADV_POPULATE makes pages present, or says why not") {
  map(0, 4);
  map(4, 2, PROT_READ);
  CHECK(code(space.advise(page(0), 4 * kPageSize, MADV_POPULATE_WRITE)) == 0);
  CHECK(space.usage({page(0), page(4)}).present == 4);
  CHECK(code(space.advise(page(0), 6 * kPageSize, MADV_POPULATE_READ)) == 0);
  CHECK(code(space.advise(page(4), kPageSize, MADV_POPULATE_WRITE)) == EINVAL);
  CHECK(code(space.advise(page(4), 6 * kPageSize, MADV_POPULATE_READ)) == ENOMEM);
}

TEST_CASE_METHOD(Fixture, "brk moves by bytes and maps by pages") {
  const VirtualAddress start = page(100) + 123;
  space.set_brk_start(start);
  CHECK(space.set_brk(VirtualAddress(0)) == start);
  CHECK(space.set_brk(start + 10) == start + 10);
  CHECK(!is_mapped(100));
  CHECK(space.set_brk(start + kPageSize) == start + kPageSize);
  CHECK(is_mapped(101));
  VmaInfo info;
  CHECK(space.query(page(101), &info));
  CHECK(info.name == VmaName::kHeap);
  write(101, 7);
  CHECK(space.set_brk(start + 50 * kPageSize) == start + 50 * kPageSize);
  CHECK(read(101) == 7);
  CHECK(space.set_brk(start + 10) == start + 10);
  CHECK(!is_mapped(101));
  CHECK(space.set_brk(start + kPageSize) == start + kPageSize);
  CHECK(read(101) == 0);
  // A mapping in the way, and the page before it.
  map(120, 1);
  CHECK(space.set_brk(page(119) + 1) == start + kPageSize);
  CHECK(space.set_brk(page(119)) == page(119));
  SpaceLimits limits;
  limits.data = 4 * kPageSize;
  space.set_limits(limits);
  CHECK(space.set_brk(page(106)) == page(119));
  CHECK(space.set_brk(page(102)) == page(102));
  CHECK(space.set_brk(VirtualAddress(kDirectMapBase)) == page(102));
  check();
}

TEST_CASE_METHOD(Fixture, "stacks grow down to the limit and keep their distance") {
  map(1000, 4, kReadWrite, MAP_GROWSDOWN);
  write(990, 1);
  CHECK(is_mapped(990));
  CHECK(is_mapped(995));
  CHECK(!is_mapped(989));
  SpaceLimits limits;
  limits.stack = 20 * kPageSize;
  space.set_limits(limits);
  CHECK(space.handle_fault(page(983), Access::kWrite) == FaultKind::kNoMapping);
  CHECK(space.handle_fault(page(984), Access::kWrite) == FaultKind::kResolved);
  limits.stack = 8 * kMiB;
  space.set_limits(limits);
  map(500, 4);
  CHECK(space.handle_fault(page(504 + 255), Access::kWrite) == FaultKind::kNoMapping);
  CHECK(space.handle_fault(page(504 + 256), Access::kWrite) == FaultKind::kResolved);
  // PROT_NONE below is the program's own guard: no further distance is kept.
  CHECK(code(space.protect(page(500), 4 * kPageSize, PROT_NONE)) == 0);
  CHECK(space.handle_fault(page(504), Access::kWrite) == FaultKind::kResolved);
  CHECK(space.handle_fault(page(503), Access::kWrite) == FaultKind::kNoAccess);
  check();
}

TEST_CASE_METHOD(Fixture, "the limit on data holds for mremap, and not for what is replaced") {
  map(0, 4);
  map(10, 8, PROT_READ);
  SpaceLimits limits;
  limits.data = 6 * kPageSize;
  space.set_limits(limits);
  CHECK(remap_errno(page(0), 4 * kPageSize, 7 * kPageSize, MREMAP_MAYMOVE) == ENOMEM);
  CHECK(remap_errno(page(0), 4 * kPageSize, 4 * kPageSize, MREMAP_MAYMOVE | MREMAP_DONTUNMAP,
                    page(40)) == ENOMEM);
  CHECK(remap_errno(page(10), 8 * kPageSize, 16 * kPageSize, 0) == 0);
  CHECK(remap_errno(page(0), 4 * kPageSize, 6 * kPageSize, 0) == 0);
  CHECK(remap_errno(page(0), 6 * kPageSize, 7 * kPageSize, 0) == ENOMEM);
  map(0, 6);  // in place of what is there
  check();
}

TEST_CASE_METHOD(Fixture, "mincore tells what is there") {
  map(0, 4);
  write(1, 1);
  u8 present[4] = {9, 9, 9, 9};
  CHECK(code(space.in_core(page(0), 4 * kPageSize, present)) == 0);
  CHECK(present[0] == 0);
  CHECK(present[1] == 1);
  CHECK(code(space.in_core(page(0) + 1, kPageSize, present)) == EINVAL);
  CHECK(code(space.in_core(page(3), 2 * kPageSize, present)) == ENOMEM);
  CHECK(code(space.in_core(VirtualAddress(kDirectMapBase), kPageSize, present)) == ENOMEM);
}

TEST_CASE_METHOD(Fixture, "mlock and mlockall count, split and are limited") {
  map(0, 8);
  CHECK(code(space.lock_memory(page(1) + 5, kPageSize, 0)) == 0);
  CHECK(space.statistics().locked_bytes == 2 * kPageSize);
  CHECK(space.statistics().vma_count == 3);
  CHECK(code(space.lock_memory(page(0), kPageSize, 8)) == EINVAL);
  CHECK(code(space.lock_memory(page(6), 4 * kPageSize, 0)) == ENOMEM);
  CHECK(space.statistics().locked_bytes == 4 * kPageSize);
  CHECK(code(space.unlock_memory(page(0), 8 * kPageSize)) == 0);
  CHECK(space.statistics().locked_bytes == 0);
  CHECK(space.statistics().vma_count == 1);
  SpaceLimits limits;
  limits.locked = 4 * kPageSize;
  space.set_limits(limits);
  CHECK(code(space.lock_memory(page(0), 5 * kPageSize, 0)) == ENOMEM);
  CHECK(code(space.lock_memory(page(0), 4 * kPageSize, 0)) == 0);
  CHECK(code(space.lock_memory(page(0), 4 * kPageSize, 0)) == 0);
  CHECK(map_errno(page(20), kPageSize, MAP_FIXED | MAP_LOCKED) == EAGAIN);
  CHECK(code(space.lock_all(MCL_CURRENT)) == ENOMEM);
  CHECK(code(space.lock_all(0)) == EINVAL);
  CHECK(code(space.lock_all(MCL_ONFAULT)) == EINVAL);
  limits.locked = kUnlimited;
  space.set_limits(limits);
  CHECK(code(space.lock_all(MCL_CURRENT | MCL_FUTURE)) == 0);
  CHECK(space.statistics().locked_bytes == 8 * kPageSize);
  map(20, 2);
  CHECK(space.statistics().locked_bytes == 10 * kPageSize);
  AddressSpace& child = machine.take_snapshot(space);
  CHECK(child.statistics().locked_bytes == 0);
  CHECK(code(space.unlock_all()) == 0);
  CHECK(space.statistics().locked_bytes == 0);
  check();
}

TEST_CASE_METHOD(Fixture, "msync checks flags, alignment, holes and locks") {
  map(0, 2);
  map(3, 2);
  CHECK(code(space.check_sync(page(0), kPageSize, MS_ASYNC | MS_SYNC)) == EINVAL);
  CHECK(code(space.check_sync(page(0), kPageSize, 64)) == EINVAL);
  CHECK(code(space.check_sync(page(0) + 1, kPageSize, MS_SYNC)) == EINVAL);
  CHECK(code(space.check_sync(page(0), 5 * kPageSize, MS_SYNC)) == ENOMEM);
  CHECK(code(space.check_sync(page(3), 2 * kPageSize, MS_SYNC)) == 0);
  CHECK(code(space.lock_memory(page(3), kPageSize, 0)) == 0);
  CHECK(code(space.check_sync(page(3), 2 * kPageSize, MS_SYNC | MS_INVALIDATE)) == EBUSY);
}

}  // namespace dbos::test
