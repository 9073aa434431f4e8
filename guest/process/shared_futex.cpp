// Which futexes are the host's: those in memory that processes share through the window.
#include "guest/memory/address_space.h"
#include "guest/process/futex_memory.h"

namespace dbos {

Result<PhysicalAddress> shared_futex_address(AddressSpace& space, VirtualAddress address,
                                             Access access, WindowReference& window) {
  WindowPlace place;
  if (!space.find_window(address, &place)) return Error(EFAULT);
  if (!place.is_shared) return PhysicalAddress(0);
  const bool may =
      access == Access::kWrite ? place.protection.may_write() : !place.protection.is_none();
  if (!may) return Error(EFAULT);
  window.hold(*place.window.get());
  return place.address();
}

}  // namespace dbos
