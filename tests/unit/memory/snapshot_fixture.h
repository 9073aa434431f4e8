// A machine with one address space, to take snapshots of.
#pragma once

#include "tests/unit/memory/machine.h"

namespace dbos::test {

constexpr VirtualAddress page(u64 index) {
  return VirtualAddress(0x1000'0000) + index * kPageSize;
}

struct SnapshotFixture {
  Machine machine{3};
  AddressSpace& main = machine.new_space();
  u64 pages_at_first = frame_allocator.counts().pages;
  u64 nodes_at_first = frame_allocator.counts().nodes;

  void map(AddressSpace& space, u64 first, u64 count, int flags = MAP_STACK) {
    machine.map(space, count * kPageSize, PROT_READ | PROT_WRITE, MAP_FIXED | flags, page(first));
  }
  // Of a file's window, which ends with the mapping.
  void map_file(AddressSpace& space, u64 first, u64 count, bool is_shared = false) {
    const u64 size = count * kPageSize;
    FileIdentity file;
    file.path = "/data/file";
    WindowObject* object =
        window_create(host::make_window(size, size), size, WindowKind::kFile, file).value();
    const Result<VirtualAddress> mapped = space.map_window(
        page(first), size, PROT_READ | PROT_WRITE, MAP_FIXED, {object, 0, is_shared, true});
    window_release(object);
    if (mapped.is_error()) throw std::runtime_error("a file can't be mapped");
  }
  void fill(AddressSpace& space, u64 first, u64 count, u64 value) {
    for (u64 i = 0; i < count; ++i) machine.write(space, page(first + i), value + i);
  }
  // Every second page, so that each is copied alone (guest/snapshot/copy.cpp).
  void fill_apart(AddressSpace& space, u64 first, u64 count, u64 value) {
    for (u64 i = 0; i < count; ++i) machine.write(space, page(first + 2 * i), value + i);
  }
  u64 pages() { return frame_allocator.counts().pages - pages_at_first; }
  // Without those of ready copies, which are nobody's yet.
  u64 nodes() {
    u64 ready = 0;
    for (AddressSpace* space : machine.spaces()) {
      ready += space->ready_counts().table_bytes / kPageSize;
    }
    return frame_allocator.counts().nodes - ready - nodes_at_first;
  }
  u64 lines() {
    u64 ready = 0;
    for (AddressSpace* space = AddressSpace::first(); space != nullptr; space = space->next()) {
      ready += space->is_copy();
    }
    return line_count() - ready;
  }
  PhysicalAddress frame_of(AddressSpace& space, u64 index) {
    return space.tree().find(page(index)).physical(page(index));
  }
};

}  // namespace dbos::test
