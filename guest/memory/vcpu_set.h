// A set of vCPUs that may be changed and read without a lock.
#pragma once

#include <atomic>
#include <bit>

#include "guest/lib/types.h"

namespace dbos {

class VcpuSet {
 public:
  constexpr VcpuSet() = default;
  void add(u32 vcpu) { words_[vcpu / 64].fetch_or(u64{1} << vcpu % 64); }
  void remove(u32 vcpu) { words_[vcpu / 64].fetch_and(~(u64{1} << vcpu % 64)); }
  bool contains(u32 vcpu) const { return (words_[vcpu / 64].load() >> vcpu % 64 & 1) != 0; }
  bool is_empty() const {
    for (const auto& word : words_) {
      if (word.load() != 0) return false;
    }
    return true;
  }
  template <typename Visit>
  void for_each(Visit visit) const {
    for (u32 i = 0; i < kWords; ++i) {
      for (u64 word = words_[i].load(); word != 0; word &= word - 1) {
        visit(i * 64 + static_cast<u32>(std::countr_zero(word)));
      }
    }
  }

 private:
  static constexpr u32 kWords = kVcpuCountMax / 64;
  std::atomic<u64> words_[kWords] = {};
};

}  // namespace dbos
