// The futex system call and threads that sleep in it, for the futex programs.
#pragma once

#include <linux/futex.h>
#include <sched.h>

#include <thread>

#include "support.h"

using Word = std::atomic<uint32_t>;
static_assert(sizeof(Word) == 4);

inline long futex(void* word, int operation, uint32_t value, const timespec* timeout = nullptr,
                  void* second = nullptr, uint32_t third = 0) {
  return syscall(SYS_futex, word, operation, value, timeout, second, third);
}
inline long futex_n(void* word, int operation, uint32_t value, uint64_t count,
                    void* second = nullptr, uint32_t third = 0) {
  return syscall(SYS_futex, word, operation, value, count, second, third);
}
inline const int kWait = FUTEX_WAIT_PRIVATE, kWake = FUTEX_WAKE_PRIVATE;

inline timespec after(clockid_t clock, long ms) {
  timespec time = {};
  clock_gettime(clock, &time);
  time.tv_nsec += ms * 1000000;
  time.tv_sec += time.tv_nsec / 1000000000;
  time.tv_nsec %= 1000000000;
  return time;
}

// Threads that wait on a word until somebody wakes them; how many have been, is counted.
struct Sleepers {
  Word word{0};
  std::atomic<int> woken{0};
  std::vector<std::thread> threads;
  void add(int count, uint32_t bits = FUTEX_BITSET_MATCH_ANY) {
    for (int i = 0; i < count; ++i) {
      threads.emplace_back([this, bits] {
        long result = futex(&word, FUTEX_WAIT_BITSET_PRIVATE, 0, nullptr, nullptr, bits);
        CHECK_EQ(result, 0);
        ++woken;
      });
    }
  }
  void join() {
    for (auto& thread : threads) thread.join();
    threads.clear();
  }
  // Wakes exactly `count`, however long the sleepers take to fall asleep.
  void wake_exactly(int count, int operation = FUTEX_WAKE_PRIVATE, uint32_t bits = 0) {
    for (long done = 0; done < count;) {
      long n = futex(&word, operation, static_cast<uint32_t>(count - done), nullptr, nullptr, bits);
      REQUIRE(n >= 0 && n <= count - done);
      done += n;
      if (n == 0) sched_yield();
    }
  }
  void wait_for_woken(int count) {
    while (woken.load() < count) sched_yield();
  }
};
