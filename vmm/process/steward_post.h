// Whose it is to be the steward: one word, so that whoever is killed at any instant leaves the post
// vacant.
#pragma once

#include <atomic>
#include <cstdint>

#include "vmm/host/host_lock.h"

namespace dbos::vmm {

class StewardPost {
 public:
  // By who will make the steward. False: there is one, or somebody else makes it.
  bool claim() {
    uint32_t vacant = 0;
    return is_vacant() && holder_.compare_exchange_strong(vacant, kMaking | own_thread_id());
  }
  // By who has claimed it and could not make one.
  void give_up() {
    uint32_t claim = kMaking | own_thread_id();
    holder_.compare_exchange_strong(claim, 0);
  }

  // By the steward. The word is Linux's to clear when its thread has ended (set_tid_address(2)).
  // False: there is another, which was made because the maker of this one had ended.
  bool take() {
    raw_call(__NR_set_tid_address, reinterpret_cast<uint64_t>(&holder_));
    uint32_t holder = holder_.load();
    if ((holder & kMaking) != 0 && holder_.compare_exchange_strong(holder, own_thread_id())) {
      return true;
    }
    raw_call(__NR_set_tid_address, 0);
    return false;
  }

  // Its maker may have been killed before the steward came that far.
  bool is_vacant() {
    uint32_t holder = holder_.load();
    const bool is_lost = (holder & kMaking) != 0 && !shares_our_memory(holder & ~kMaking);
    return holder == 0 || (is_lost && holder_.compare_exchange_strong(holder, 0));
  }

 private:
  static constexpr uint32_t kMaking = 1u << 31;  // beyond all thread ids of Linux

  std::atomic<uint32_t> holder_{0};  // 0: nobody
};

}  // namespace dbos::vmm
