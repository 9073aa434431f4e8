// How this host's KVM runs ring 0.
//
// Some hosts offer a /dev/kvm that has no hardware behind it and interprets ring 0 instruction by
// instruction (about 700 ns each; hardware: well under 1 ns; hardware emulated by QEMU: about 10).
// Everything of ours runs in ring 0, so such a host is of no use and has to be told apart.
#pragma once

#include <string>

#include "vmm/machine/boot_tables.h"
#include "vmm/machine/kvm_vcpu.h"

namespace dbos::vmm {

struct RingCheck {
  double instruction_ns;  // of a loop in ring 0
  double exit_ns;         // one hypercall and back
  bool is_native() const { return instruction_ns <= kInterpretedAbove_ns; }
  static constexpr double kInterpretedAbove_ns = 50;
};

// The page that the check runs in, behind the guest kernel's image.
void map_probe_page(BootTables& tables);

// Measures on a vCPU that has not been started yet. Throws StartError.
RingCheck check_ring(KvmVcpu& vcpu);

// The sentence for a host that interprets ring 0.
std::string interpreted_message(const RingCheck& check);

}  // namespace dbos::vmm
