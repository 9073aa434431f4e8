// What the guest kernels are asked to time and to trace.
#pragma once

#include <cstdint>

#include "hypercall/observe.h"
#include "vmm/machine/machine.h"

namespace dbos::vmm {

// Before the first vCPU runs: tells the guest how fast the TSC ticks. `vcpu` is any.
void start_observation(const KvmVcpu& vcpu);

// dbos-run --trace: every call is printed by the thread that made it, before it goes on; none is
// lost. Throws StartError.
void trace_to_log(Machine& machine);

// The rest: from one thread, the control thread.

// Times every call and exit as long as somebody wants it.
void set_time_all(bool on);

// The calls to trace, a bit for each number.
struct TracedCalls {
  uint64_t bits[8];

  void add(uint32_t number) { bits[number / 64] |= uint64_t{1} << number % 64; }
};

enum class TraceStart { kStarted, kBusyWithLog, kNoMemory };
TraceStart start_trace(Machine& machine, const TracedCalls& calls);
void stop_trace();

}  // namespace dbos::vmm
