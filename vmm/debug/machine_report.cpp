#include "vmm/debug/machine_report.h"

#include <asm/unistd.h>
#include <fmt/core.h>

#include <string>

#include "vmm/debug/backtrace.h"
#include "vmm/debug/exit_text.h"
#include "vmm/debug/guest_walk.h"
#include "vmm/debug/large_stack.h"
#include "vmm/debug/report_text.h"
#include "vmm/debug/stop.h"
#include "vmm/exit_status.h"
#include "vmm/host/host_call.h"
#include "vmm/kvm/kvm_api.h"
#include "vmm/machine/kernel_image.h"
#include "vmm/machine/machine.h"
#include "vmm/process/signals.h"

namespace dbos::vmm {
namespace {

ProgramFrame frame_of(const kvm_regs& r) {
  ProgramFrame frame = {};
  frame.r15 = r.r15, frame.r14 = r.r14, frame.r13 = r.r13, frame.r12 = r.r12;
  frame.rbp = r.rbp, frame.rbx = r.rbx, frame.r11 = r.r11, frame.r10 = r.r10;
  frame.r9 = r.r9, frame.r8 = r.r8, frame.rax = r.rax, frame.rcx = r.rcx;
  frame.rdx = r.rdx, frame.rsi = r.rsi, frame.rdi = r.rdi;
  frame.rip = r.rip, frame.rflags = r.rflags, frame.rsp = r.rsp;
  return frame;
}

// Of the program an address, no names: which files these come from is told by memory that is
// damaged at best, and nobody has asked this process to open them (docs/decisions, 0015).
CallFrame program_frame_at(uint64_t address) {
  return {address, {}, 0, {}, {}};
}

// The guest kernel's frames, and where it was entered from the program.
std::string backtrace_of(const Vcpu& vcpu, const ProgramFrame& now, const MemoryReader& read) {
  if (now.rip < kKernelImageBase) return format_backtrace({program_frame_at(now.rip)});
  auto frames = kernel_backtrace(built_in_kernel(), now.rip, now.rbp, read);
  const auto& entered = *reinterpret_cast<const ProgramFrame*>(program_frame_address(vcpu.index));
  const auto [begin, end] = auxiliary_vector_range();  // empty without a program
  const uint64_t address = entered.rip;
  const bool has_program = begin != end && address != 0 && address < kProgramEnd;
  if (has_program) frames.push_back(program_frame_at(address));
  return format_backtrace(frames);
}

std::string format_control_state(const Vcpu& vcpu, const kvm_sregs& special) {
  kvm_vcpu_events events = {};
  kvm_call(vcpu.descriptor, KVM_GET_VCPU_EVENTS, &events);
  std::string text =
      fmt::format("cr0 {:016x}  cr2 {:016x}  cr3 {:016x}  cr4 {:016x}  efer {:016x}\n", special.cr0,
                  special.cr2, special.cr3, special.cr4, special.efer);
  if (events.exception.injected != 0 || events.exception.pending != 0) {
    text += fmt::format("exception {} is on its way, error code {:#x}\n",
                        uint32_t{events.exception.nr}, uint32_t{events.exception.error_code});
  }
  return text;
}

void write_machine_report(Vcpu& vcpu, const char* reason, int64_t result) {
  kvm_regs registers = {};
  kvm_sregs special = {};
  kvm_call(vcpu.descriptor, KVM_GET_REGS, &registers);
  kvm_call(vcpu.descriptor, KVM_GET_SREGS, &special);
  const ProgramFrame now = frame_of(registers);
  const MemoryReader read = [&](uint64_t address, void* destination, size_t size) {
    return read_virtual(machine().memory(), special.cr3, address, destination, size);
  };
  const std::string text = fmt::format("{} (vCPU {})\n", reason, vcpu.index) +
                           format_exit(*vcpu.run, result) + format_control_state(vcpu, special);
  // In two parts: the second one follows what the guest has in its memory, which may be damaged.
  write_report(text + format_registers(now) + format_code(now.rip, read) +
               format_last_calls(*vcpu.page));
  write_report(backtrace_of(vcpu, now, read));
}

}  // namespace

void die_with_report(Vcpu& vcpu, const char* reason, int64_t result) {
  block_all_signals();
  run_on_large_stack([&] { write_machine_report(vcpu, reason, result); });
  for (;;) raw_call(__NR_exit_group, static_cast<uint64_t>(ExitStatus::kGuestPanic));
}

}  // namespace dbos::vmm
