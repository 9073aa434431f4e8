#include "guest/process/vdso.h"

#include <linux/mman.h>

#include "guest/memory/address_space.h"
#include "guest/platform.h"
#include "guest/vdso/image.h"
#include "hypercall/abi.h"

namespace dbos {
namespace {

// Pages of the kernel region, which are always there and never given back.
Result<void> map_kernel_pages(AddressSpace& space, u64 address, PhysicalAddress pages, u64 size,
                              int protection, const char* name) {
  FileIdentity identity;
  identity.path = name;
  WindowObject* const object =
      DBOS_TRY(window_create(pages, size, WindowKind::kSharedAnonymous, identity));
  const WindowMapping mapping{object, 0, true, false};
  DBOS_TRY(
      space.map_window(VirtualAddress(address), size, protection, MAP_SHARED | MAP_FIXED, mapping));
  return {};  // the object's first reference stays: it must never go back to the host
}

}  // namespace

u64 map_vdso(AddressSpace& space) {
  const u64 size = vdso_image_size();
  const auto place = space.find_free(VirtualAddress(0), kPageSize + size);
  if (place.is_error()) return 0;
  const u64 clock = place.value().value();
  const u64 image = clock + kPageSize;
  if (map_kernel_pages(space, clock, PhysicalAddress(kClockPageAddress), kPageSize, PROT_READ,
                       "[vvar]")
          .is_error()) {
    return 0;
  }
  if (map_kernel_pages(space, image, platform::physical_of(dbos_vdso_image), size,
                       PROT_READ | PROT_EXEC, "[vdso]")
          .is_error()) {
    return 0;
  }
  return image;
}

}  // namespace dbos
