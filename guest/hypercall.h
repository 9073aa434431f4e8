// Making hypercalls from the guest kernel.
#pragma once

#include "guest/lib/types.h"
#include "hypercall/abi.h"

namespace dbos {

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
inline i64 repeat_hypercall(Service service, u64 a0, u64 a1 = 0) {
  i64 result = kInterrupted;
  while (is_interrupted(result)) result = hypercall(service, a0, a1);
  return result;
}

// Makes `count` calls with one exit; each call's result is stored in it. Returns how many were
// made: fewer than `count` when one was interrupted.
u32 hypercall_batch(Call* calls, u32 count);

}  // namespace dbos
