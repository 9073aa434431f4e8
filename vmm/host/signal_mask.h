// The calling thread's signals, without libc. Async-signal-safe. Bit n - 1 is signal n.
#pragma once

#include <asm/unistd.h>

#include <csignal>
#include <cstdint>

#include "vmm/host/host_call.h"

namespace dbos::vmm {

// By which a process of ours hears that its parent has ended, and a thread that it is wanted
// (process/signals.h). The program may use it, too.
inline constexpr int kParentDeathSignal = 64;

// As sigprocmask(2). Returns the mask before.
inline uint64_t change_signal_mask(int how, uint64_t signals) {
  uint64_t before = 0;
  raw_call(__NR_rt_sigprocmask, static_cast<uint64_t>(how), reinterpret_cast<uint64_t>(&signals),
           reinterpret_cast<uint64_t>(&before), sizeof signals);
  return before;
}

// Those that wait for the thread, or for its process, because it blocks them.
inline uint64_t pending_signals() {
  uint64_t pending = 0;
  raw_call(__NR_rt_sigpending, reinterpret_cast<uint64_t>(&pending), sizeof pending);
  return pending;
}

}  // namespace dbos::vmm
