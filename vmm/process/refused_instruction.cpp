#include "vmm/process/refused_instruction.h"

#include <cerrno>

#include "vmm/kvm/kvm_api.h"
#include "vmm/machine/machine.h"

namespace dbos::vmm {
namespace {

// KVM finishes the instruction when it is called next, and enters no guest (an `outs` that is not
// repeated it has finished already: the program counter is then behind it). One that repeats itself
// (rep ins) is to come to its end at once. Who wanted the vCPU's attention meanwhile gets it: the
// fault brings the vCPU into its kernel, which looks.
bool finish_instruction(Vcpu& vcpu, kvm_regs registers) {
  registers.rcx = 1;
  if (kvm_call(vcpu.descriptor, KVM_SET_REGS, &registers) < 0) return false;
  constexpr int kAttemptsMax = 3;
  int64_t result = 0;
  for (int attempt = 0; result == 0 && attempt < kAttemptsMax; ++attempt) {
    vcpu.run->immediate_exit = 1;
    result = kvm_call(vcpu.descriptor, KVM_RUN);
  }
  vcpu.run->immediate_exit = 0;
  return result == -EINTR;
}

bool is_in_program(const Vcpu& vcpu, kvm_regs& registers) {
  return kvm_call(vcpu.descriptor, KVM_GET_REGS, &registers) >= 0 &&
         registers.rip < kKernelImageBase;
}

bool raise_protection_fault(const Vcpu& vcpu, kvm_regs registers) {
  return kvm_call(vcpu.descriptor, KVM_SET_REGS, &registers) >= 0 &&
         machine().inject_exception(vcpu, kGeneralProtectionVector);
}

}  // namespace

bool refuse_port(Vcpu& vcpu) {
  kvm_regs registers = {};
  if (!is_in_program(vcpu, registers) || !finish_instruction(vcpu, registers)) return false;
  return raise_protection_fault(vcpu, registers);
}

bool refuse_halt(Vcpu& vcpu) {
  kvm_regs registers = {};
  if (!is_in_program(vcpu, registers)) return false;
  --registers.rip;  // KVM has gone past it
  return raise_protection_fault(vcpu, registers);
}

}  // namespace dbos::vmm
