#include "vmm/observe/trace_rings.h"

#include "vmm/log.h"
#include "vmm/observe/call_text.h"
#include "vmm/process/exit_watch.h"
#include "vmm/process/vcpu.h"

namespace dbos::vmm {
namespace {

bool is_made = false;
bool threads_print = false;  // set before the program runs; the guest could change its own flag
uint64_t taken[kVcpuCountMax];

}  // namespace

int64_t make_trace_rings(Machine& machine) {
  if (is_made) return 0;
  const int64_t result = machine.make_trace_region();
  is_made = result == 0;
  return result;
}

TraceRing& trace_ring(uint32_t vcpu) {
  return *reinterpret_cast<TraceRing*>(trace_ring_address(vcpu));
}

uint64_t& taken_of(uint32_t vcpu) {
  return taken[vcpu];
}

void let_threads_print() {
  threads_print = true;
}

bool do_threads_print() {
  return threads_print;
}

void print_trace(uint32_t vcpu) {
  if (!threads_print) return;
  drain_trace_ring(trace_ring(vcpu), taken[vcpu], TraceRing::kEvents, [](const TraceEvent& event) {
    Text line;
    put_event(line, event, observe_control().ns_multiplier);
    write_log_line(line.view());
  });
}

uint64_t drop_trace_events() {
  uint64_t count = 0;
  for (const Vcpu& vcpu : vcpus()) {
    count += drain_trace_ring(trace_ring(vcpu.index), taken[vcpu.index], TraceRing::kEvents,
                              [](const TraceEvent&) {});
  }
  return count;
}

uint64_t lost_trace_events() {
  if (!is_made) return 0;
  uint64_t lost = 0;
  for (const Vcpu& vcpu : vcpus()) {
    lost += trace_ring(vcpu.index).lost.load(std::memory_order_relaxed);
  }
  return lost;
}

}  // namespace dbos::vmm
