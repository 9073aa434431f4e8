// Which futexes are the host's: those in memory that processes share through the window.
#include "guest/memory/address_space.h"
#include "guest/process/futex_memory.h"

namespace dbos {

Result<PhysicalAddress> shared_futex_address(AddressSpace& space, VirtualAddress address) {
  VmaInfo info;
  if (!space.query(address, &info)) return Error(EFAULT);
  if (info.kind != VmaKind::kWindowShared) return PhysicalAddress(0);
  return info.window_address + (address - info.range.begin);
}

}  // namespace dbos
