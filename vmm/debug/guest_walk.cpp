#include "vmm/debug/guest_walk.h"

#include <algorithm>
#include <cstring>
#include <optional>

#include "hypercall/layout.h"

namespace dbos::vmm {
namespace {

constexpr uint64_t kPresent = 1 << 0;
constexpr uint64_t kLarge = 1 << 7;
constexpr uint64_t kAddressMask = 0x000ffffffffff000;

// The guest-physical address of a virtual one, and how many bytes follow it in the same page.
struct Translation {
  uint64_t physical;
  uint64_t contiguous;
};

std::optional<Translation> translate(const GuestMemory& memory, uint64_t root, uint64_t address) {
  uint64_t table = root & kAddressMask;
  for (int level = 3; level >= 0; --level) {
    const int shift = 12 + 9 * level;
    const uint64_t entry_address = table + (address >> shift & 511) * 8;
    if (!memory.is_plain(entry_address, 8)) return std::nullopt;
    const uint64_t entry = *reinterpret_cast<const volatile uint64_t*>(entry_address);
    if ((entry & kPresent) == 0) return std::nullopt;
    if (level == 0 || (entry & kLarge) != 0) {
      const uint64_t size = 1ull << shift;
      const uint64_t offset = address & (size - 1);
      return Translation{(entry & kAddressMask & ~(size - 1)) + offset, size - offset};
    }
    table = entry & kAddressMask;
  }
  return std::nullopt;
}

}  // namespace

size_t read_virtual(const GuestMemory& memory, uint64_t root, uint64_t address, void* destination,
                    size_t size) {
  size_t done = 0;
  while (done < size) {
    const auto found = translate(memory, root, address + done);
    if (!found) return done;
    const size_t part = std::min<size_t>(
        {size - done, found->contiguous, kPageSize - (address + done) % kPageSize});
    if (!memory.is_plain(found->physical, part)) return done;
    std::memcpy(static_cast<char*>(destination) + done,
                reinterpret_cast<const void*>(found->physical), part);
    done += part;
  }
  return done;
}

}  // namespace dbos::vmm
