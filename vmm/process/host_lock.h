// A lock between the processes that share the VMM's memory. One of them may be killed at any
// instant and must not leave the others waiting: a waiter that finds the holder gone takes the lock
// over, so what a holder does must be sound to do again from the start.
#pragma once

#include <asm/unistd.h>
#include <linux/time_types.h>

#include <atomic>
#include <cerrno>
#include <cstdint>

#include "vmm/process/host_call.h"

namespace dbos::vmm {

class HostLock {
 public:
  void lock() {
    const auto self = static_cast<uint32_t>(raw_call(__NR_gettid));
    for (;;) {
      uint32_t holder = 0;
      if (word_.compare_exchange_strong(holder, self)) return;
      const bool holder_is_gone =
          raw_call(__NR_kill, holder, 0) == -ESRCH && word_.compare_exchange_strong(holder, self);
      if (holder_is_gone) return;
      const __kernel_timespec pause = {0, 50'000};
      raw_call(__NR_nanosleep, reinterpret_cast<uint64_t>(&pause), 0);
    }
  }
  void unlock() { word_.store(0); }

 private:
  std::atomic<uint32_t> word_{0};
};

class HostLockGuard {
 public:
  explicit HostLockGuard(HostLock& lock) : lock_(lock) { lock_.lock(); }
  ~HostLockGuard() { lock_.unlock(); }
  HostLockGuard(const HostLockGuard&) = delete;
  HostLockGuard& operator=(const HostLockGuard&) = delete;

 private:
  HostLock& lock_;
};

}  // namespace dbos::vmm
