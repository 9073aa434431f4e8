#include "vmm/kvm/cpuid.h"

#include <catch2/catch.hpp>
#include <cstring>
#include <span>
#include <vector>

#include "vmm/kvm/kvm_api.h"
#include "vmm/machine/regions.h"

namespace dbos::vmm::test {
namespace {

std::vector<uint8_t> cpuid_with(const std::vector<kvm_cpuid_entry2>& entries) {
  std::vector<uint8_t> bytes(sizeof(kvm_cpuid2) + entries.size() * sizeof(kvm_cpuid_entry2));
  kvm_cpuid2 head = {};
  head.nent = static_cast<uint32_t>(entries.size());
  std::memcpy(bytes.data(), &head, sizeof head);
  if (!entries.empty()) {
    std::memcpy(bytes.data() + sizeof head, entries.data(),
                entries.size() * sizeof(kvm_cpuid_entry2));
  }
  return bytes;
}

kvm_cpuid_entry2 leaf(uint32_t function, uint32_t eax, uint32_t edx) {
  kvm_cpuid_entry2 entry = {};
  entry.function = function;
  entry.eax = eax;
  entry.edx = edx;
  return entry;
}

}  // namespace

TEST_CASE("The width of physical addresses is read from CPUID") {
  auto laptop = cpuid_with({leaf(1, 0x306c3, 0), leaf(0x80000008, 0x3027, 0)});
  REQUIRE(physical_address_bits(laptop) == 39);
  auto server = cpuid_with({leaf(0x80000008, 0x0030'3934, 0)});
  REQUIRE(physical_address_bits(server) == 52);
  auto silent = cpuid_with({leaf(1, 0x306c3, 0)});
  REQUIRE(physical_address_bits(silent) < kPhysicalAddressBitsMin);
}

TEST_CASE("Pages of 1 GiB are there if CPUID says so") {
  auto with = cpuid_with({leaf(0x80000001, 0, 1u << 26)});
  REQUIRE(has_gigabyte_pages(with));
  auto without = cpuid_with({leaf(0x80000001, 0, ~(1u << 26))});
  REQUIRE_FALSE(has_gigabyte_pages(without));
  auto silent = cpuid_with({});
  REQUIRE_FALSE(has_gigabyte_pages(silent));
}

TEST_CASE("A guest is offered no virtualization, no counters and none of KVM's interfaces") {
  const uint32_t all = ~0u;
  std::vector<kvm_cpuid_entry2> entries;
  for (const uint32_t function :
       {1u, 0xau, 0x12u, 0x40000000u, 0x40000001u, 0x80000001u, 0x8000000au, 0x80000022u}) {
    kvm_cpuid_entry2 entry = leaf(function, all, all);
    entry.ebx = entry.ecx = all;
    entries.push_back(entry);
  }
  auto cpuid = cpuid_with(entries);
  restrict_cpuid(cpuid);
  const auto* const list = reinterpret_cast<const kvm_cpuid2*>(cpuid.data());
  for (const kvm_cpuid_entry2& entry : std::span(list->entries, list->nent)) {
    const uint32_t any = entry.eax | entry.ebx | entry.ecx | entry.edx;
    INFO("leaf " << std::hex << entry.function);
    if (entry.function == 1) CHECK((entry.ecx & 1u << 5) == 0);           // VMX
    if (entry.function == 0x80000001) CHECK((entry.ecx & 1u << 2) == 0);  // SVM
    if (entry.function == 0x40000001) CHECK((entry.eax | entry.edx) == 0);
    if (entry.function == 0xa || entry.function == 0x12) CHECK(any == 0);
    if (entry.function == 0x8000000a || entry.function == 0x80000022) CHECK(any == 0);
    if (entry.function == 0x40000000) CHECK(entry.eax == all);
  }
}

TEST_CASE("The arena ends where the CPU's physical addresses do") {
  REQUIRE(arena_size_limit(39) == 256 * kGiB);
  REQUIRE(arena_size_limit(40) == kArenaSizeMax);
  REQUIRE(arena_size_limit(46) == kArenaSizeMax);
  REQUIRE(arena_size_limit(52) == kArenaSizeMax);
  // Refused before anything is made of these.
  REQUIRE(arena_size_limit(38) == 0);
  REQUIRE(arena_size_limit(0) == 0);
}

}  // namespace dbos::vmm::test
