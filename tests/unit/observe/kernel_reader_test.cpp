// The guest kernel's lists and counts as the VMM reads them, and walks of page tables.
#include <linux/mman.h>
#include <sys/mman.h>

#include <catch2/catch.hpp>
#include <cstring>

#include "guest/memory/kernel_view.h"
#include "guest/snapshot/line.h"
#include "tests/unit/memory/machine.h"
#include "vmm/observe/kernel_reader.h"
#include "vmm/observe/page_walk.h"

namespace dbos {
namespace {

uint64_t map_page_for(uint64_t physical) {
  const auto address = reinterpret_cast<uint64_t>(platform::direct_map(PhysicalAddress(physical)));
  void* const page = reinterpret_cast<void*>(address & ~(kPageSize - 1));
  REQUIRE(mmap(page, kPageSize, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
               0) == page);
  return address;
}

// The kernel's memory, which is all of this process here.
struct Fixture {
  Fixture() : view(map_page_for(kKernelViewAddress)), reader(memory, view) {
    memory.add(kPageSize, kProgramEnd - kPageSize);
    publish_kernel_view();
  }
  test::Machine machine;
  vmm::GuestMemory memory;
  uint64_t view;
  vmm::KernelReader reader;
};

}  // namespace

TEST_CASE("address spaces and snapshots are seen as the kernel has them") {
  Fixture fixture;
  AddressSpace& main = fixture.machine.new_space();
  const VirtualAddress at = fixture.machine.map(main, 64 * kPageSize);
  fixture.machine.write(main, at, 1);
  const int64_t taken = fixture.reader.gauge(GaugeName::kSnapshotsTaken);
  AddressSpace& snapshot = fixture.machine.take_snapshot(main);
  fixture.machine.write(main, at, 2);

  REQUIRE(fixture.reader.gauge(GaugeName::kSnapshotsTaken) == taken + 1);
  REQUIRE(fixture.reader.gauge(GaugeName::kEpoch) == static_cast<int64_t>(current_epoch()));
  const auto spaces = fixture.reader.spaces();
  REQUIRE(spaces.size() == 2);
  const vmm::SpaceView* const first = vmm::find_space(spaces, 0);
  REQUIRE(first->root == main.root().value());
  REQUIRE(first->departure == 0);
  REQUIRE(first->copied_pages == main.statistics().copied_pages);
  const vmm::SpaceView* const second = vmm::find_space(spaces, snapshot.root().value());
  REQUIRE(second != nullptr);
  REQUIRE(second->departure == snapshot.line().departure());
  REQUIRE(second->parent_line == first->line);
  REQUIRE(second->taken_ticks != 0);
  REQUIRE(second->retired_pages == snapshot.line().retired_pages());
  REQUIRE(second->retired_pages == 1);
  REQUIRE(first->copied_pages - second->parent_copied_pages == 1);
  REQUIRE(vmm::find_space(spaces, 12345) == nullptr);
  fixture.machine.destroy(snapshot);
  REQUIRE(fixture.reader.spaces().size() == 1);
}

TEST_CASE("what the parent copied is counted from the departure that an orphan has") {
  Fixture fixture;
  AddressSpace& main = fixture.machine.new_space();
  const VirtualAddress at = fixture.machine.map(main, 64 * kPageSize);
  for (u64 i = 0; i < 64; ++i) fixture.machine.write(main, at + i * kPageSize, 1);
  AddressSpace& child = fixture.machine.take_snapshot(main);
  fixture.machine.write(main, at, 2);
  for (u64 i = 0; i < 5; ++i) fixture.machine.write(child, at + i * 8 * kPageSize, 3);
  AddressSpace& grandchild = fixture.machine.take_snapshot(child);
  fixture.machine.destroy(child);
  fixture.machine.write(grandchild, at, 4);  // adopts
  const auto spaces = fixture.reader.spaces();
  const vmm::SpaceView* const first = vmm::find_space(spaces, main.root().value());
  const vmm::SpaceView* const orphan = vmm::find_space(spaces, grandchild.root().value());
  REQUIRE(orphan->parent_line == first->line);
  REQUIRE(first->copied_pages - orphan->parent_copied_pages == 1);
}

TEST_CASE("frames are counted as the allocator counts them") {
  Fixture fixture;
  AddressSpace& main = fixture.machine.new_space();
  const VirtualAddress at = fixture.machine.map(main, 16 * kMiB);
  for (u64 i = 0; i < 64; ++i) fixture.machine.write(main, at + i * kPageSize, i);
  const FrameCounts counts = frame_allocator.counts();
  const auto gauge = [&](GaugeName name) { return static_cast<u64>(fixture.reader.gauge(name)); };
  REQUIRE(gauge(GaugeName::kFramesTotal) == counts.total);
  REQUIRE(gauge(GaugeName::kFramesPages) == counts.pages);
  REQUIRE(gauge(GaugeName::kFramesNodes) == counts.nodes);
  REQUIRE(gauge(GaugeName::kFramesKernel) == counts.kernel);
  REQUIRE(gauge(GaugeName::kRetiredPages) == counts.retired_pages);
  REQUIRE(counts.total - counts.pages - counts.nodes - counts.kernel == counts.free);
}

TEST_CASE("mappings are listed with their rights") {
  Fixture fixture;
  AddressSpace& main = fixture.machine.new_space();
  const VirtualAddress at = fixture.machine.map(main, 8 * kPageSize);
  REQUIRE(main.protect(at + kPageSize, kPageSize, PROT_READ).is_ok());
  const auto spaces = fixture.reader.spaces();
  const auto vmas = fixture.reader.vmas(*vmm::find_space(spaces, 0));
  REQUIRE(vmas.size() == 3);
  REQUIRE(vmas[0].begin == at.value());
  REQUIRE(vmas[1].begin == at.value() + kPageSize);
  REQUIRE(vmas[1].protection == PROT_READ);
  REQUIRE(vmas[2].protection == (PROT_READ | PROT_WRITE));
  REQUIRE(vmas[2].end == at.value() + 8 * kPageSize);
  REQUIRE(vmas[0].kind == VmaKind::kAnonymous);
}

TEST_CASE("a view that is not there, or leads nowhere, is harmless") {
  vmm::GuestMemory memory;
  const uint64_t view_address = map_page_for(kKernelViewAddress);
  auto& view = *reinterpret_cast<KernelView*>(view_address);
  memory.add(view_address, kPageSize);
  const vmm::KernelReader reader(memory, view_address);
  view.version = 0;
  REQUIRE(reader.spaces().empty());
  view.version = kKernelViewVersion;
  view.spaces = 0x1234;
  view.gauge(GaugeName::kEpoch) = {0x5678, 8, UINT32_MAX};
  REQUIRE(reader.spaces().empty());
  REQUIRE(reader.gauge(GaugeName::kEpoch) == 0);
  // A list that leads back to itself ends.
  view.spaces = view_address + 0x700;
  *reinterpret_cast<uint64_t*>(view_address + 0x700) = view_address + 0x700;
  view.space.next = 0;
  REQUIRE(reader.spaces().size() == 4096);
}

TEST_CASE("a walk shows each entry, and stops where a table is none") {
  vmm::GuestMemory memory;
  void* const wanted = reinterpret_cast<void*>(kArenaBase);
  const bool is_made = mmap(wanted, 5 * kPageSize, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) == wanted;
  if (!is_made) return;  // with the thread sanitizer, the arena itself lies there
  memory.add(kArenaBase, 5 * kPageSize);
  const auto table = [&](u64 i) { return reinterpret_cast<uint64_t*>(kArenaBase + i * kPageSize); };
  const uint64_t address = 0x7f12'3456'7890;
  const auto index = [&](int level) { return address >> (12 + 9 * (level - 1)) & 511; };
  table(0)[index(4)] = (kArenaBase + kPageSize) | 3;
  table(1)[index(3)] = (kArenaBase + 2 * kPageSize) | 1;
  table(2)[index(2)] = (kArenaBase + 3 * kPageSize) | 0x23;
  table(3)[index(1)] = 0x8000'0000'0000'0063 | (kArenaBase + 4 * kPageSize);

  vmm::PageWalk walk = vmm::walk_page_table(memory, kArenaBase, address);
  REQUIRE(walk.steps.size() == 4);
  REQUIRE(walk.is_mapped);
  REQUIRE_FALSE(walk.is_writable);  // level 3 takes the right away
  REQUIRE_FALSE(walk.is_executable);
  REQUIRE(walk.physical == kArenaBase + 4 * kPageSize + 0x890);
  REQUIRE(walk.page_size == kPageSize);
  REQUIRE(vmm::flag_names(walk.steps[3].entry, 1) ==
          std::vector<std::string>{"present", "writable", "accessed", "dirty", "no-execute"});
  const auto absent = [&] { return vmm::absent_bytes(walk, address); };
  REQUIRE(absent() == kPageSize);

  table(2)[index(2)] = 0x4000'0020'0000 | 0x83;  // 2 MiB
  walk = vmm::walk_page_table(memory, kArenaBase, address);
  REQUIRE(walk.steps.size() == 3);
  REQUIRE(walk.page_size == kLargePageSize);
  REQUIRE(vmm::flag_names(walk.steps[2].entry, 2).back() == "large");

  table(1)[index(3)] = 0x1000 | 3;  // a table outside of the guest's memory
  walk = vmm::walk_page_table(memory, kArenaBase, address);
  REQUIRE(walk.steps.size() == 2);
  REQUIRE_FALSE(walk.is_mapped);
  REQUIRE(address - address % kPageSize + absent() == 0x7f12'4000'0000);  // 1 GiB further
  table(0)[index(4)] = 0;
  walk = vmm::walk_page_table(memory, kArenaBase, address);
  REQUIRE(walk.steps.size() == 1);
  REQUIRE(vmm::flag_names(walk.steps[0].entry, 4) == std::vector<std::string>{"empty"});
  REQUIRE(address - address % kPageSize + absent() == 0x7f80'0000'0000);
  walk = vmm::walk_page_table(memory, 0x1000, address);  // not even a root
  REQUIRE(address - address % kPageSize + absent() == 0x1'0000'0000'0000);
  munmap(wanted, 5 * kPageSize);
}

}  // namespace dbos
