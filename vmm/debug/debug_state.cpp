#include "vmm/debug/debug_state.h"

#include <asm/unistd.h>

#include "hypercall/abi.h"
#include "vmm/host/host_call.h"

namespace dbos::vmm {
namespace {

// Apart from the rest, so that they are zero pages until they are used.
constinit ThreadStop thread_stops[kVcpuCountMax] = {};
constinit DebugState the_state(thread_stops);

}  // namespace

DebugState& debug_state() {
  return the_state;
}

bool is_any_debugged() {
  bool is_there = false;
  for_each_debugged([&](const Vcpu&, const ThreadStop&) { is_there = true; });
  return is_there;
}

bool is_debugging_enabled() {
  return debug_state().is_enabled.load(std::memory_order_relaxed);
}

bool is_live(const Vcpu& vcpu) {
  return vcpu.state.load() == VcpuState::kBusy && vcpu.is_alive() && vcpu.host_thread.load() != 0 &&
         vcpu.role.load() == Role::kProgram;
}

bool is_at_rest(const Vcpu& vcpu) {
  if (debug_state().threads[vcpu.index].held.load() != 0) return true;
  const uint32_t call = vcpu.current_call.load();
  return call != kNoCall && !is(call, Service::kDebugStop);
}

void set_debug_flags(Vcpu& vcpu, uint32_t to_clear, uint32_t to_set) {
  __atomic_fetch_and(&vcpu.page->debug, ~to_clear, __ATOMIC_SEQ_CST);
  __atomic_fetch_or(&vcpu.page->debug, to_set, __ATOMIC_SEQ_CST);
}

void notify_debugger() {
  const uint64_t one = 1;
  raw_call(__NR_write, static_cast<uint64_t>(debug_state().event), reinterpret_cast<uint64_t>(&one),
           sizeof one);
}

void disarm_step(uint32_t vcpu) {
  ThreadStop& stop = debug_state().threads[vcpu];
  stop.steps_to_return = false;
  if (stop.is_stepping || stop.is_scrubbed) program_frame(vcpu).rflags &= ~kFlagTrap;
  stop.is_stepping = false;
}

}  // namespace dbos::vmm
