// A thread that certainly sleeps in a system call: no guess at how long it takes to get there.
#pragma once

#include <initializer_list>
#include <thread>

#include "support.h"

// What Linux tells of the call in which a thread of this process sleeps: "0 0x3 0x7f...", its
// number first; "running" of one that doesn't sleep. Under dbos-run it is the host's call.
inline std::string sleep_of(pid_t thread) {
  const std::string text =
      read_all(("/proc/self/task/" + std::to_string(thread) + "/syscall").c_str());
  REQUIRE(!text.empty());
  return text;
}

inline bool sleeps_in(const std::string& sleep, std::initializer_list<int> calls) {
  char* end = nullptr;
  const long number = strtol(sleep.c_str(), &end, 10);
  if (end == sleep.c_str()) return false;
  return std::any_of(calls.begin(), calls.end(), [=](int call) { return call == number; });
}

// Waits until the thread sleeps in one of these calls and several looks, some time apart, find it
// there unchanged.
inline void wait_until_asleep(pid_t thread, std::initializer_list<int> calls) {
  std::string before;
  for (int unchanged = 0; unchanged < 3;) {
    const std::string sleep = sleep_of(thread);
    unchanged = sleep == before && sleeps_in(sleep, calls) ? unchanged + 1 : 0;
    before = sleep;
    sleep_ms(1);
  }
}

// Makes one call in a thread of its own. Once constructed, the call blocks. `calls` are the system
// calls that Linux may be asked for it: dbos-run turns read into readv where the buffer is in
// pieces.
class BlockedCall {
 public:
  template <typename Call>
  BlockedCall(std::initializer_list<int> calls, Call call)
      : thread_([this, call] {
          id_ = gettid();
          call();
        }) {
    while (id_ == 0) sleep_ms(1);
    wait_until_asleep(id_, calls);
  }
  BlockedCall(const BlockedCall&) = delete;
  BlockedCall& operator=(const BlockedCall&) = delete;

  void join() { thread_.join(); }

 private:
  std::atomic<pid_t> id_{0};
  std::thread thread_;
};
