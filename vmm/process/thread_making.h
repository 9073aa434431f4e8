// libc takes locks of its own where it makes a thread. A process that ends in the midst of that, or
// executes a program, leaves them taken, and the others that share the memory wait for ever. So it
// says first what it begins (HostProcess::ended_by_itself), and then waits for who is making a
// thread in it; who comes to make one later waits for what has begun.
//
// Nobody waits for long: it is a precaution. Linux keeps a thread in execve for as long as a file
// server takes, or who watches the file (FUSE, NFS, fanotify); and a process that was killed, which
// asks nobody, may have left libc's locks taken already.
#pragma once

#include <cstdint>

#include "vmm/host/clock_ns.h"
#include "vmm/host/host_call.h"
#include "vmm/host/host_lock.h"
#include "vmm/process/host_process.h"

namespace dbos::vmm {

// A thread is made in less than a millisecond; but who makes it may get no processor for tenths of
// a second, where a cgroup has used up its time.
inline constexpr uint64_t kThreadMakingPatience_ns = 1'000'000'000;

// While there is one, the calling thread may make a thread of `process`, which is its own.
class ThreadMaking {
 public:
  explicit ThreadMaking(const HostProcess& process, uint64_t patience_ns = kThreadMakingPatience_ns)
      : lock_(process.thread_making) {
    const uint64_t until = clock_ns(CLOCK_MONOTONIC) + patience_ns;
    for (;;) {
      has_lock_ = lock_.lock_within(0);
      is_safe_ = has_lock_ && process.ended_by_itself.load() == 0;
      if (is_safe_ || clock_ns(CLOCK_MONOTONIC) >= until) return;
      if (has_lock_) lock_.unlock();
      sleep_for(HostLock::kPause_ns);
    }
  }
  ~ThreadMaking() {
    if (has_lock_) lock_.unlock();
  }
  ThreadMaking(const ThreadMaking&) = delete;
  ThreadMaking& operator=(const ThreadMaking&) = delete;

  // False: patience has run out. Who has to make a thread makes it all the same.
  bool is_safe() const { return is_safe_; }

 private:
  HostLock& lock_;
  bool has_lock_ = false;
  bool is_safe_ = false;
};

// By who ends the process, or executes a program in it, when ended_by_itself says so: waits until
// no thread is being made in it.
inline void stop_thread_making(const HostProcess& process) {
  HostLock& lock = process.thread_making;
  if (lock.lock_within(kThreadMakingPatience_ns)) lock.unlock();
}

}  // namespace dbos::vmm
