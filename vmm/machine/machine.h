// The virtual machine: one per dbos-run, shared by the processes that the program forks.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "hypercall/abi.h"
#include "vmm/host/host_lock.h"
#include "vmm/kvm/cpuid.h"
#include "vmm/loader/kernel_file.h"
#include "vmm/machine/kvm_vcpu.h"
#include "vmm/machine/regions.h"
#include "vmm/machine/window.h"
#include "vmm/proxy/guest_memory.h"

namespace dbos::vmm {

class Machine {
 public:
  // Opens /dev/kvm, checks what it offers, and makes a machine with this guest kernel in it and no
  // vCPU. Throws StartError.
  Machine(uint64_t arena_size_max, HostPages arena_pages, const KernelImage& kernel);
  Machine(const Machine&) = delete;
  Machine& operator=(const Machine&) = delete;

  int vm_descriptor() const { return vm_descriptor_; }
  uint64_t kernel_entry() const { return kernel_entry_; }
  uint64_t kernel_root() const { return kernel_root_; }
  // What was asked for, or what the CPU can address, if that is less.
  uint64_t arena_size_max() const { return arena_size_max_; }
  uint32_t physical_address_bits() const { return physical_address_bits_; }
  uint64_t extended_state_mask() const { return extended_state_mask_; }
  GuestMemory& memory() { return memory_; }
  Window& window() { return *window_; }

  // Throws StartError where the CPU lacks something. Separate, because a KVM without hardware
  // behind it deserves another message first (ring_check.h).
  void check_cpu() const;

  // Makes a vCPU known to KVM: descriptor, run page, CPUID, first state. `moves`: of the process,
  // see HostProcess. Result: 0 or -errno.
  int64_t initialize_vcpu(KvmVcpu& vcpu, HostLock& moves);

  // Sets the registers with which a vCPU enters the guest kernel (boot protocol). Its page tables
  // are the boot tables, from the beginning or because the thread before left them so.
  int64_t reset_vcpu(const KvmVcpu& vcpu, uint64_t start_argument);

  // Whether the vCPU's counter still is the host's. KVM keeps it so only while Linux trusts the
  // counter. By the thread that runs the vCPU.
  bool has_host_tsc(const KvmVcpu& vcpu) const;

  // The vCPU takes this exception, with the error code 0 if it has one, when it is next run. False,
  // with nothing done: another one is on its way, or KVM refused. By the thread that runs the vCPU.
  bool inject_exception(const KvmVcpu& vcpu, uint8_t vector) const;

  // Service::kArenaGrow: adds the slot of a chunk. Result: its usable bytes, or -errno. For a chunk
  // that is there it answers the same again. From any thread.
  int64_t grow_arena(uint64_t index);
  // Whether the guest's memory may be so large.
  bool may_have_chunk(uint64_t index) const;

  // Makes the trace region usable (vmm/observe/trace_rings.h). Once. Result: 0 or -errno.
  int64_t make_trace_region();

 private:
  int64_t enter_long_mode(const KvmVcpu& vcpu);
  void open_kvm();
  void make_regions();
  void read_cpuid();

  int kvm_descriptor_ = -1;
  int vm_descriptor_ = -1;
  uint64_t run_size_ = 0;
  uint64_t arena_size_max_;
  HostPages arena_pages_;
  uint64_t kernel_entry_;
  uint64_t kernel_root_ = 0;
  uint64_t extended_state_mask_ = 0;
  uint32_t physical_address_bits_ = 0;
  std::vector<uint8_t> cpuid_;  // a kvm_cpuid2 with its entries
  GuestMemory memory_;
  HostLock arena_lock_;  // for the growing of the arena, which is sound to do again from the start
  std::unique_ptr<Window> window_;
};

// The one machine of this dbos-run.
Machine& machine();
void set_machine(Machine& machine);

}  // namespace dbos::vmm
