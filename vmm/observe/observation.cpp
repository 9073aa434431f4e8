#include "vmm/observe/observation.h"

#include "vmm/error.h"
#include "vmm/kvm/kvm_api.h"
#include "vmm/observe/trace_rings.h"
#include "vmm/process/exit_watch.h"

namespace dbos::vmm {
namespace {

void set_flags(uint32_t flags) {
  observe_control().flags.fetch_or(flags);
}

void clear_flags(uint32_t flags) {
  observe_control().flags.fetch_and(~flags);
}

void choose(const TracedCalls& calls) {
  for (int i = 0; i < 8; ++i) observe_control().traced[i].store(calls.bits[i]);
}

}  // namespace

void start_observation(const KvmVcpu& vcpu) {
  constexpr uint64_t kNsPerMs = 1'000'000;
  const int64_t tsc_khz = kvm_call(vcpu.descriptor, KVM_GET_TSC_KHZ);
  // A multiplier of 32 bits: from 4 MHz on.
  if (tsc_khz <= 4000) return;
  observe_control().ns_multiplier =
      static_cast<uint32_t>((kNsPerMs << 24) / static_cast<uint64_t>(tsc_khz));
}

void trace_to_log(Machine& machine) {
  if (make_trace_rings(machine) < 0) throw StartError("not enough memory for --trace");
  TracedCalls all;
  for (uint64_t& bits : all.bits) bits = ~uint64_t{0};
  choose(all);
  let_threads_print();
  set_flags(kObserveTrace | kObserveReport);
}

void set_time_all(bool on) {
  on ? set_flags(kObserveTimeAll) : clear_flags(kObserveTimeAll);
}

TraceStart start_trace(Machine& machine, const TracedCalls& calls) {
  if (do_threads_print()) return TraceStart::kBusyWithLog;
  if (make_trace_rings(machine) < 0) return TraceStart::kNoMemory;
  drop_trace_events();  // what the last trace left is nobody's
  choose(calls);
  set_flags(kObserveTrace);
  return TraceStart::kStarted;
}

void stop_trace() {
  clear_flags(kObserveTrace);
}

}  // namespace dbos::vmm
