#include "vmm/machine/regions.h"

#include <asm/mman.h>
#include <asm/unistd.h>
#include <sys/mman.h>

#include <atomic>
#include <fstream>
#include <string>

#include "vmm/error.h"
#include "vmm/host/host_call.h"
#include "vmm/kvm/kvm_api.h"

namespace dbos::vmm {
namespace {

std::atomic<uint32_t> next_slot{0};

}  // namespace

int64_t add_memory_slot(int vm_descriptor, uint64_t address, uint64_t size) {
  kvm_userspace_memory_region region = {};
  const uint32_t slot = next_slot.fetch_add(1);
  region.slot = slot;
  region.guest_phys_addr = address;
  region.memory_size = size;
  region.userspace_addr = address;
  const int64_t result = kvm_call(vm_descriptor, KVM_SET_USER_MEMORY_REGION, &region);
  // Failures use up no numbers, of which KVM has a limit.
  uint32_t next = slot + 1;
  if (result < 0) next_slot.compare_exchange_strong(next, slot);
  return result;
}

void reserve_region(uint64_t address, uint64_t size, const char* what) {
  void* const wanted = reinterpret_cast<void*>(address);
  void* const got = mmap(wanted, size, PROT_NONE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
  if (got == wanted) return;
  throw StartError::with_errno(
      "can't reserve {} bytes of address space at {:#x} for {} (is there an address space limit, "
      "ulimit -v?)",
      size, address, what);
}

void keep_out_of_cores(uint64_t address, uint64_t size) {
  raw_call(__NR_madvise, address, size, MADV_DONTDUMP);
}

int64_t commit_region(uint64_t address, uint64_t size, HostPages pages) {
  const int64_t result = raw_call(__NR_mmap, address, size, PROT_READ | PROT_WRITE,
                                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED,
                                  static_cast<uint64_t>(-1), 0);
  if (result < 0) return result;
  keep_out_of_cores(address, size);
  // Large pages of the host make the second level's walks short. A refusal changes nothing else.
  if (pages == HostPages::kLarge) raw_call(__NR_madvise, address, size, MADV_HUGEPAGE);
  return 0;
}

bool are_large_pages_off(std::string_view setting) {
  return setting.find("[never]") != std::string_view::npos;
}

bool are_large_pages_off() {
  std::ifstream file("/sys/kernel/mm/transparent_hugepage/enabled");
  std::string setting;
  std::getline(file, setting);
  return are_large_pages_off(setting);
}

int64_t populate_arena(uint64_t address, uint64_t size) {
  return raw_call(__NR_madvise, address, size, MADV_POPULATE_WRITE);
}

}  // namespace dbos::vmm
