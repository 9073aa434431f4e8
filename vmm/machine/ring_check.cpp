#include "vmm/machine/ring_check.h"

#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <limits>
#include <thread>

#include "vmm/error.h"
#include "vmm/kvm/kvm_api.h"

namespace dbos::vmm {
namespace {

constexpr uint64_t kProbeAddress = kRingCheckAddress - kKernelImageAddress + kKernelImageBase;
constexpr int kRounds = 3;  // the least counts: the first pays for faults
// Where the computer has so much to do that it may have interrupted each of them. The others are
// apart from each other.
constexpr int kRoundsMax = 12;
constexpr std::chrono::milliseconds kPause(10);

// 1: mov %ebx, %ecx; 2: dec %ecx; jnz 2b; out %al, $0xdb; jmp 1b
constexpr uint8_t kProbe[] = {0x89, 0xd9, 0xff, 0xc9, 0x75, 0xfc, 0xe6, kHypercallPort, 0xeb, 0xf6};
// So many that what a debugger or a busy computer adds to an exit, milliseconds, is little among
// them; an interpreter takes its time for each.
constexpr uint32_t kTurns = 100000;
constexpr double kInstructions = 2.0 * kTurns;  // dec, jnz
// The exit alone: out %al, $0xdb; jmp back
constexpr uint8_t kExitProbe[] = {0xe6, kHypercallPort, 0xeb, 0xfc};

void start_at(const KvmVcpu& vcpu, uint64_t address, uint32_t turns) {
  kvm_regs registers = {};
  kvm_call(vcpu.descriptor, KVM_GET_REGS, &registers);
  registers.rip = address;
  registers.rbx = turns;
  kvm_call(vcpu.descriptor, KVM_SET_REGS, &registers);
}

double run_once_ns(const KvmVcpu& vcpu) {
  const auto begin = std::chrono::steady_clock::now();
  int64_t result;
  do {
    result = kvm_call(vcpu.descriptor, KVM_RUN);
  } while (result == -EINTR);
  const auto end = std::chrono::steady_clock::now();
  if (result < 0) {
    throw StartError(
        fmt::format("KVM can't run a virtual CPU: {}{}", std::strerror(static_cast<int>(-result)),
                    result == -EAGAIN ? "; it wants one thread more (ulimit -u, pids.max)" : ""));
  }
  const bool is_hypercall = vcpu.run->exit_reason == KVM_EXIT_IO;
  if (!is_hypercall) {
    throw StartError(
        fmt::format("this KVM can't run a loop in ring 0 (exit reason {}), so dbos can't use it; "
                    "run the program in the emulated machine (dbos-vm run -- ...)",
                    vcpu.run->exit_reason));
  }
  return std::chrono::duration<double, std::nano>(end - begin).count();
}

// The least of some rounds, and of more until it is below `enough_ns`.
double least_ns(const KvmVcpu& vcpu, double enough_ns) {
  double least = run_once_ns(vcpu);
  for (int i = 1; i < kRounds || (i < kRoundsMax && least > enough_ns); ++i) {
    if (i >= kRounds) std::this_thread::sleep_for(kPause);
    least = std::min(least, run_once_ns(vcpu));
  }
  return least;
}

}  // namespace

void map_probe_page(BootTables& tables) {
  tables.map(kProbeAddress, kRingCheckAddress, kPageSize, PageRights::kReadExecute);
}

RingCheck check_ring(KvmVcpu& vcpu) {
  auto* const code = reinterpret_cast<uint8_t*>(kRingCheckAddress);
  std::memcpy(code, kProbe, sizeof kProbe);
  std::memcpy(code + 64, kExitProbe, sizeof kExitProbe);
  start_at(vcpu, kProbeAddress + 64, 0);
  const double exit_ns = least_ns(vcpu, std::numeric_limits<double>::infinity());
  start_at(vcpu, kProbeAddress, kTurns);
  const double all_ns = least_ns(vcpu, exit_ns + RingCheck::kInterpretedAbove_ns * kInstructions);
  return RingCheck{std::max(all_ns - exit_ns, 0.0) / kInstructions, exit_ns};
}

std::string interpreted_message(const RingCheck& check) {
  return fmt::format(
      "this host's KVM interprets ring 0 ({:.0f} ns for an instruction): programs would crawl; run "
      "yours in the emulated machine (dbos-vm run -- dbos-run ...) or on a host with VT-x or AMD-V",
      check.instruction_ns);
}

}  // namespace dbos::vmm
