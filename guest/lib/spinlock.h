// A lock held for short, bounded work; the guest kernel is never interrupted in it (decision 0010).
// Nothing that can block, and no access to the program's memory, happens under one, unless the
// lock's own comment says so.
#pragma once

#include <atomic>

#include "guest/lib/assert.h"
#include "guest/platform.h"

namespace dbos {

class Spinlock {
 public:
  constexpr Spinlock() = default;
  Spinlock(const Spinlock&) = delete;
  Spinlock& operator=(const Spinlock&) = delete;

  void lock() {
    platform::Wait wait;
    u32 expected = kFree;
    const u32 self = platform::current_vcpu() + 1;
    while (!holder_.compare_exchange_weak(expected, self, std::memory_order_acquire)) {
      DBOS_ASSERT(expected != self);
      expected = kFree;
      // Only looked at while it is taken: an attempt takes the cache line from its holder.
      do {
        wait.turn();
      } while (holder_.load(std::memory_order_relaxed) != kFree);
    }
  }
  void unlock() {
    DBOS_ASSERT(is_mine());
    holder_.store(kFree, std::memory_order_release);
  }
  bool is_mine() const {
    return holder_.load(std::memory_order_relaxed) == platform::current_vcpu() + 1;
  }

 private:
  static constexpr u32 kFree = 0;
  std::atomic<u32> holder_{kFree};  // the holder's vCPU + 1
};

class LockGuard {
 public:
  explicit LockGuard(Spinlock& lock) : lock_(lock) { lock_.lock(); }
  ~LockGuard() { lock_.unlock(); }
  LockGuard(const LockGuard&) = delete;
  LockGuard& operator=(const LockGuard&) = delete;

 private:
  Spinlock& lock_;
};

}  // namespace dbos
