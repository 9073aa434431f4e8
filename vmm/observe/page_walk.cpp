#include "vmm/observe/page_walk.h"

#include "hypercall/observe.h"

namespace dbos::vmm {
namespace {

// SDM volume 3, 4.5; bits 9 and 10 are the guest kernel's own (guest/memory/pte.h).
constexpr uint64_t kPresent = 1 << 0;
constexpr uint64_t kWritable = 1 << 1;
constexpr uint64_t kLarge = 1 << 7;
constexpr uint64_t kNoExecute = uint64_t{1} << 63;
constexpr uint64_t kAddressMask = 0x000f'ffff'ffff'f000;

constexpr int kLevels = 4;

// An entry of this level stands for 2 to that many bytes.
int shift_of(int level) {
  return 12 + 9 * (level - 1);
}

struct FlagName {
  uint64_t bit;
  const char* name;
};
constexpr FlagName kFlags[] = {
    {kPresent, "present"},      {kWritable, "writable"},    {1 << 2, "user"},
    {1 << 3, "write-through"},  {1 << 4, "uncached"},       {1 << 5, "accessed"},
    {1 << 6, "dirty"},          {1 << 8, "global"},         {1 << 9, "held"},
    {1 << 10, "host-writable"}, {kNoExecute, "no-execute"},
};

}  // namespace

uint64_t space_root(uint32_t vcpu) {
  const auto* const counters = reinterpret_cast<const VcpuCounters*>(vcpu_counters_address(vcpu));
  return __atomic_load_n(&counters->space_root, __ATOMIC_RELAXED);
}

PageWalk walk_page_table(const GuestMemory& memory, uint64_t root, uint64_t address) {
  PageWalk walk;
  walk.is_writable = walk.is_executable = true;
  uint64_t table = root & kAddressMask;
  for (int level = kLevels; level >= 1; --level) {
    const int shift = shift_of(level);
    const uint64_t entry_address = table + (address >> shift & 511) * 8;
    if (!memory.is_plain(entry_address, 8)) break;
    const uint64_t entry = *reinterpret_cast<const volatile uint64_t*>(entry_address);
    walk.steps.push_back({level, entry_address, entry});
    if ((entry & kPresent) == 0) break;
    walk.is_writable = walk.is_writable && (entry & kWritable) != 0;
    walk.is_executable = walk.is_executable && (entry & kNoExecute) == 0;
    if (level == 1 || (level < kLevels && (entry & kLarge) != 0)) {
      walk.page_size = uint64_t{1} << shift;
      walk.physical =
          align_down(entry & kAddressMask, walk.page_size) + (address & (walk.page_size - 1));
      walk.is_mapped = true;
      return walk;
    }
    table = entry & kAddressMask;
  }
  walk.is_writable = walk.is_executable = false;
  return walk;
}

uint64_t absent_bytes(const PageWalk& walk, uint64_t address) {
  const int level = walk.steps.empty() ? kLevels + 1 : walk.steps.back().level;
  const uint64_t size = uint64_t{1} << shift_of(level);
  return size - align_down(address & (size - 1), kPageSize);
}

std::vector<std::string> flag_names(uint64_t entry, int level) {
  if (entry == 0) return {"empty"};
  std::vector<std::string> names;
  for (const FlagName& flag : kFlags) {
    if ((entry & flag.bit) != 0) names.emplace_back(flag.name);
  }
  if (level != 1 && level != 4 && (entry & kLarge) != 0) names.emplace_back("large");
  return names;
}

}  // namespace dbos::vmm
