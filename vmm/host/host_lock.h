// A lock between the processes that share the VMM's memory. One of them may be killed at any
// instant and must not leave the others waiting: a waiter that finds the holder gone takes the lock
// over, and what the lock guards may be half changed. So what a holder does must be sound to do
// again from the start, or whoever takes the lock over must be able to mend it.
#pragma once

#include <asm/unistd.h>
#include <sys/uio.h>

#include <atomic>
#include <cstdint>
#include <optional>

#include "vmm/host/clock_ns.h"
#include "vmm/host/host_call.h"

namespace dbos::vmm {

// Whether the thread is there and shares our memory. Linux finds a killed one's id until its
// process has been waited for, perhaps by us later on: kill(2) would not tell. This call returns 1
// only for a thread that has its memory still.
inline bool shares_our_memory(uint32_t thread) {
  char byte = 0;
  iovec own = {&byte, 1};
  iovec other = {&byte, 1};
  return raw_call(__NR_process_vm_readv, thread, reinterpret_cast<uint64_t>(&own), 1,
                  reinterpret_cast<uint64_t>(&other), 1, 0) == 1;
}

class HostLock {
 public:
  enum class Taken { kFree, kFromTheDead };
  static constexpr long kPause_ns = 50'000;  // before another look

  Taken lock() {
    for (;;) {
      if (const auto taken = try_lock()) return *taken;
      sleep_for(kPause_ns);
    }
  }
  // False: another one holds it for longer than that.
  bool lock_within(uint64_t limit_ns) {
    const uint64_t until = clock_ns(CLOCK_MONOTONIC) + limit_ns;
    while (!try_lock()) {
      if (clock_ns(CLOCK_MONOTONIC) >= until) return false;
      sleep_for(kPause_ns);
    }
    return true;
  }
  void unlock() { word_.store(0); }

 private:
  std::optional<Taken> try_lock() {
    const uint32_t self = own_thread_id();
    uint32_t holder = 0;
    if (word_.compare_exchange_strong(holder, self)) return Taken::kFree;
    if (!shares_our_memory(holder) && word_.compare_exchange_strong(holder, self)) {
      return Taken::kFromTheDead;
    }
    return std::nullopt;
  }

  std::atomic<uint32_t> word_{0};
};

class HostLockGuard {
 public:
  explicit HostLockGuard(HostLock& lock) : lock_(lock), taken_(lock.lock()) {}
  ~HostLockGuard() { lock_.unlock(); }
  HostLockGuard(const HostLockGuard&) = delete;
  HostLockGuard& operator=(const HostLockGuard&) = delete;

  // Whether the holder before was killed.
  bool is_from_the_dead() const { return taken_ == HostLock::Taken::kFromTheDead; }

 private:
  HostLock& lock_;
  HostLock::Taken taken_;
};

}  // namespace dbos::vmm
