#include "vmm/loader/elf_segments.h"

#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cstdio>
#include <vector>

#include "vmm/loader/load_error.h"

namespace dbos::vmm {
namespace {

std::string hex(uint64_t value) {
  char text[24];
  std::snprintf(text, sizeof(text), "0x%llx", static_cast<unsigned long long>(value));
  return text;
}

[[noreturn]] void refuse(const std::string& path, const std::string& what) {
  throw LoadError(ExitStatus::kCannotExecute,
                  "cannot run '" + path + "': " + what + "; link or install it again");
}

uint32_t protection_of(const Elf64_Phdr& header) {
  uint32_t protection = 0;
  if ((header.p_flags & PF_R) != 0) protection |= PROT_READ;
  if ((header.p_flags & PF_W) != 0) protection |= PROT_WRITE;
  if ((header.p_flags & PF_X) != 0) protection |= PROT_EXEC;
  return protection;
}

void check_segment(const std::string& path, const ElfFile& file, const Elf64_Phdr& header,
                   const std::string& name) {
  if (header.p_filesz > header.p_memsz)
    refuse(path, name + " is larger in the file than in memory");
  if (header.p_filesz > file.file_size || header.p_offset > file.file_size - header.p_filesz) {
    refuse(path, name + " ends beyond the end of the file, which is truncated");
  }
  if (header.p_align > 1 && !std::has_single_bit(header.p_align)) {
    refuse(path,
           name + " has an alignment of " + hex(header.p_align) + ", which is not a power of two");
  }
  if (header.p_filesz != 0 && header.p_offset % kPageSize != header.p_vaddr % kPageSize) {
    refuse(path, name + " lies at offset " + hex(header.p_offset) + " of the file and at address " +
                     hex(header.p_vaddr) + ", which differ within a page");
  }
  if (header.p_vaddr >= kProgramEnd || header.p_memsz > kProgramEnd - header.p_vaddr) {
    refuse(path, name + " at address " + hex(header.p_vaddr) + " with " + hex(header.p_memsz) +
                     " bytes ends above the program's address space");
  }
  if (file.header.e_type == ET_EXEC && header.p_vaddr < kProgramBegin) {
    refuse(path, name + " lies at address " + hex(header.p_vaddr) + ", below " +
                     hex(kProgramBegin) + " (vm.mmap_min_addr)");
  }
}

// The segments that take part, checked, in order and without overlap.
std::vector<const Elf64_Phdr*> loadable_segments(const std::string& path, const ElfFile& file) {
  std::vector<const Elf64_Phdr*> result;
  uint64_t total = 0;
  for (size_t i = 0; i < file.program_headers.size(); ++i) {
    const Elf64_Phdr& header = file.program_headers[i];
    if (header.p_type != PT_LOAD) continue;
    const std::string name = "segment " + std::to_string(i);
    check_segment(path, file, header, name);
    if (header.p_memsz == 0) continue;  // nothing to map, for Linux neither
    if (!result.empty()) {
      const Elf64_Phdr& last = *result.back();
      if (header.p_vaddr < last.p_vaddr) refuse(path, name + " is out of order");
      if (header.p_vaddr < last.p_vaddr + last.p_memsz) {
        refuse(path, name + " overlaps the segment before it");
      }
    }
    total += header.p_memsz;  // can't overflow: the segments are disjoint and below kProgramEnd
    result.push_back(&header);
  }
  if (result.empty()) refuse(path, "it has no segment to load (PT_LOAD)");
  if (total > kArenaSizeMax) {
    refuse(path, "its segments need " + std::to_string(total / kGiB) +
                     " GiB of memory, more than " + std::to_string(kArenaSizeMax / kGiB) +
                     " GiB, the most that dbos-run has");
  }
  return result;
}

LoadSegment segment_of(const Elf64_Phdr& header) {
  const uint64_t lead = header.p_vaddr % kPageSize;
  LoadSegment segment{};
  segment.address = align_down(header.p_vaddr, kPageSize);
  segment.file_offset = header.p_filesz != 0 ? align_down(header.p_offset, kPageSize) : 0;
  segment.file_size = header.p_filesz != 0 ? lead + header.p_filesz : 0;
  segment.memory_size = lead + header.p_memsz;
  segment.protection = protection_of(header);
  return segment;
}

// Ends `earlier` where `later` begins to own pages; see the header.
void settle_shared_page(const std::string& path, LoadSegment& earlier, LoadSegment& later) {
  if (later.address >= align_up(earlier.address + earlier.memory_size, kPageSize)) return;
  if (later.file_size == 0) {
    const bool writable = (earlier.protection & PROT_WRITE) != 0;
    if (earlier.protection != later.protection || !writable) {
      refuse(path, "the zero-filled segment at " + hex(later.address) +
                       " shares a page with the segment before it, and their permissions differ");
    }
    const uint64_t end = std::min(later.address + kPageSize, later.address + later.memory_size);
    earlier.memory_size = std::max(earlier.memory_size, end - earlier.address);
    const uint64_t taken = std::min(kPageSize, later.memory_size);
    later.address += kPageSize;
    later.memory_size -= taken;
    return;
  }
  earlier.memory_size = later.address - earlier.address;
  earlier.file_size = std::min(earlier.file_size, earlier.memory_size);
}

std::vector<LoadSegment> settle_segments(const std::string& path,
                                         const std::vector<const Elf64_Phdr*>& headers) {
  std::vector<LoadSegment> segments;
  for (const Elf64_Phdr* header : headers) {
    LoadSegment later = segment_of(*header);
    if (!segments.empty()) {
      settle_shared_page(path, segments.back(), later);
      if (segments.back().memory_size == 0) segments.pop_back();
    }
    if (later.memory_size != 0) segments.push_back(later);
  }
  if (segments.size() > kLoadSegmentsMax) {
    refuse(path, "it has " + std::to_string(segments.size()) +
                     " segments to load, dbos-run takes " + std::to_string(kLoadSegmentsMax));
  }
  return segments;
}

void check_entry(const std::string& path, uint64_t entry,
                 const std::vector<const Elf64_Phdr*>& headers) {
  const bool found = std::any_of(headers.begin(), headers.end(), [&](const Elf64_Phdr* header) {
    return (header->p_flags & PF_X) != 0 && header->p_vaddr <= entry &&
           entry - header->p_vaddr < header->p_memsz;
  });
  if (!found) refuse(path, "its entry point " + hex(entry) + " is not in an executable segment");
}

// AT_PHDR as Linux finds it: where the segment that holds the table's file offset maps it. (PT_PHDR
// would say the same; where it does not, Linux does not listen to it.)
uint64_t table_address(const Elf64_Ehdr& header, const std::vector<const Elf64_Phdr*>& segments) {
  uint64_t address = 0;
  for (const Elf64_Phdr* segment : segments) {
    if (segment->p_offset <= header.e_phoff &&
        header.e_phoff - segment->p_offset < segment->p_filesz) {
      address = segment->p_vaddr + (header.e_phoff - segment->p_offset);
    }
  }
  return address;
}

// Without PT_GNU_STACK the stack of an x86-64 program is not executable (Linux 5.8 and later).
bool wants_executable_stack(const ElfFile& file) {
  bool executable = false;
  for (const Elf64_Phdr& header : file.program_headers) {
    if (header.p_type == PT_GNU_STACK) executable = (header.p_flags & PF_X) != 0;
  }
  return executable;
}

uint64_t base_alignment(const std::string& path, const ElfFile& file,
                        const std::vector<const Elf64_Phdr*>& segments) {
  uint64_t alignment = kPageSize;
  for (const Elf64_Phdr* segment : segments) alignment = std::max(alignment, segment->p_align);
  const uint64_t end = align_up(segments.back()->p_vaddr + segments.back()->p_memsz, kPageSize);
  if (file.header.e_type == ET_DYN && (alignment > kProgramEnd || end > kProgramEnd - alignment)) {
    refuse(path, "it does not fit into the address space with an alignment of " + hex(alignment));
  }
  return alignment;
}

}  // namespace

LoadImage make_load_image(const ElfFile& file, const std::string& path) {
  const std::vector<const Elf64_Phdr*> headers = loadable_segments(path, file);
  check_entry(path, file.header.e_entry, headers);
  const std::vector<LoadSegment> segments = settle_segments(path, headers);

  LoadImage image{};
  image.descriptor = -1;
  image.position_independent = file.header.e_type == ET_DYN ? 1 : 0;
  image.stack_executable = wants_executable_stack(file) ? 1 : 0;
  image.alignment = base_alignment(path, file, headers);
  image.entry = file.header.e_entry;
  image.program_headers = table_address(file.header, headers);
  image.program_header_count = file.header.e_phnum;
  image.program_header_size = file.header.e_phentsize;
  image.segment_count = static_cast<uint32_t>(segments.size());
  std::copy(segments.begin(), segments.end(), image.segments);
  return image;
}

}  // namespace dbos::vmm
