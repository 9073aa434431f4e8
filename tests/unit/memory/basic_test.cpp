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

// No one holds the lock for more than 1 GiB of what takes time for each page.
TEST_CASE("memory is discarded and counted in stretches") {
  Machine machine;
  AddressSpace& space = machine.new_space();
  constexpr VirtualAddress kBegin{kGiB / 4};
  constexpr u64 kLength = 3 * kGiB;
  machine.map(space, kLength, PROT_READ | PROT_WRITE, MAP_FIXED | MAP_STACK, kBegin);
  for (u64 at = 0; at < kLength; at += kGiB / 2) machine.write(space, kBegin + at, 1);
  CHECK(space.usage({kBegin + kPageSize, kBegin + kLength}).present == 5);
  const u64 before = machine.shootdowns();
  CHECK(space.advise(kBegin, kLength, MADV_DONTNEED).is_ok());
  CHECK(machine.shootdowns() == before + 3);  // from 0.25 GiB on, at 2.75 GiB last
  CHECK(space.usage({kBegin, kBegin + kLength}).present == 0);
  CHECK(space.advise(kBegin, u64{1} << 62, MADV_DONTNEED).error() == Error(ENOMEM));
  check_memory_invariants();
}

}  // namespace dbos::test
