// Setting breakpoints and taking them away, while the program is stopped.
#include "vmm/debug/debug_state.h"
#include "vmm/debug/stop.h"

namespace dbos::vmm {
namespace {

constexpr size_t kSoftwareMax = 1024;

BreakpointError insert_software(uint64_t address) {
  DebugState& state = debug_state();
  if (software_breakpoint_at(address) != nullptr) return {};
  if (state.software.size() >= kSoftwareMax) return {"there are too many breakpoints"};
  uint8_t original = 0;
  const bool is_written = read_program(address, &original, 1) == 1 &&
                          write_breakpoint_byte(*state.process, address, kBreakpointInstruction);
  if (!is_written) return {"no breakpoint can be written there"};
  const HostLockGuard guard(state.lock);
  state.software.push_back({address, original});
  return {};
}

}  // namespace

const SoftwareBreakpoint* software_breakpoint_at(uint64_t address) {
  for (const SoftwareBreakpoint& breakpoint : debug_state().software) {
    if (breakpoint.address == address) return &breakpoint;
  }
  return nullptr;
}

bool write_breakpoint_byte(const HostProcess& process, uint64_t address, uint8_t byte) {
  return transfer_by_agent(DebugOperation::kWrite, process, address, &byte, 1) == 1;
}

void take_out_breakpoints(const HostProcess& process) {
  for (const SoftwareBreakpoint& breakpoint : debug_state().software) {
    write_breakpoint_byte(process, breakpoint.address, breakpoint.original);
  }
}

BreakpointError insert_breakpoint(BreakpointKind kind, uint64_t address, uint64_t length) {
  DebugState& state = debug_state();
  if (!state.is_stopped || !is_any_debugged()) return {"the program is not stopped"};
  if (kind == BreakpointKind::kSoftware) return insert_software(address);
  const uint64_t size = kind == BreakpointKind::kHardwareExecute ? 1 : length;
  if (!is_watchable(address, size)) return {"one debug register can't watch that range"};
  if (!has_debug_registers()) {
    return {"the debug registers of this (emulated) machine's guests do not work", true};
  }
  for (auto& slot : state.hardware) {
    if (slot) continue;
    const HostLockGuard guard(state.lock);
    slot = HardwareBreakpoint{kind, address, size};
    ++state.hardware_version;
    return {};
  }
  return {"all four debug registers are in use"};
}

BreakpointError remove_breakpoint(BreakpointKind kind, uint64_t address, uint64_t length) {
  DebugState& state = debug_state();
  if (!state.is_stopped || !is_any_debugged()) return {"the program is not stopped"};
  const uint64_t size = kind == BreakpointKind::kHardwareExecute ? 1 : length;
  for (auto& slot : state.hardware) {
    if (!slot || *slot != HardwareBreakpoint{kind, address, size}) continue;
    const HostLockGuard guard(state.lock);
    slot.reset();
    ++state.hardware_version;
    return {};
  }
  const SoftwareBreakpoint* const found = software_breakpoint_at(address);
  if (kind != BreakpointKind::kSoftware || found == nullptr) return {"there is no such breakpoint"};
  // A child that was forked with it finds it in the list.
  serve_last_children();
  if (is_any_debugged()) write_breakpoint_byte(*state.process, address, found->original);
  const HostLockGuard guard(state.lock);
  state.software.erase(state.software.begin() + (found - state.software.data()));
  return {};
}

}  // namespace dbos::vmm
