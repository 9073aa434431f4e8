// The memory that a guest may name in a hypercall: its memory slots, by address.
//
// Read without a lock by every vCPU thread, and by processes that share the VMM's memory and may be
// killed at any instruction, while ranges are added. Ranges are never taken away.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "hypercall/layout.h"
#include "vmm/host/host_lock.h"

namespace dbos::vmm {

// Reads guest memory once: the compiler may not read it again later.
inline void read_guest(void* copy, uint64_t address, size_t bytes) {
  std::memcpy(copy, reinterpret_cast<const void*>(address), bytes);
  asm volatile("" ::: "memory");
}

class GuestMemory {
 public:
  static constexpr uint32_t kRangesMax = 16;

  // What begins where a range ends extends that one. False: no room.
  bool add(uint64_t address, uint64_t size) {
    const HostLockGuard guard(add_lock_);
    if (contains(address, size)) return true;  // its adder was killed right after
    const uint32_t count = count_.load(std::memory_order_relaxed);
    for (uint32_t i = 0; i < count; i++) {
      if (ranges_[i].end.load(std::memory_order_relaxed) != address) continue;
      ranges_[i].end.store(address + size, std::memory_order_release);
      return true;
    }
    if (count == kRangesMax) return false;
    ranges_[count].begin = address;
    ranges_[count].end.store(address + size, std::memory_order_relaxed);
    count_.store(count + 1, std::memory_order_release);
    return true;
  }

  // Whether all of [address, address + size) is the guest's. An empty range counts as one byte.
  bool contains(uint64_t address, uint64_t size) const {
    if (size == 0) size = 1;
    const uint32_t count = count_.load(std::memory_order_acquire);
    for (uint32_t i = 0; i < count; i++) {
      const uint64_t end = ranges_[i].end.load(std::memory_order_acquire);
      if (address >= ranges_[i].begin && address < end && size <= end - address) return true;
    }
    return false;
  }

  // ... and the VMM may access it itself: an access to the window, where files are mapped, can
  // fault, so only Linux makes one.
  bool is_plain(uint64_t address, uint64_t size) const {
    const bool in_window = address >= kWindowBase && address < kWindowBase + kWindowSizeMax;
    return !in_window && contains(address, size);
  }

 private:
  struct Range {
    uint64_t begin = 0;
    std::atomic<uint64_t> end{0};
  };

  HostLock add_lock_;  // for the writers of what is below
  std::atomic<uint32_t> count_{0};
  Range ranges_[kRangesMax];
};

}  // namespace dbos::vmm
