// Bits: AMD64 APM volume 3, appendix E; Intel SDM volume 2, CPUID.
#include "vmm/kvm/cpuid.h"

#include <asm/kvm_para.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <cstring>
#include <span>

#include "vmm/error.h"
#include "vmm/kvm/capabilities.h"
#include "vmm/kvm/kvm_api.h"

namespace dbos::vmm {
namespace {

constexpr uint32_t kEntriesMax = 256;
constexpr size_t kBytesMax = sizeof(kvm_cpuid2) + kEntriesMax * sizeof(kvm_cpuid_entry2);

constexpr uint64_t kStateLegacy = 0x7;   // x87, SSE, AVX
constexpr uint64_t kStateAvx512 = 0xe0;  // opmask, ZMM_Hi256, Hi16_ZMM

std::span<kvm_cpuid_entry2> entries_of(uint8_t* bytes) {
  auto* const list = reinterpret_cast<kvm_cpuid2*>(bytes);
  return {list->entries, list->nent};
}

kvm_cpuid_entry2* find(std::vector<uint8_t>& cpuid, uint32_t leaf, uint32_t subleaf) {
  for (kvm_cpuid_entry2& entry : entries_of(cpuid.data())) {
    if (entry.function == leaf && entry.index == subleaf) return &entry;
  }
  return nullptr;
}

// What no guest kernel here needs, and is much code in Linux to attack: nested virtualization,
// enclaves, performance counters, and KVM's own interfaces.
void hide_attack_surface(kvm_cpuid_entry2& entry) {
  switch (entry.function) {
    case 1:
      entry.ecx &= ~(1u << 5 | 1u << 15);  // VMX, PDCM
      break;
    case 7:
      if (entry.index == 0) entry.ebx &= ~(1u << 2);  // SGX
      break;
    case 0x80000001:
      entry.ecx &= ~(1u << 2 | 1u << 23);  // SVM, PERFCTR_CORE
      break;
    case KVM_CPUID_FEATURES:
    case 0xa:         // Intel's performance counters
    case 0x12:        // SGX
    case 0x8000000a:  // SVM
    case 0x80000022:  // AMD's performance counters
      entry.eax = entry.ebx = entry.ecx = entry.edx = 0;
      break;
    default:
      break;
  }
}

// Of physical address, where all that is used is below 2^40. Told of more than 48, KVM takes all
// five levels of an Intel processor's tables (kvm_mmu_get_tdp_level).
constexpr uint32_t kPhysicalAddressBitsMax = 46;

void limit_physical_address_bits(kvm_cpuid_entry2& sizes) {
  sizes.eax = (sizes.eax & ~0xffu) | std::min(sizes.eax & 0xff, kPhysicalAddressBitsMax);
}

}  // namespace

std::vector<uint8_t> supported_cpuid(int kvm_descriptor) {
  std::vector<uint8_t> bytes(kBytesMax);
  auto* const list = reinterpret_cast<kvm_cpuid2*>(bytes.data());
  list->nent = kEntriesMax;
  if (ioctl(kvm_descriptor, KVM_GET_SUPPORTED_CPUID, list) < 0) {
    throw StartError::with_errno("KVM does not say which CPU features it offers");
  }
  return bytes;
}

uint64_t restrict_cpuid(std::vector<uint8_t>& cpuid) {
  for (kvm_cpuid_entry2& entry : entries_of(cpuid.data())) hide_attack_surface(entry);
  if (auto* leaf1 = find(cpuid, 1, 0); leaf1 != nullptr) {
    leaf1->ecx &= ~(1u << 3 | 1u << 21 | 1u << 24);  // MONITOR, x2APIC, TSC deadline timer
    leaf1->edx &= ~(1u << 9);                        // the local APIC
  }
  if (auto* leaf7 = find(cpuid, 7, 0); leaf7 != nullptr) {
    leaf7->ecx &= ~(1u << 3 | 1u << 4 | 1u << 7 | 1u << 16);  // PKU, OSPKE, shadow stack, LA57
    leaf7->edx &= ~(1u << 5 | 1u << 20 | 1u << 22 | 1u << 24 | 1u << 25);  // UINTR, IBT, AMX
  }
  if (auto* sizes = find(cpuid, 0x80000008, 0); sizes != nullptr) {
    limit_physical_address_bits(*sizes);
  }
  auto* const state = find(cpuid, 0xd, 0);
  if (state == nullptr) return 0;
  const uint64_t offered = static_cast<uint64_t>(state->edx) << 32 | state->eax;
  uint64_t mask = offered & (kStateLegacy | kStateAvx512);
  if ((mask & kStateAvx512) != kStateAvx512) mask &= kStateLegacy;
  state->eax = static_cast<uint32_t>(mask);
  state->edx = 0;
  // XSAVES keeps supervisor states, of which there are none here.
  if (auto* sub = find(cpuid, 0xd, 1); sub != nullptr) sub->eax &= ~(1u << 3);
  return mask;
}

uint32_t physical_address_bits(std::vector<uint8_t>& cpuid) {
  const auto* const sizes = find(cpuid, 0x80000008, 0);
  // What a processor has that does not tell (SDM volume 3, 4.1.4).
  return sizes == nullptr ? 36 : sizes->eax & 0xff;
}

bool has_gigabyte_pages(std::vector<uint8_t>& cpuid) {
  const auto* const extended = find(cpuid, 0x80000001, 0);
  return extended != nullptr && (extended->edx & (1u << 26)) != 0;
}

int64_t disable_performance_counters(int vm_descriptor) {
  const int supported = ioctl(vm_descriptor, KVM_CHECK_EXTENSION, KVM_CAP_PMU_CAPABILITY);
  if (supported <= 0) return 0;  // there are none, or KVM is older than 5.18
  return enable_capability(vm_descriptor, KVM_CAP_PMU_CAPABILITY, KVM_PMU_CAP_DISABLE);
}

int64_t set_cpuid(int vcpu_descriptor, const std::vector<uint8_t>& cpuid, uint32_t index) {
  alignas(kvm_cpuid2) uint8_t bytes[kBytesMax];
  std::memcpy(bytes, cpuid.data(), kBytesMax);
  for (kvm_cpuid_entry2& entry : entries_of(bytes)) {
    if (entry.function == 1) entry.ebx = (entry.ebx & 0x00ffffff) | (index & 0xff) << 24;
    if (entry.function == 0xb || entry.function == 0x1f) entry.edx = index;
    if (entry.function == 0x8000001e) entry.eax = index;
  }
  // KVM offers its own interfaces to guests whose CPUID lacks them, unless it is told not to; one
  // older than 5.10 can't be.
  (void)enable_capability(vcpu_descriptor, KVM_CAP_ENFORCE_PV_FEATURE_CPUID, 1);
  return kvm_call(vcpu_descriptor, KVM_SET_CPUID2, bytes);
}

}  // namespace dbos::vmm
