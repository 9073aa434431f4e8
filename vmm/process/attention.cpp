#include "vmm/process/attention.h"

#include <cerrno>

#include "vmm/kvm/kvm_api.h"
#include "vmm/machine/machine.h"
#include "vmm/process/host_process.h"

namespace dbos::vmm {
namespace {

struct Region {
  std::atomic<uint64_t> begin, end, restart;
};
Region region;

bool is_at(const Region& place, uint64_t instruction) {
  return place.begin.load() <= instruction && instruction < place.end.load();
}

void restart(const Vcpu& vcpu, kvm_regs& registers) {
  registers.rip = region.restart.load();
  registers.rsp = vcpu_stack_top(vcpu.index);
  registers.rflags = 2;
  kvm_call(vcpu.descriptor, KVM_SET_REGS, &registers);
}

int64_t kick(Vcpu& target) {
  const uint32_t thread = target.host_thread.load();
  const HostProcess* const process = target.process;
  if (thread == 0 || process == nullptr) return 0;
  target.kicks_sent.fetch_add(1);
  const bool runs = target.runs_guest.load() != 0;
  const int64_t result = runs ? send_kick(process->process_id, thread) : 0;
  if (!runs || result < 0) target.kicks_sent.fetch_sub(1);
  return result == -EAGAIN ? result : 0;  // ESRCH: it has ended
}

}  // namespace

int64_t set_attention_region(uint64_t begin, uint64_t end, uint64_t restart_address) {
  const bool is_kernel = begin >= kKernelImageBase && begin < end &&
                         restart_address >= kKernelImageBase && region.end.load() == 0;
  if (!is_kernel) return -EINVAL;
  region.begin.store(begin);
  region.restart.store(restart_address);
  region.end.store(end);
  return 0;
}

// A child of vfork() shares the address space, and so has to interrupt another process's vCPUs.
int64_t interrupt_vcpu(const Vcpu& caller, uint64_t index) {
  if (index >= vcpus().count()) return -EINVAL;
  Vcpu& target = vcpus().at(static_cast<uint32_t>(index));
  return &target == &caller ? 0 : kick(target);
}

int64_t request_attention(Vcpu& vcpu) {
  __atomic_store_n(&vcpu.page->attention, 1, __ATOMIC_SEQ_CST);
  return kick(vcpu);
}

void bring_into_kernel(const Vcpu& vcpu) {
  if (__atomic_load_n(&vcpu.page->attention, __ATOMIC_SEQ_CST) == 0) return;
  kvm_regs registers = {};
  if (kvm_call(vcpu.descriptor, KVM_GET_REGS, &registers) < 0) return;
  if (registers.rip < kKernelImageBase) {
    // An exception that is on its way already does as well.
    machine().inject_exception(vcpu, kAttentionVector);
  } else if (is_at(region, registers.rip)) {
    restart(vcpu, registers);
  }
}

void leave_guest(Vcpu& vcpu) {
  vcpu.runs_guest.store(0);
  take_last_kicks(vcpu);
}

void enter_guest(Vcpu& vcpu) {
  vcpu.runs_guest.store(1);
  listen_to_kicks(vcpu);
}

}  // namespace dbos::vmm
