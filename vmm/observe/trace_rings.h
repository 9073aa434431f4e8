// The VMM's end of the rings that guest kernels put their traced calls in.
#pragma once

#include <algorithm>
#include <cstdint>

#include "hypercall/observe.h"
#include "vmm/machine/machine.h"

namespace dbos::vmm {

// Makes the rings' memory and its slot, once. To be called before kObserveTrace is set; its callers
// take turns. Result: 0 or -errno.
int64_t make_trace_rings(Machine& machine);

TraceRing& trace_ring(uint32_t vcpu);

// Takes what is there, but `most` at most, out of a vCPU's ring and calls visit(const TraceEvent&)
// with a copy of each event. Returns how many. One at a time for each vCPU.
template <typename Visit>
uint64_t drain_trace_ring(TraceRing& ring, uint64_t& taken, uint64_t most, Visit visit) {
  const uint64_t written = ring.written.load(std::memory_order_acquire);
  // A sound guest is never further ahead.
  if (written - taken > TraceRing::kEvents) taken = written;
  const uint64_t count = std::min(written - taken, most);
  for (uint64_t i = 0; i < count; ++i) {
    const TraceEvent event = ring.events[taken % TraceRing::kEvents];
    ring.taken.store(++taken, std::memory_order_release);
    visit(event);
  }
  return count;
}

// How far a vCPU's ring has been drained: not what the guest could change.
uint64_t& taken_of(uint32_t vcpu);

// dbos-run --trace: from now on each thread prints its own events, and nobody else may drain.
void let_threads_print();
bool do_threads_print();

// Service::kTrace: prints what is in the ring of the calling thread's vCPU, if threads print.
void print_trace(uint32_t vcpu);

// Takes all that is there out of all rings. Result: how many events.
uint64_t drop_trace_events();

// Sum over all vCPUs of the events that found no place.
uint64_t lost_trace_events();

}  // namespace dbos::vmm
