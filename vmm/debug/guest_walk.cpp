#include "vmm/debug/guest_walk.h"

#include <asm/unistd.h>
#include <sys/uio.h>

#include <algorithm>
#include <cstring>
#include <optional>

#include "hypercall/layout.h"
#include "vmm/host/host_call.h"

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

// Bytes copied. Linux makes the access in the window, because files are mapped there: a page may be
// past the end of one.
size_t copy_physical(const GuestMemory& memory, void* destination, uint64_t address, size_t size) {
  if (memory.is_plain(address, size)) {
    std::memcpy(destination, reinterpret_cast<const void*>(address), size);
    return size;
  }
  if (!memory.contains(address, size)) return 0;
  iovec to = {destination, size};
  iovec from = {reinterpret_cast<void*>(address), size};
  const auto self = static_cast<uint64_t>(raw_call(__NR_getpid));
  const int64_t done = raw_call(__NR_process_vm_readv, self, reinterpret_cast<uint64_t>(&to), 1,
                                reinterpret_cast<uint64_t>(&from), 1);
  return done < 0 ? 0 : static_cast<size_t>(done);
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
    const size_t copied =
        copy_physical(memory, static_cast<char*>(destination) + done, found->physical, part);
    done += copied;
    if (copied < part) return done;
  }
  return done;
}

}  // namespace dbos::vmm
