// What the hot paths cost natively, without traps: memory_test "[benchmark]". Numbers are printed,
// never asserted.

#include <catch2/catch.hpp>
#include <cstdio>
#include <cstdlib>
#include <ctime>

#include "tests/unit/memory/machine.h"

namespace dbos::test {
namespace {

constexpr VirtualAddress kBase{0x1000'0000};
VirtualAddress page(u64 index) {
  return kBase + index * kPageSize;
}

template <typename Run>
void measure(const char* what, u64 times, Run run) {
  // The thread's own time: other work on the machine is not ours.
  const auto now = [] {
    timespec time;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return static_cast<double>(time.tv_sec) * 1e9 + static_cast<double>(time.tv_nsec);
  };
  const double begin = now();
  run();
  std::printf("%-60s %10.1f ns\n", what, (now() - begin) / static_cast<double>(times));
}

}  // namespace

TEST_CASE("costs of faults, host buffers and snapshots", "[.][benchmark]") {
  kernel_root_for_tests();
  host::set_vcpu(0);
  host::on_shootdown = nullptr;
  host::on_flush_local = nullptr;
  const char* count_text = std::getenv("BENCHMARK_PAGES");
  const u64 count = count_text == nullptr ? 100000 : std::strtoull(count_text, nullptr, 0);
  // The arena's memory is faulted in by the host first, as the VMM does ahead of time.
  std::memset(pointer_to<char>(PhysicalAddress(kArenaBase)) + kFrameTableSize, 0,
              kGiB - kFrameTableSize);
  for (int round = 0; round < 2; ++round) {
    AddressSpace* space = AddressSpace::create(kernel_root_for_tests()).value();
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_STACK;
    REQUIRE(
        space->map_anonymous(page(0), count * kPageSize, PROT_READ | PROT_WRITE, flags).is_ok());
    for (u64 i = 1; i < 100; ++i) {
      REQUIRE(space->map_anonymous(page(2 * count + 2 * i), kPageSize, PROT_READ, flags).is_ok());
    }
    const auto touch = [&](Access access) {
      for (u64 i = 0; i < count; ++i) space->handle_fault(page(i), access);
    };
    measure("first write of a page (4 KiB, cleared)", count, [&] { touch(Access::kWrite); });
    measure("fault that finds nothing to do", count, [&] { touch(Access::kWrite); });
    HostSegment segments[16];
    const auto resolve = [&](u64 length, Pin pin) {
      for (u64 i = 0; i + 16 < count; ++i) {
        space->resolve_for_host(page(i) + 8, length, Access::kWrite, segments, 16, pin);
        if (pin == Pin::kYes) space->unpin();
      }
    };
    measure("resolve 512 bytes, present", count, [&] { resolve(512, Pin::kNo); });
    measure("resolve 512 bytes, present, pin and unpin", count, [&] { resolve(512, Pin::kYes); });
    measure("resolve 16 KiB, present, pin and unpin", count, [&] { resolve(16384, Pin::kYes); });
    AddressSpace* snapshot = nullptr;
    measure("snapshot of all pages, 101 vmas", 1, [&] { snapshot = space->snapshot().value(); });
    measure("copy-on-write fault", count, [&] { touch(Access::kWrite); });
    measure("end of the snapshot, for each copied page", count,
            [&] { AddressSpace::destroy(snapshot); });
    // Every second page is copied for a snapshot; when that has ended, the others are written.
    snapshot = space->snapshot().value();
    for (u64 i = 0; i < count; i += 2) space->handle_fault(page(i), Access::kWrite);
    AddressSpace::destroy(snapshot);
    u64 faults = 0;
    measure("after the end, to get the other pages back, each", count / 2, [&] {
      for (u64 i = 1; i < count; i += 2) {
        if (space->tree().find(page(i)).is_writable()) continue;
        space->handle_fault(page(i), Access::kWrite);
        ++faults;
      }
    });
    std::printf("%60s %10lu faults\n", "", static_cast<unsigned long>(faults));
    measure("snapshot and end, 100 times", 100, [&] {
      for (int i = 0; i < 100; ++i) AddressSpace::destroy(space->snapshot().value());
    });
    measure("mprotect of one page and back", 2 * count, [&] {
      for (u64 i = 1; i < count - 1; ++i) {
        static_cast<void>(space->protect(page(i), kPageSize, PROT_READ));
        static_cast<void>(space->protect(page(i), kPageSize, PROT_READ | PROT_WRITE));
      }
    });
    measure("mmap, touch and munmap of 64 KiB", 10000, [&] {
      for (u64 i = 0; i < 10000; ++i) {
        const VirtualAddress at =
            space
                ->map_anonymous(VirtualAddress(0), 64 * kKiB, PROT_READ | PROT_WRITE,
                                MAP_PRIVATE | MAP_ANONYMOUS)
                .value();
        space->handle_fault(at, Access::kWrite);
        static_cast<void>(space->unmap(at, 64 * kKiB));
      }
    });
    measure("munmap, for each page", count,
            [&] { static_cast<void>(space->unmap(page(0), count * kPageSize)); });
    AddressSpace::destroy(space);
  }
}

}  // namespace dbos::test
