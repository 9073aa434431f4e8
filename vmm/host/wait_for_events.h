// What the VMM's own threads wait with.
#pragma once

#include <poll.h>

#include <cerrno>
#include <span>

#include "vmm/host/host_call.h"

namespace dbos::vmm {

// poll(2), but that a refusal takes its time: no more descriptors than RLIMIT_NOFILE may be waited
// for, and that limit is the program's. `timeout_ms` negative: no bound.
inline void wait_for_events(std::span<pollfd> watched, int timeout_ms) {
  constexpr long kPause_ns = 50'000'000;
  if (poll(watched.data(), watched.size(), timeout_ms) >= 0) return;
  for (pollfd& one : watched) one.revents = 0;
  if (errno != EINTR) sleep_for(kPause_ns);
}

}  // namespace dbos::vmm
