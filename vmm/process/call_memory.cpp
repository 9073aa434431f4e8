#include "vmm/process/call_memory.h"

#include <asm/unistd.h>
#include <sys/mman.h>

#include "vmm/host/host_call.h"

namespace dbos::vmm {

int64_t map_call_memory(Vcpu& vcpu, uint64_t size) {
  const int64_t result = raw_call(__NR_mmap, 0, size, PROT_READ | PROT_WRITE,
                                  MAP_PRIVATE | MAP_ANONYMOUS, static_cast<uint64_t>(-1), 0);
  if (result < 0) return result;
  vcpu.call_memory_size = size;
  vcpu.call_memory.store(static_cast<uint64_t>(result));
  return result;
}

void unmap_call_memory(Vcpu& vcpu) {
  const uint64_t address = vcpu.call_memory.exchange(0);
  if (address != 0) raw_call(__NR_munmap, address, vcpu.call_memory_size);
}

}  // namespace dbos::vmm
