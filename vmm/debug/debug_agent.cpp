// A vCPU of the debugger's own, which enters the guest kernel to perform one DebugRequest: it reads
// and writes a program's memory as the program itself would, faults and copy-on-write included.
#include <cstring>

#include "vmm/debug/debug_state.h"
#include "vmm/machine/machine.h"
#include "vmm/process/host_process.h"
#include "vmm/process/vcpu_thread.h"

namespace dbos::vmm {
namespace {

Vcpu* agent = nullptr;  // the debugger's thread's

Vcpu* acquire_agent(HostProcess& process) {
  if (agent != nullptr) return agent;
  Vcpu* const vcpu = vcpus().acquire(process, nullptr);
  if (vcpu == nullptr) return nullptr;
  begin_use(*vcpu, process, Role::kAgent);
  vcpu->page->debug = kDebugAgent;
  ThreadStop& stop = debug_state().threads[vcpu->index];
  stop.is_debugged = stop.is_scrubbed = false;  // of the thread that the vCPU had before
  agent = vcpu;
  return agent;
}

DebugRequest& request_of(const Vcpu& vcpu) {
  return *reinterpret_cast<DebugRequest*>(vcpu_block(vcpu.index) + kVcpuBounceOffset);
}

size_t perform(Vcpu& vcpu, const DebugRequest& request) {
  request_of(vcpu) = request;
  if (machine().reset_vcpu(vcpu, 0) < 0) return 0;
  while (run_adopted(vcpu) == Adopted::kWaits) {
  }
  const uint64_t done = __atomic_load_n(&request_of(vcpu).done, __ATOMIC_RELAXED);  // once
  return done < request.length ? done : request.length;
}

}  // namespace

size_t transfer_by_agent(DebugOperation operation, const HostProcess& process, uint64_t address,
                         void* data, size_t size) {
  Vcpu* const own = acquire_agent(*debug_state().process);
  const auto process_id = process.process_id;
  if (own == nullptr || process_id == 0) return 0;
  auto* const bytes = reinterpret_cast<uint8_t*>(&request_of(*own) + 1);
  size_t done = 0;
  while (done < size) {
    const size_t part = size - done < kDebugDataMax ? size - done : kDebugDataMax;
    auto* const here = static_cast<uint8_t*>(data) + done;
    if (operation == DebugOperation::kWrite) std::memcpy(bytes, here, part);
    const size_t moved = perform(*own, {operation, process_id, address + done, part, 0});
    if (operation != DebugOperation::kWrite) std::memcpy(here, bytes, moved);
    done += moved;
    if (moved < part) break;
  }
  return done;
}

// An execution breakpoint at the guest kernel's entry must stop the agent.
bool has_debug_registers() {
  static const bool works = [] {
    HostProcess& process = *debug_state().process;
    Vcpu* const own = acquire_agent(process);
    if (own == nullptr) return false;
    ThreadStop& stop = debug_state().threads[own->index];
    stop.exit_cause = StopCause::kNone;
    watch_instruction(*own, machine().kernel_entry());
    perform(*own, {DebugOperation::kRead, process.process_id, 0, 0, 0});
    clear_debug_registers(*own, stop);
    const bool stopped = stop.exit_cause != StopCause::kNone;
    stop.exit_cause = StopCause::kNone;
    return stopped;
  }();
  return works;
}

void release_agent() {
  if (agent == nullptr) return;
  agent->page->debug = 0;
  vcpus().release(*agent);
  agent = nullptr;
}

}  // namespace dbos::vmm
