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

}  // namespace dbos::test
