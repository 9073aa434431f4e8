// Memory calls on tables that a snapshot shares, or has shared until just now.

#include <catch2/catch.hpp>

#include "tests/unit/memory/snapshot_fixture.h"

namespace dbos::test {

TEST_CASE_METHOD(SnapshotFixture,
                 "mremap with MREMAP_DONTUNMAP out of an empty table that a snapshot shares") {
  constexpr u64 kPages = 256;
  map(main, 0, kPages);
  fill(main, 0, kPages, 1);
  CHECK(main.advise(page(0), kPages * kPageSize, MADV_DONTNEED).is_ok());
  machine.take_snapshot(main);
  CHECK(main.remap(page(0), kPages * kPageSize, kPages * kPageSize,
                   MREMAP_MAYMOVE | MREMAP_DONTUNMAP, VirtualAddress(0))
            .is_ok());
  CHECK(machine.read(main, page(0)) == 0);
  check_memory_invariants();
}

// Two large pages, of which each directory holds one: the snapshot shares the first directory still
// when mprotect() looks at it, and ends while the second page is split.
TEST_CASE_METHOD(SnapshotFixture,
                 "mprotect gives no rights to the other half of a page that a snapshot shared") {
  constexpr VirtualAddress kMiddle{4 * kGiB};
  const VirtualAddress begin(kMiddle.value() - kLargePageSize);
  const VirtualRange halves{begin + kLargePageSize / 2, kMiddle + kLargePageSize / 2};
  machine.map(main, 2 * kLargePageSize, PROT_READ | PROT_WRITE, MAP_FIXED, begin);
  machine.map(main, kPageSize, PROT_READ | PROT_WRITE, MAP_FIXED, kMiddle + kGiB / 2);
  machine.write(main, begin, 1);
  machine.write(main, kMiddle, 2);
  CHECK(main.protect(begin, 2 * kLargePageSize, PROT_NONE).is_ok());
  AddressSpace* snapshot = &machine.take_snapshot(main);
  machine.write(main, kMiddle + kGiB / 2, 3);
  {
    const Hog hog;
    host::on_arena_grow = [&] {
      host::set_vcpu(1);
      if (snapshot != nullptr) machine.destroy(*snapshot);
      snapshot = nullptr;
      host::set_vcpu(0);
    };
    CHECK(main.protect(halves.begin, halves.size(), PROT_READ).is_ok());
    host::on_arena_grow = nullptr;
    CHECK(snapshot == nullptr);
  }
  PhysicalAddress at;
  CHECK(machine.access(main, begin, Access::kRead, &at) == FaultKind::kNoAccess);
  CHECK(machine.access(main, halves.begin, Access::kRead, &at) == FaultKind::kResolved);
  CHECK(machine.read(main, kMiddle) == 2);
  CHECK(machine.access(main, halves.end, Access::kRead, &at) == FaultKind::kNoAccess);
  check_memory_invariants();
}

}  // namespace dbos::test
