// What the program's CPU looks like: the host's, less what the guest kernel does not keep for it.
#pragma once

#include <cstdint>
#include <vector>

namespace dbos::vmm {

// KVM_GET_SUPPORTED_CPUID as a kvm_cpuid2 in bytes. Throws StartError.
std::vector<uint8_t> supported_cpuid(int kvm_descriptor);

// Takes out what the guest kernel does not manage (protection keys, shadow stacks, AMX, five-level
// paging), and what would only be surface to attack. Returns the XCR0 that is left: 0 where the CPU
// has no XSAVE.
uint64_t restrict_cpuid(std::vector<uint8_t>& cpuid);

// How many bits of a guest-physical address count.
uint32_t physical_address_bits(std::vector<uint8_t>& cpuid);

// Whether the CPU has pages of 1 GiB; many hypervisors hide them.
bool has_gigabyte_pages(std::vector<uint8_t>& cpuid);

// A guest's performance counters are perf events of its host thread. 0 or -errno.
int64_t disable_performance_counters(int vm_descriptor);

// Gives a vCPU its CPUID, with its own local APIC id. Result: 0 or -errno.
int64_t set_cpuid(int vcpu_descriptor, const std::vector<uint8_t>& cpuid, uint32_t index);

}  // namespace dbos::vmm
