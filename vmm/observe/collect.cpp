#include "vmm/machine/machine.h"
#include "vmm/observe/figures.h"
#include "vmm/observe/trace_rings.h"
#include "vmm/process/exit_watch.h"
#include "vmm/process/vcpu.h"

namespace dbos::vmm {

Figures collect_figures(Machine& machine) {
  Figures figures{};
  figures.calls.resize(kCallIndexCount);
  figures.vcpus = vcpus().count();
  for (uint32_t i = 0; i < figures.vcpus; ++i) {
    add_counters(figures, *reinterpret_cast<const VcpuCounters*>(vcpu_counters_address(i)));
    add_exits(figures.exits, *vcpus().at(i).statistics);
    if (vcpus().at(i).is_busy()) ++figures.vcpus_busy;
  }
  const KernelReader kernel(machine.memory());
  for (size_t i = 0; i < figures.gauges.size(); ++i) {
    figures.gauges[i] = kernel.gauge(static_cast<GaugeName>(i));
  }
  figures.spaces = kernel.spaces();
  figures.window_bytes = machine.window().used();
  figures.lost_trace_events = lost_trace_events();
  figures.memory_limit_bytes = machine.arena_size_max();
  figures.now_ticks = __builtin_ia32_rdtsc();
  figures.ns_multiplier = observe_control().ns_multiplier;
  return figures;
}

}  // namespace dbos::vmm
