#include "vmm/kvm/capabilities.h"

#include <fmt/core.h>
#include <sys/ioctl.h>

#include "vmm/kvm/kvm_api.h"

namespace dbos::vmm {
namespace {

struct Capability {
  int number;   // KVM_CAP_...
  int minimum;  // least value that KVM_CHECK_EXTENSION must return
  const char* name;
  const char* purpose;  // why we need it, for the error message and the documentation
};

constexpr Capability kRequired[] = {
    {KVM_CAP_USER_MEMORY, 1, "KVM_CAP_USER_MEMORY", "guest memory that is the process's own"},
    {KVM_CAP_EXT_CPUID, 1, "KVM_CAP_EXT_CPUID", "showing the program its CPU's features"},
    {KVM_CAP_NR_MEMSLOTS, 64, "KVM_CAP_NR_MEMSLOTS", "an arena that grows"},
    {KVM_CAP_SYNC_MMU, 1, "KVM_CAP_SYNC_MMU", "giving memory back to Linux while running"},
    {KVM_CAP_VCPU_EVENTS, 1, "KVM_CAP_VCPU_EVENTS", "signals that reach a running program"},
    {KVM_CAP_VCPU_ATTRIBUTES, 1, "KVM_CAP_VCPU_ATTRIBUTES", "a guest TSC that is the host's"},
    {KVM_CAP_IMMEDIATE_EXIT, 1, "KVM_CAP_IMMEDIATE_EXIT", "signals that are never lost"},
};

}  // namespace

int64_t enable_capability(int descriptor, uint32_t number, uint64_t argument) {
  kvm_enable_cap enabling = {};
  enabling.cap = number;
  enabling.args[0] = argument;
  return kvm_call(descriptor, KVM_ENABLE_CAP, &enabling);
}

int64_t keep_pause_in_guest(int vm_descriptor) {
  const int supported = ioctl(vm_descriptor, KVM_CHECK_EXTENSION, KVM_CAP_X86_DISABLE_EXITS);
  if (supported < 0 || (supported & KVM_X86_DISABLE_EXITS_PAUSE) == 0) return 0;
  return enable_capability(vm_descriptor, KVM_CAP_X86_DISABLE_EXITS, KVM_X86_DISABLE_EXITS_PAUSE);
}

std::string missing_capabilities(int kvm_descriptor) {
  std::string missing;
  for (const Capability& capability : kRequired) {
    const int value = ioctl(kvm_descriptor, KVM_CHECK_EXTENSION, capability.number);
    if (value >= capability.minimum) continue;
    if (!missing.empty()) missing += ", ";
    missing += fmt::format("{} ({})", capability.name, capability.purpose);
  }
  return missing;
}

}  // namespace dbos::vmm
