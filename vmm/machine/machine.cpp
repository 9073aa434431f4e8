#include "vmm/machine/machine.h"

#include <asm/unistd.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "hypercall/syscall_kinds.h"
#include "vmm/error.h"
#include "vmm/host/host_call.h"
#include "vmm/host/keep_descriptor.h"
#include "vmm/kvm/capabilities.h"
#include "vmm/kvm/cpuid.h"
#include "vmm/kvm/kvm_api.h"
#include "vmm/machine/boot_tables.h"
#include "vmm/machine/kernel_image.h"
#include "vmm/machine/regions.h"
#include "vmm/machine/ring_check.h"

namespace dbos::vmm {
namespace {

// An Intel CPU of before 2010 keeps a task state segment for real mode here. Unused by us, but KVM
// asks for it before the first run.
constexpr uint64_t kTssAddress = 0xfffbd000;

// Bits of control registers (SDM volume 3, 2.5, 2.2.1; AMD64 APM volume 2, 3.1).
constexpr uint64_t kCr0ProtectedMode = 1 << 0;
constexpr uint64_t kCr0ExtensionType = 1 << 4;
constexpr uint64_t kCr0NumericError = 1 << 5;
constexpr uint64_t kCr0WriteProtect = 1 << 16;
constexpr uint64_t kCr0Paging = 1u << 31;
constexpr uint64_t kCr4PhysicalAddressExtension = 1 << 5;
constexpr uint64_t kEferLongModeEnable = 1 << 8;
constexpr uint64_t kEferLongModeActive = 1 << 10;
constexpr uint64_t kEferNoExecuteEnable = 1 << 11;

Machine* the_machine = nullptr;

// Any signal that is pending for this thread, a stop and a timer too, interrupts it.
int create_vm(int kvm_descriptor) {
  constexpr int kAttemptsMax = 1000;
  int vm = -1;
  for (int attempt = 0; attempt < kAttemptsMax; ++attempt) {
    vm = ioctl(kvm_descriptor, KVM_CREATE_VM, 0);
    if (vm >= 0 || errno != EINTR) break;
  }
  return vm;
}

void check(int64_t result, const char* what) {
  if (result >= 0) return;
  throw StartError::with_code(static_cast<int>(-result), "can't {}", what);
}

int64_t access_tsc_offset(const KvmVcpu& vcpu, uint64_t request, uint64_t& offset) {
  kvm_device_attr attribute = {};
  attribute.group = KVM_VCPU_TSC_CTRL;
  attribute.attr = KVM_VCPU_TSC_OFFSET;
  attribute.addr = reinterpret_cast<uint64_t>(&offset);
  return kvm_call(vcpu.descriptor, request, &attribute);
}

// Whether Linux gives the process one mapping more, of so many bytes. 0 or -errno.
int64_t look_for_room(uint64_t size) {
  const int64_t result = raw_call(__NR_mmap, 0, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS,
                                  static_cast<uint64_t>(-1), 0);
  if (result < 0) return result;
  return raw_call(__NR_munmap, static_cast<uint64_t>(result), size);
}

// Our processes share one memory. Before Linux 5.16 (commit 0258b5fd7c71), one that died by a
// signal that dumps core took all of them with it, whatever RLIMIT_CORE said.
void check_linux() {
  utsname system = {};
  unsigned version = 0;
  unsigned patch_level = 0;
  uname(&system);
  const int found = std::sscanf(system.release, "%u.%u", &version, &patch_level);
  if (found != 2 || version > 5 || (version == 5 && patch_level >= 16)) return;
  throw StartError(
      fmt::format("this is Linux {}, where a forked child that crashes ends the whole program: a "
                  "newer kernel is needed, 6.1 or later",
                  system.release));
}

[[noreturn]] void refuse_device(int error) {
  constexpr const char* kElse = "or run the program in the emulated machine (dbos-vm run -- ...)";
  switch (error) {
    case ENOENT:
      throw StartError(fmt::format(
          "there is no /dev/kvm: load the kvm_intel or kvm_amd module, let the container or the "
          "service (PrivateDevices=false) have the device, {}",
          kElse));
    case EACCES:
      throw StartError(fmt::format(
          "no right to open /dev/kvm: become a member of its group (usually kvm), {}", kElse));
    case EPERM:
      throw StartError(fmt::format(
          "the cgroup forbids /dev/kvm: allow the container (--device /dev/kvm) or the service "
          "(DeviceAllow=/dev/kvm rw) to use it, {}",
          kElse));
    default:
      throw StartError(fmt::format("can't open /dev/kvm: {}", strerrordesc_np(error)));
  }
}

}  // namespace

Machine::Machine(uint64_t arena_size_max, HostPages arena_pages, const KernelImage& kernel)
    : arena_size_max_(arena_size_max), arena_pages_(arena_pages), kernel_entry_(kernel.entry) {
  open_kvm();
  make_regions();
  read_cpuid();
  arena_size_max_ = std::min(arena_size_max_, arena_size_limit(physical_address_bits_));
  BootTables tables(physical_end(physical_address_bits_),
                    has_gigabyte_pages(cpuid_) ? DirectMapPage::k1GiB : DirectMapPage::k2MiB);
  place_kernel_image(kernel, tables);
  map_probe_page(tables);
  map_vcpu_blocks(tables);
  kernel_root_ = tables.root();
}

void Machine::open_kvm() {
  check_linux();
  const int descriptor = open("/dev/kvm", O_RDWR | O_CLOEXEC);
  if (descriptor < 0) refuse_device(errno);
  kvm_descriptor_ = keep_descriptor(descriptor);
  const int version = ioctl(kvm_descriptor_, KVM_GET_API_VERSION, 0);
  if (version != KVM_API_VERSION) {
    throw StartError(
        fmt::format("/dev/kvm has API version {}, but {} is needed", version, KVM_API_VERSION));
  }
  if (const std::string missing = missing_capabilities(kvm_descriptor_); !missing.empty()) {
    throw StartError("this kernel's KVM lacks " + missing + ": a newer kernel is needed");
  }
  const int vm = create_vm(kvm_descriptor_);
  if (vm < 0 && errno == EBUSY) {
    throw StartError(
        "KVM can't make a virtual machine: another hypervisor (VirtualBox, VMware) uses the "
        "processor's virtualization; stop it");
  }
  if (vm < 0) throw StartError::with_errno("KVM can't make a virtual machine");
  vm_descriptor_ = keep_descriptor(vm);
  const int run_size = ioctl(kvm_descriptor_, KVM_GET_VCPU_MMAP_SIZE, 0);
  if (run_size < 0) throw StartError::with_errno("KVM does not say how large a vCPU's block is");
  run_size_ = static_cast<uint64_t>(run_size);
  if (ioctl(vm_descriptor_, KVM_SET_TSS_ADDR, kTssAddress) < 0) {
    throw StartError::with_errno("KVM can't place its task state segment");
  }
  check(disable_performance_counters(vm_descriptor_), "leave out the performance counters");
  check(keep_pause_in_guest(vm_descriptor_), "keep PAUSE in the guest");
  // There are no interrupt controllers: nothing interrupts (decision 0010). And without them KVM
  // does not have pages fetched behind the guest's back, which would be tried for ever with a page
  // of a file that was cut: the guest is not told that there is none.
}

void Machine::make_regions() {
  reserve_region(kKernelRegionBase, kKernelRegionSize, "the guest kernel");
  reserve_region(kVcpuRegionBase, kVcpuRegionSize, "vCPU blocks");
  reserve_region(kTraceRegionBase, kTraceRegionSize, "traces");
  reserve_region(kWindowBase, kWindowSizeMax, "file mappings");
  reserve_region(kArenaBase, kArenaSizeMax, "guest memory");
  reserve_region(syscalls::kFaultHoleBase, syscalls::kFaultHoleSize, "bad pointers");
  check(commit_region(kKernelRegionBase, kKernelRegionSize, HostPages::kSmall),
        "get memory for the guest kernel");
  check(commit_region(kVcpuRegionBase, kVcpuRegionSize, HostPages::kSmall),
        "get memory for vCPU blocks");
  check(add_memory_slot(vm_descriptor_, kKernelRegionBase, kKernelRegionSize),
        "give KVM the guest kernel's memory");
  check(add_memory_slot(vm_descriptor_, kVcpuRegionBase, kVcpuRegionSize),
        "give KVM the vCPU blocks");
  memory_.add(kKernelRegionBase, kKernelRegionSize);
  memory_.add(kVcpuRegionBase, kVcpuRegionSize);
  window_ = std::make_unique<Window>(vm_descriptor_, memory_);
}

void Machine::read_cpuid() {
  cpuid_ = supported_cpuid(kvm_descriptor_);
  extended_state_mask_ = restrict_cpuid(cpuid_);
  physical_address_bits_ = dbos::vmm::physical_address_bits(cpuid_);
}

void Machine::check_cpu() const {
  if (physical_address_bits_ >= kPhysicalAddressBitsMin) return;
  throw StartError(
      fmt::format("this CPU (or its hypervisor) has {} bits of physical address, but {} are needed",
                  physical_address_bits_, kPhysicalAddressBitsMin));
}

int64_t Machine::initialize_vcpu(KvmVcpu& vcpu, HostLock& moves) {
  // KVM takes no vCPU back: one without its run page would be lost.
  int64_t result = look_for_room(run_size_);
  if (result < 0) return result;
  {
    // Linux gives the lowest free number; neither the program nor a child is to see it.
    const HostLockGuard guard(moves);
    const int64_t low = make_descriptor(__NR_ioctl, static_cast<uint64_t>(vm_descriptor_),
                                        KVM_CREATE_VCPU, vcpu.index);
    if (low < 0) return low;
    vcpu.descriptor = keep_descriptor(static_cast<int>(low));
  }
  if (vcpu.descriptor < 0) return vcpu.descriptor;
  const int64_t run = raw_call(__NR_mmap, 0, run_size_, PROT_READ | PROT_WRITE, MAP_SHARED,
                               static_cast<uint64_t>(vcpu.descriptor), 0);
  if (is_errno(run)) return run;
  vcpu.run = reinterpret_cast<kvm_run*>(run);
  vcpu.run->immediate_exit = 0;  // the page fault is better here than in a fork
  result = set_cpuid(vcpu.descriptor, cpuid_, vcpu.index);
  if (result < 0) return result;
  // Here and not by the guest's own xsetbv: QEMU's SVM does not intercept that, so KVM would not
  // know.
  kvm_xcrs extended_state = {};
  extended_state.nr_xcrs = 1;
  extended_state.xcrs[0].value = extended_state_mask_;
  if (extended_state_mask_ != 0) {
    result = kvm_call(vcpu.descriptor, KVM_SET_XCRS, &extended_state);
    if (result < 0) return result;
  }
  // The guest's TSC is the host's, so that the clock page's parameters hold on every vCPU.
  uint64_t no_offset = 0;
  result = access_tsc_offset(vcpu, KVM_SET_DEVICE_ATTR, no_offset);
  return result < 0 ? result : enter_long_mode(vcpu);
}

// The segments, control registers and boot page tables that every vCPU starts with. Once: a thread
// that ends leaves them as they are.
int64_t Machine::enter_long_mode(const KvmVcpu& vcpu) {
  kvm_sregs special = {};
  const int64_t result = kvm_call(vcpu.descriptor, KVM_GET_SREGS, &special);
  if (result < 0) return result;
  kvm_segment code = {};
  code.limit = 0xffffffff;
  code.selector = 0x08;
  code.type = 11;  // execute, read, accessed
  code.present = 1;
  code.s = 1;
  code.l = 1;
  code.g = 1;
  kvm_segment data = code;
  data.selector = 0x10;
  data.type = 3;  // read, write, accessed
  data.l = 0;
  data.db = 1;
  special.cs = code;
  special.ss = data;
  special.ds = special.es = special.fs = special.gs = data;
  special.cr0 =
      kCr0Paging | kCr0WriteProtect | kCr0NumericError | kCr0ExtensionType | kCr0ProtectedMode;
  special.cr3 = kernel_root();
  special.cr4 = kCr4PhysicalAddressExtension;
  special.efer = kEferLongModeEnable | kEferLongModeActive | kEferNoExecuteEnable;
  return kvm_call(vcpu.descriptor, KVM_SET_SREGS, &special);
}

int64_t Machine::reset_vcpu(const KvmVcpu& vcpu, uint64_t start_argument) {
  kvm_regs registers = {};
  registers.rip = kernel_entry_;
  registers.rsp = vcpu_stack_top(vcpu.index);
  registers.rflags = 2;
  registers.rdi = vcpu.index;
  registers.rsi = start_argument;
  return kvm_call(vcpu.descriptor, KVM_SET_REGS, &registers);
}

bool Machine::has_host_tsc(const KvmVcpu& vcpu) const {
  uint64_t offset = 0;
  return access_tsc_offset(vcpu, KVM_GET_DEVICE_ATTR, offset) >= 0 && offset == 0;
}

bool Machine::inject_exception(const KvmVcpu& vcpu, uint8_t vector) const {
  kvm_vcpu_events events = {};
  const int64_t result = kvm_call(vcpu.descriptor, KVM_GET_VCPU_EVENTS, &events);
  if (result < 0 || events.exception.injected != 0 || events.exception.pending != 0) return false;
  events.exception.injected = 1;
  events.exception.nr = vector;
  events.exception.has_error_code = vector == kGeneralProtectionVector ? 1 : 0;
  events.exception.error_code = 0;
  events.flags = 0;
  return kvm_call(vcpu.descriptor, KVM_SET_VCPU_EVENTS, &events) >= 0;
}

int64_t Machine::make_trace_region() {
  const int64_t result = commit_region(kTraceRegionBase, kTraceRegionSize, HostPages::kSmall);
  // Not added to memory_: no hypercall has business there.
  return result < 0 ? result : add_memory_slot(vm_descriptor_, kTraceRegionBase, kTraceRegionSize);
}

bool Machine::may_have_chunk(uint64_t index) const {
  return index < kArenaSizeMax / kArenaChunkSize && index * kArenaChunkSize < arena_size_max_;
}

int64_t Machine::grow_arena(uint64_t index) {
  if (!may_have_chunk(index)) return -ENOMEM;
  const uint64_t offset = index * kArenaChunkSize;
  const uint64_t size = std::min(kArenaChunkSize, arena_size_max_ - offset);
  const uint64_t address = kArenaBase + offset;
  const HostLockGuard guard(arena_lock_);
  if (memory_.contains(address, size)) return static_cast<int64_t>(size);
  int64_t result = commit_region(address, size, arena_pages_);
  if (result < 0) return result;
  result = add_memory_slot(vm_descriptor_, address, size);
  // EEXIST: somebody was killed when he had added it.
  if (result < 0 && result != -EEXIST) return result;
  return memory_.add(address, size) ? static_cast<int64_t>(size) : -ENOMEM;
}

Machine& machine() {
  return *the_machine;
}

void set_machine(Machine& machine) {
  the_machine = &machine;
}

}  // namespace dbos::vmm
