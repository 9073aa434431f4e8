// From checked ELF headers to the segments that the guest kernel maps.
#pragma once

#include <string>

#include "hypercall/abi.h"
#include "vmm/loader/elf_file.h"

namespace dbos::vmm {

// The lowest address of a program linked to a fixed place: Linux's default vm.mmap_min_addr.
inline constexpr uint64_t kProgramBegin = 64 * kKiB;

// Checks every program header and returns the image, with descriptor -1. Throws LoadError.
//
// Segments come out page-aligned, in order and not overlapping. Where two share a page (linkers
// that do not align them), Linux maps the later one over the earlier, and the page shows the later
// one's part of the file with its permissions. The same result comes from ending the earlier
// segment where the later one's first page begins; a segment of which nothing is left is dropped. A
// later segment that is all zeros has no file page to show: it leaves the shared page to the
// earlier one, whose zero tail covers it; with different permissions that cannot be had, and the
// image is refused.
LoadImage make_load_image(const ElfFile& file, const std::string& path);

}  // namespace dbos::vmm
