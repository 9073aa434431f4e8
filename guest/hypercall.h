// Making hypercalls from the guest kernel.
#pragma once

#include "guest/lib/types.h"
#include "guest/platform.h"
#include "hypercall/abi.h"

namespace dbos {

// An object of the kernel's as a call's argument.
inline u64 host_pointer(const void* object) {
  return platform::physical_of(object).value();
}

// Makes one call on this vCPU and returns its result (negative: -errno, or kInterrupted). May block
// for as long as Linux does; no lock may be held. While the vCPU is in the host it counts as not
// running for TLB shootdowns.
i64 hypercall(u32 number, u64 a0 = 0, u64 a1 = 0, u64 a2 = 0, u64 a3 = 0, u64 a4 = 0, u64 a5 = 0);

inline i64 hypercall(Service service, u64 a0 = 0, u64 a1 = 0, u64 a2 = 0, u64 a3 = 0, u64 a4 = 0,
                     u64 a5 = 0) {
  return hypercall(static_cast<u32>(service), a0, a1, a2, a3, a4, a5);
}

// For a service that is never interrupted: repeats it where the host thread was killed before the
// host had seen the call, which another one then finds interrupted.
inline i64 repeat_hypercall(Service service, u64 a0, u64 a1 = 0, u64 a2 = 0) {
  i64 result = kInterrupted;
  while (is_interrupted(result)) result = hypercall(service, a0, a1, a2);
  return result;
}

// Makes `count` calls with one exit; each call's result is stored in it. Returns how many were
// made: fewer than `count` when one was interrupted.
u32 hypercall_batch(Call* calls, u32 count);

// Gathers calls of services that are never interrupted, and makes as many with one exit as there is
// room for; the last ones when it is destroyed.
class CallBatch {
 public:
  CallBatch() = default;
  ~CallBatch() { send(); }
  CallBatch(const CallBatch&) = delete;
  CallBatch& operator=(const CallBatch&) = delete;

  void add(Service service, u64 argument) {
    calls_[count_++] = Call{static_cast<u32>(service), 0, {argument}, 0};
    if (count_ == kCallBatchMax) send();
  }

 private:
  void send() {
    for (u32 done = 0; done < count_;) done += hypercall_batch(calls_ + done, count_ - done);
    count_ = 0;
  }

  Call calls_[kCallBatchMax];
  u32 count_ = 0;
};

}  // namespace dbos
