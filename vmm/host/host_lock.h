// A lock between the processes that share the VMM's memory. One of them may be killed at any
// instant and must not leave the others waiting: a waiter that finds the holder gone takes the lock
// over, and what the lock guards may be half changed. So what a holder does must be sound to do
// again from the start, or whoever takes the lock over must be able to mend it.
#pragma once

#include <asm/unistd.h>
#include <sys/uio.h>

#include <atomic>
#include <cstdint>

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

  Taken lock() {
    const uint32_t self = own_thread_id();
    for (;;) {
      uint32_t holder = 0;
      if (word_.compare_exchange_strong(holder, self)) return Taken::kFree;
      if (!shares_our_memory(holder) && word_.compare_exchange_strong(holder, self)) {
        return Taken::kFromTheDead;
      }
      sleep_for(50'000);
    }
  }
  void unlock() { word_.store(0); }

 private:
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
