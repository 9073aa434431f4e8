#include "vmm/debug/registers.h"

#include <cstring>

#include "vmm/debug/debug_state.h"
#include "vmm/kvm/kvm_api.h"
#include "vmm/process/host_process.h"

namespace dbos::vmm {
namespace {

// For a thread that is about to be held.
constexpr uint32_t kPatience_ms = 5000;

// What popf can change in ring 3.
constexpr uint64_t kFlagsOfProgram = 0x240dd5;

// As for Linux's ptrace: a call that a signal has interrupted is still to be made again, or to
// fail, unless orig_rax or its result says otherwise.
uint64_t vector_of(const ProgramFrame& wanted, const ProgramFrame& before) {
  const bool is_open =
      wanted.vector == kSystemCallVector && is_interrupted(static_cast<int64_t>(wanted.rax));
  if (is_open) return kSystemCallVector;
  return before.vector == kSystemCallVector ? kRestoredVector : before.vector;
}

// What KVM or the processor would refuse, so that the vCPU could not go on.
bool can_be_loaded(const Registers& registers) {
  constexpr uint32_t kControlBits = 0xffff;  // without those that are reserved
  uint32_t control = 0;
  std::memcpy(&control, &registers.extended[kMxcsrOffset], sizeof control);
  return registers.fs_base < kProgramEnd && registers.gs_base < kProgramEnd &&
         (control & ~kControlBits) == 0;
}

}  // namespace

bool load_special_registers(const Vcpu& vcpu, Registers* registers) {
  kvm_sregs special = {};
  static_assert(sizeof(kvm_xsave) == kExtendedStateSize);
  if (kvm_call(vcpu.descriptor, KVM_GET_SREGS, &special) < 0) return false;
  if (kvm_call(vcpu.descriptor, KVM_GET_XSAVE, registers->extended.data()) < 0) return false;
  registers->fs_base = special.fs.base;
  registers->gs_base = special.gs.base;
  registers->has_special = true;
  return true;
}

bool read_kernel_place(uint32_t vcpu, KernelPlace* place) {
  const Vcpu& thread = vcpus().at(vcpu);
  kvm_regs registers = {};
  const bool is_readable =
      is_live(thread) && is_at_rest(thread) && vcpus().is_usable(thread, *debug_state().process);
  if (!is_readable || kvm_call(thread.descriptor, KVM_GET_REGS, &registers) < 0) return false;
  *place = {registers.rip, registers.rbp};
  return true;
}

void store_special_registers(const Vcpu& vcpu, const Registers& registers) {
  kvm_sregs special = {};
  if (kvm_call(vcpu.descriptor, KVM_GET_SREGS, &special) < 0) return;
  special.fs.base = registers.fs_base;
  special.gs.base = registers.gs_base;
  kvm_call(vcpu.descriptor, KVM_SET_SREGS, &special);
  alignas(64) std::array<uint8_t, kExtendedStateSize> extended = registers.extended;
  kvm_call(vcpu.descriptor, KVM_SET_XSAVE, extended.data());
}

void clear_debug_registers(const Vcpu& vcpu, ThreadStop& stop) {
  kvm_guest_debug debug = {};
  kvm_call(vcpu.descriptor, KVM_SET_GUEST_DEBUG, &debug);
  stop.debug_registers = 0;
}

void watch_instruction(const Vcpu& vcpu, uint64_t address) {
  kvm_guest_debug debug = {};
  debug.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP;
  debug.arch.debugreg[0] = address;
  const std::optional<HardwareBreakpoint> slots[kDebugRegisters] = {
      HardwareBreakpoint{BreakpointKind::kHardwareExecute, address, 1}};
  debug.arch.debugreg[7] = debug_control(slots);
  kvm_call(vcpu.descriptor, KVM_SET_GUEST_DEBUG, &debug);
}

void load_debug_registers(const Vcpu& vcpu, ThreadStop& stop) {
  const DebugState& state = debug_state();
  if (stop.debug_registers == state.hardware_version) return;
  kvm_guest_debug debug = {};
  for (uint32_t i = 0; i < kDebugRegisters; ++i) {
    if (!state.hardware[i]) continue;
    debug.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP;
    debug.arch.debugreg[i] = state.hardware[i]->address;
  }
  debug.arch.debugreg[7] = debug_control(state.hardware);
  kvm_call(vcpu.descriptor, KVM_SET_GUEST_DEBUG, &debug);
  stop.debug_registers = state.hardware_version;
}

std::vector<ThreadView> debugged_threads() {
  std::vector<ThreadView> views;
  for_each_debugged([&](const Vcpu& vcpu, const ThreadStop& stop) {
    if (!vcpu.has_host_thread()) return;
    const uint32_t call = vcpu.current_call.load();
    ThreadPlace place = ThreadPlace::kRunning;
    if (stop.held.load() != 0) {
      place = ThreadPlace::kHeld;
    } else if (is_at_rest(vcpu)) {
      place = ThreadPlace::kInCall;
    }
    views.push_back({vcpu.index, vcpu.host_thread.load(), vcpu.process->process_id, place,
                     place == ThreadPlace::kInCall ? call : 0});
  });
  return views;
}

bool read_registers(uint32_t vcpu, Registers* registers) {
  const Vcpu& thread = vcpus().at(vcpu);
  const ThreadStop& stop = debug_state().threads[vcpu];
  // One that is on its way back from a host call is held in a moment.
  if (is_stopped()) wait_until_at_rest(thread, kPatience_ms);
  if (!is_live(thread) || !is_at_rest(thread)) return false;
  const bool is_held = stop.held.load() != 0;
  if (is_held) *registers = stop.registers;
  registers->general = program_frame(vcpu);
  registers->general.rflags &= ~kFlagTrap;
  if (is_held) return true;
  registers->has_special = vcpus().is_usable(thread, *debug_state().process) &&
                           load_special_registers(thread, registers);
  return true;
}

bool write_registers(uint32_t vcpu, const Registers& registers) {
  const HostLockGuard guard(debug_state().lock);
  ThreadStop& stop = debug_state().threads[vcpu];
  if (!is_live(vcpus().at(vcpu)) || stop.held.load() == 0) return false;
  if (!can_be_loaded(registers)) return false;
  ProgramFrame& frame = program_frame(vcpu);
  const ProgramFrame before = frame;
  frame = registers.general;
  frame.cs = before.cs;
  frame.ss = before.ss;
  frame.vector = vector_of(registers.general, before);
  if (frame.vector != kSystemCallVector) frame.error_code = before.error_code;
  frame.rflags = (before.rflags & ~kFlagsOfProgram) | (registers.general.rflags & kFlagsOfProgram);
  stop.registers = registers;
  stop.is_changed = true;
  return true;
}

}  // namespace dbos::vmm
