#include "vmm/machine/kernel_image.h"

#include <elf.h>

#include <cstring>

#include "hypercall/abi.h"
#include "hypercall/layout.h"
#include "vmm/error.h"

extern "C" {
extern const char dbos_kernel_image_begin[];
extern const char dbos_kernel_image_end[];
}

namespace dbos::vmm {
namespace {

PageRights rights_of(const Elf64_Phdr& segment) {
  if ((segment.p_flags & PF_X) != 0) return PageRights::kReadExecute;
  return (segment.p_flags & PF_W) != 0 ? PageRights::kReadWrite : PageRights::kRead;
}

uint64_t page_up(uint64_t value) {
  return (value + kPageSize - 1) & ~(kPageSize - 1);
}

}  // namespace

uint64_t load_kernel_image(BootTables& tables) {
  const char* const image = dbos_kernel_image_begin;
  const auto size = static_cast<uint64_t>(dbos_kernel_image_end - dbos_kernel_image_begin);
  Elf64_Ehdr header;
  if (size < sizeof header) throw StartError("the built-in guest kernel is empty: rebuild dbos");
  std::memcpy(&header, image, sizeof header);
  for (unsigned i = 0; i < header.e_phnum; ++i) {
    Elf64_Phdr segment;
    std::memcpy(&segment, image + header.e_phoff + i * sizeof segment, sizeof segment);
    if (segment.p_type != PT_LOAD || segment.p_memsz == 0) continue;
    const uint64_t offset = segment.p_vaddr - kKernelImageBase;
    if (offset % kPageSize != 0 || offset + page_up(segment.p_memsz) > kKernelImageSizeMax) {
      throw StartError("the built-in guest kernel is not linked as it must be: rebuild dbos");
    }
    std::memcpy(reinterpret_cast<void*>(kKernelImageAddress + offset), image + segment.p_offset,
                segment.p_filesz);
    tables.map(segment.p_vaddr, kKernelImageAddress + offset, page_up(segment.p_memsz),
               rights_of(segment));
  }
  return header.e_entry;
}

}  // namespace dbos::vmm
