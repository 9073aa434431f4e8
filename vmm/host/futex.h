// Sleeping until another thread changes a word, and waking who sleeps, without libc. It works
// across the processes that share the VMM's memory.
#pragma once

#include <linux/futex.h>
#include <linux/time_types.h>

#include <cstdint>

#include "vmm/host/host_call.h"

namespace dbos::vmm {

// Who waits and who wakes must say the same. kShared: for words that Linux wakes itself when a
// thread ends (CHILD_CLEARTID), and for those of futex_waitv.
enum class FutexKind : uint32_t { kPrivate = FUTEX_PRIVATE_FLAG, kShared = 0 };

// Sleeps while `word` is `value`, at most as long as `timeout`. Result: 0 or -errno. It comes back
// early for a signal.
template <typename Word>
int64_t futex_wait(const Word& word, uint32_t value, const __kernel_timespec* timeout = nullptr,
                   FutexKind kind = FutexKind::kPrivate) {
  static_assert(sizeof(Word) == sizeof(uint32_t));
  return raw_call(__NR_futex, reinterpret_cast<uint64_t>(&word),
                  FUTEX_WAIT | static_cast<uint32_t>(kind), value,
                  reinterpret_cast<uint64_t>(timeout));
}

// Wakes one. Result: how many slept, or -errno.
template <typename Word>
int64_t futex_wake(const Word& word, FutexKind kind = FutexKind::kPrivate) {
  static_assert(sizeof(Word) == sizeof(uint32_t));
  return raw_call(__NR_futex, reinterpret_cast<uint64_t>(&word),
                  FUTEX_WAKE | static_cast<uint32_t>(kind), 1);
}

}  // namespace dbos::vmm
