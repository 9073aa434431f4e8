// The window's slots, when who adds one is killed.
#include "vmm/machine/window.h"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <vector>

#include "tests/unit/killed_beside.h"
#include "vmm/machine/regions.h"

namespace {

struct Slot {
  uint64_t begin;
  uint64_t end;
};

std::vector<Slot> slots;
bool is_killed_then = false;

}  // namespace

namespace dbos::vmm {

// As KVM: a slot that overlaps another is refused.
int64_t add_memory_slot(int /*vm_descriptor*/, uint64_t address, uint64_t size) {
  const bool overlaps = std::any_of(slots.begin(), slots.end(), [=](const Slot& slot) {
    return address < slot.end && slot.begin < address + size;
  });
  if (overlaps) return -EEXIST;
  slots.push_back({address, address + size});
  if (is_killed_then) die();
  return 0;
}
void keep_out_of_cores(uint64_t /*address*/, uint64_t /*size*/) {}

}  // namespace dbos::vmm

namespace {

using namespace dbos;
using namespace dbos::vmm;

GuestMemory memory;
Window& window() {
  static Window the_window(-1, memory);
  return the_window;
}

uint64_t map_shared(uint64_t size) {
  const int64_t address =
      window().map(-1, 0, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE);
  REQUIRE(address > 0);
  return static_cast<uint64_t>(address);
}

bool is_in_slots(uint64_t begin, uint64_t end) {
  for (const Slot& slot : slots) {  // in the order of their addresses, without gaps
    if (slot.begin <= begin && begin < slot.end) begin = slot.end;
  }
  return begin >= end;
}

}  // namespace

TEST_CASE("a page of the window is in memory once somebody has touched it, by any mapping") {
  slots.reserve(64);
  const uint64_t address = map_shared(kPageSize);
  const int64_t again = window().duplicate(address, kPageSize);
  REQUIRE(again > 0);
  const auto other_mapping = static_cast<uint64_t>(again);
  CHECK_FALSE(window().is_in_memory(address));
  CHECK_FALSE(window().is_in_memory(other_mapping));
  *reinterpret_cast<uint8_t*>(address) = 1;
  CHECK(window().is_in_memory(address));
  CHECK(window().is_in_memory(other_mapping));
}

TEST_CASE("what is no page of the window is not in memory") {
  slots.reserve(64);
  const uint64_t address = map_shared(kPageSize);
  *reinterpret_cast<uint8_t*>(address) = 1;
  REQUIRE(window().is_in_memory(address));
  CHECK_FALSE(window().is_in_memory(address + 8));
  alignas(kPageSize) static uint8_t own[kPageSize];
  own[0] = 1;
  CHECK_FALSE(window().is_in_memory(reinterpret_cast<uint64_t>(own)));
  for (const uint64_t page : {uint64_t{0}, kWindowBase + kWindowSizeMax - kPageSize,
                              kWindowBase + kWindowSizeMax, ~uint64_t{0} - kPageSize + 1}) {
    CHECK_FALSE(window().is_in_memory(page));
  }
  REQUIRE(window().unmap(address, kPageSize) == 0);
  CHECK_FALSE(window().is_in_memory(address));
}

TEST_CASE("the window is in slots where somebody was killed who added one") {
  slots.reserve(64);  // who is killed takes no lock of the allocator's with him
  map_shared(200 * kMiB);
  for (const uint64_t size : {1024 * kMiB, 100 * kMiB, 600 * kMiB}) {
    is_killed_then = true;
    start_beside_us([] { map_shared(1024 * kMiB); });
    is_killed_then = false;
    const uint64_t address = map_shared(size);
    CHECK(is_in_slots(address, address + size));
    CHECK(memory.contains(address, size));
    CHECK(is_in_slots(kWindowBase, slots.back().end));
    CHECK(memory.contains(kWindowBase, slots.back().end - kWindowBase));
    CHECK_FALSE(memory.contains(kWindowBase, slots.back().end - kWindowBase + 1));
  }
}
