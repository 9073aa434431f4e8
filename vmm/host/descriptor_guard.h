// Which file descriptors are the VMM's own. To the program they do not exist.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>

namespace dbos::vmm {

// Of one process: the processes that the program forks have tables of descriptors of their own, and
// a number that is ours in one may be the program's in another. Read on the path of every call,
// also in processes that may be killed anywhere: no locks.
class DescriptorGuard {
 public:
  static constexpr int kDescriptorsMax = 1 << 20;  // fs.nr_open as Linux sets it, others more
  static constexpr int kNone = INT32_MAX;          // no process can have this one: EBADF

  DescriptorGuard() = default;
  // One that knows only numbers below `limit`, which a test can reach.
  explicit DescriptorGuard(int limit) : withheld_(kDescriptorsMax - limit) {}

  bool knows(int descriptor) const {
    return descriptor >= 0 && descriptor < kDescriptorsMax - withheld_;
  }

  // The loader and the machine tell it about each descriptor that they keep.
  void add(int descriptor) {
    if (!knows(descriptor)) return;
    word(descriptor).fetch_or(bit(descriptor), std::memory_order_relaxed);
    int end = end_.load(std::memory_order_relaxed);
    while (end <= descriptor && !end_.compare_exchange_weak(end, descriptor + 1)) {
    }
  }
  void remove(int descriptor) {
    if (!knows(descriptor)) return;
    word(descriptor).fetch_and(~bit(descriptor), std::memory_order_relaxed);
  }

  // As Linux copies the table for a fork. Before anybody else uses this guard.
  void copy_from(const DescriptorGuard& other) {
    const int end = other.end_.load(std::memory_order_relaxed);
    const int words = (std::max(end, end_.load(std::memory_order_relaxed)) + 63) / 64;
    for (int i = 0; i < words; ++i) {
      words_[i].store(other.words_[i].load(std::memory_order_relaxed), std::memory_order_relaxed);
    }
    end_.store(end, std::memory_order_relaxed);
  }

  bool is_ours(int descriptor) const {
    return knows(descriptor) &&
           (word(descriptor).load(std::memory_order_relaxed) & bit(descriptor)) != 0;
  }
  // The smallest of ours that is at least `from`; -1: none.
  int next_ours(int from) const {
    const int end = end_.load(std::memory_order_relaxed);
    for (int descriptor = from; descriptor < end;) {
      const uint64_t rest = word(descriptor).load(std::memory_order_relaxed) >> (descriptor % 64);
      if (rest != 0) return descriptor + __builtin_ctzll(rest);
      descriptor = (descriptor / 64 + 1) * 64;
    }
    return -1;
  }

 private:
  static uint64_t bit(int descriptor) { return uint64_t{1} << (descriptor % 64); }
  std::atomic<uint64_t>& word(int descriptor) { return words_[descriptor / 64]; }
  const std::atomic<uint64_t>& word(int descriptor) const { return words_[descriptor / 64]; }

  int withheld_ = 0;  // not a limit: a guard is all zero, and costs no memory before it is used
  std::atomic<int> end_{0};  // all of ours are below
  std::atomic<uint64_t> words_[kDescriptorsMax / 64]{};
};

// Those of the calling thread's process; of the first one, unless it was told of another.
DescriptorGuard& own_descriptors();
// Numbers that are or were the VMM's in any process: for calls that look into another one's table.
DescriptorGuard& descriptors_of_all_processes();
void set_own_descriptors(DescriptorGuard& guard);

}  // namespace dbos::vmm
