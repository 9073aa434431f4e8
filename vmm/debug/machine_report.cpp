#include "vmm/debug/machine_report.h"

#include <asm/unistd.h>
#include <capstone/capstone.h>
#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <string>

#include "vmm/debug/guest_walk.h"
#include "vmm/exit_status.h"
#include "vmm/kvm/kvm_api.h"
#include "vmm/log.h"
#include "vmm/process/host_call.h"
#include "vmm/process/vcpu_thread.h"

namespace dbos::vmm {
namespace {

constexpr int kInstructions = 6;
constexpr int kCallsMax = 24;

void add_registers(std::string& text, const kvm_regs& r, const kvm_sregs& s) {
  auto out = std::back_inserter(text);
  fmt::format_to(out, "  rip {:016x}  rflags {:08x}  cr2 {:016x}  cr3 {:016x}\n", r.rip, r.rflags,
                 s.cr2, s.cr3);
  fmt::format_to(out, "  rax {:016x}  rbx {:016x}  rcx {:016x}  rdx {:016x}\n", r.rax, r.rbx, r.rcx,
                 r.rdx);
  fmt::format_to(out, "  rsi {:016x}  rdi {:016x}  rbp {:016x}  rsp {:016x}\n", r.rsi, r.rdi, r.rbp,
                 r.rsp);
  fmt::format_to(out, "  r8  {:016x}  r9  {:016x}  r10 {:016x}  r11 {:016x}\n", r.r8, r.r9, r.r10,
                 r.r11);
  fmt::format_to(out, "  r12 {:016x}  r13 {:016x}  r14 {:016x}  r15 {:016x}\n", r.r12, r.r13, r.r14,
                 r.r15);
}

void add_instructions(std::string& text, uint64_t root, uint64_t address) {
  uint8_t bytes[16 * kInstructions];
  const size_t size = read_virtual(machine().memory(), root, address, bytes, sizeof bytes);
  csh handle = 0;
  if (size == 0 || cs_open(CS_ARCH_X86, CS_MODE_64, &handle) != CS_ERR_OK) return;
  cs_insn* instructions = nullptr;
  const size_t count = cs_disasm(handle, bytes, size, address, kInstructions, &instructions);
  for (size_t i = 0; i < count; ++i) {
    fmt::format_to(std::back_inserter(text), "  {} {:016x}  {} {}\n", i == 0 ? "=>" : "  ",
                   instructions[i].address, instructions[i].mnemonic, instructions[i].op_str);
  }
  if (count > 0) cs_free(instructions, count);
  cs_close(&handle);
}

void add_call_chain(std::string& text, uint64_t root, uint64_t frame_pointer) {
  for (int i = 0; i < kCallsMax && frame_pointer != 0; ++i) {
    uint64_t frame[2];
    if (read_virtual(machine().memory(), root, frame_pointer, frame, sizeof frame) !=
        sizeof frame) {
      return;
    }
    fmt::format_to(std::back_inserter(text), "  called from {:016x}\n", frame[1]);
    if (frame[0] <= frame_pointer) return;
    frame_pointer = frame[0];
  }
}

void add_last_calls(std::string& text, const HypercallPage& page) {
  const uint32_t count = std::min(page.call_count, kCallBatchMax);
  for (uint32_t i = 0; i < count; ++i) {
    const Call& call = page.calls[i];
    fmt::format_to(std::back_inserter(text),
                   "  call {:#x} ({:#x}, {:#x}, {:#x}, {:#x}, {:#x}, {:#x}) = {}\n", call.number,
                   call.arguments[0], call.arguments[1], call.arguments[2], call.arguments[3],
                   call.arguments[4], call.arguments[5], call.result);
  }
}

}  // namespace

void die_with_report(Vcpu& vcpu, const char* reason) {
  const auto descriptor = static_cast<uint64_t>(vcpu.descriptor);
  kvm_regs registers = {};
  kvm_sregs special = {};
  raw_call(__NR_ioctl, descriptor, KVM_GET_REGS, reinterpret_cast<uint64_t>(&registers));
  raw_call(__NR_ioctl, descriptor, KVM_GET_SREGS, reinterpret_cast<uint64_t>(&special));
  std::string text =
      fmt::format("{} (vCPU {}, KVM exit reason {})\n", reason, vcpu.index, vcpu.run->exit_reason);
  if (vcpu.run->exit_reason == KVM_EXIT_MMIO) {
    fmt::format_to(std::back_inserter(text), "  no memory at guest-physical address {:#x}\n",
                   vcpu.run->mmio.phys_addr);
  }
  add_registers(text, registers, special);
  add_instructions(text, special.cr3, registers.rip);
  add_call_chain(text, special.cr3, registers.rbp);
  add_last_calls(text, *vcpu.page);
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = text.find('\n', begin);
    write_log_line(std::string_view(text).substr(begin, end - begin));
    begin = end + 1;
  }
  for (;;) raw_call(__NR_exit_group, static_cast<uint64_t>(ExitStatus::kGuestPanic));
}

}  // namespace dbos::vmm
