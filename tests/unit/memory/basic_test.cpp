// One of everything, as a first look whether the memory subsystem works.

#include <linux/mman.h>

#include <catch2/catch.hpp>

#include "tests/unit/memory/machine.h"

namespace dbos::test {

TEST_CASE("memory that was mapped reads as zero, keeps what is written, and goes when unmapped") {
  Machine machine;
  AddressSpace& space = machine.new_space();
  const VirtualAddress at = machine.map(space, 64 * kPageSize);
  CHECK(machine.read(space, at) == 0);
  machine.write(space, at, 42);
  machine.write(space, at + 63 * kPageSize, 43);
  CHECK(machine.read(space, at) == 42);
  CHECK(machine.read(space, at + 63 * kPageSize) == 43);
  check_memory_invariants();
  CHECK(space.unmap(at, 64 * kPageSize).is_ok());
  CHECK(space.handle_fault(at, Access::kRead) == FaultKind::kNoMapping);
  check_memory_invariants();
}

TEST_CASE("a snapshot keeps what was, and either side's writes stay its own") {
  Machine machine;
  AddressSpace& main = machine.new_space();
  const VirtualAddress at = machine.map(main, 8 * kMiB);
  for (u64 i = 0; i < 8 * kMiB; i += 64 * kKiB) machine.write(main, at + i, i + 1);
  AddressSpace& snapshot = machine.take_snapshot(main);
  check_memory_invariants();
  machine.write(main, at, 1000);
  machine.write(snapshot, at + 64 * kKiB, 2000);
  check_memory_invariants();
  CHECK(machine.read(main, at) == 1000);
  CHECK(machine.read(snapshot, at) == 1);
  CHECK(machine.read(main, at + 64 * kKiB) == 64 * kKiB + 1);
  CHECK(machine.read(snapshot, at + 64 * kKiB) == 2000);
  machine.destroy(snapshot);
  check_memory_invariants();
  machine.write(main, at + 128 * kKiB, 3000);
  CHECK(machine.read(main, at) == 1000);
  CHECK(machine.read(main, at + 128 * kKiB) == 3000);
  check_memory_invariants();
}

}  // namespace dbos::test
