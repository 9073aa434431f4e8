#include "vmm/loader/kernel_file.h"

#include <elf.h>
#include <fcntl.h>
#include <fmt/core.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <optional>

#include "vmm/loader/file_descriptor.h"
#include "vmm/loader/load_error.h"

namespace dbos::vmm {
namespace {

using Bytes = std::span<const std::byte>;

[[noreturn]] void refuse(const std::string& name, const std::string& what) {
  throw LoadError(ExitStatus::kFailure, "cannot boot '" + name + "': " + what);
}

// Whether [offset, offset + size) lies in the file.
bool is_inside(Bytes file, uint64_t offset, uint64_t size) {
  return offset <= file.size() && size <= file.size() - offset;
}

template <typename Structure>
Structure read(Bytes file, uint64_t offset) {
  Structure result;
  std::memcpy(&result, file.data() + offset, sizeof result);
  return result;
}

Elf64_Ehdr read_header(Bytes file, const std::string& name) {
  if (file.empty()) refuse(name, "it is empty");
  if (file.size() < SELFMAG || std::memcmp(file.data(), ELFMAG, SELFMAG) != 0) {
    refuse(name, "it is not an ELF file; --kernel takes the image of a guest kernel");
  }
  if (file.size() < sizeof(Elf64_Ehdr)) {
    refuse(name, "its ELF header is truncated; build it again");
  }
  const auto header = read<Elf64_Ehdr>(file, 0);
  const bool is_x86_64 = header.e_ident[EI_CLASS] == ELFCLASS64 &&
                         header.e_ident[EI_DATA] == ELFDATA2LSB && header.e_machine == EM_X86_64;
  if (!is_x86_64) refuse(name, "it is not built for x86-64 (64 bits, little-endian)");
  if (header.e_type != ET_EXEC) {
    refuse(name, fmt::format("it is not linked to a fixed address (ELF type {}); link it with "
                             "-static -no-pie at {:#x}",
                             header.e_type, kKernelImageBase));
  }
  return header;
}

std::vector<Elf64_Phdr> read_program_headers(Bytes file, const std::string& name,
                                             const Elf64_Ehdr& header) {
  if (header.e_phnum == 0 || header.e_phentsize != sizeof(Elf64_Phdr)) {
    refuse(name, "it has no program headers of the usual size; link it again");
  }
  if (!is_inside(file, header.e_phoff, uint64_t{header.e_phnum} * sizeof(Elf64_Phdr))) {
    refuse(name, "its program headers lie beyond the end of the file, which is truncated");
  }
  std::vector<Elf64_Phdr> result;
  for (uint64_t i = 0; i < header.e_phnum; ++i) {
    result.push_back(read<Elf64_Phdr>(file, header.e_phoff + i * sizeof(Elf64_Phdr)));
  }
  return result;
}

// Looks at the notes of one segment.
void find_note(Bytes notes, const std::string& name, std::optional<dbos_image_note>& found) {
  constexpr uint64_t kHeaderSize = sizeof(Elf64_Nhdr);
  constexpr std::string_view kOwner(DBOS_NOTE_NAME, sizeof DBOS_NOTE_NAME);  // with its NUL
  for (uint64_t at = 0; is_inside(notes, at, kHeaderSize);) {
    const auto note = read<Elf64_Nhdr>(notes, at);
    const uint64_t owner_size = align_up(note.n_namesz, 4);
    const uint64_t size = kHeaderSize + owner_size + align_up(note.n_descsz, 4);
    if (!is_inside(notes, at, size)) refuse(name, "its ELF notes are damaged; link it again");
    const bool is_ours =
        note.n_type == DBOS_NOTE_TYPE && note.n_namesz == kOwner.size() &&
        std::memcmp(notes.data() + at + kHeaderSize, kOwner.data(), kOwner.size()) == 0;
    if (is_ours) {
      if (found) refuse(name, "it has more than one DBOS note; define it in one place");
      if (size != sizeof(dbos_image_note)) {
        refuse(name, fmt::format("its DBOS note has {} bytes, not {}; define it with "
                                 "DBOS_IMAGE_NOTE of dbos/hypercall.h",
                                 size, sizeof(dbos_image_note)));
      }
      found = read<dbos_image_note>(notes, at);
    }
    at += size;
  }
}

void read_note(Bytes file, const std::vector<Elf64_Phdr>& headers, KernelImage& image) {
  std::optional<dbos_image_note> note;
  for (const Elf64_Phdr& header : headers) {
    if (header.p_type != PT_NOTE) continue;
    if (!is_inside(file, header.p_offset, header.p_filesz)) {
      refuse(image.name, "its ELF notes lie beyond the end of the file, which is truncated");
    }
    find_note(file.subspan(header.p_offset, header.p_filesz), image.name, note);
  }
  if (!note) {
    refuse(image.name,
           "it has no DBOS note, so it is no guest kernel; define one with DBOS_IMAGE_NOTE of "
           "dbos/hypercall.h and keep it in a PT_NOTE segment");
  }
  if (note->abi_version != kAbiVersion) {
    refuse(image.name, fmt::format("it is built for version {} of the hypercall ABI, and this "
                                   "dbos-run has version {}; build it with this release's "
                                   "dbos/hypercall.h",
                                   note->abi_version, kAbiVersion));
  }
  if ((note->flags & ~uint32_t{DBOS_IMAGE_LOADS_PROGRAM}) != 0) {
    refuse(image.name, fmt::format("its DBOS note has flags that this dbos-run does not know "
                                   "({:#x}); it may need a newer one",
                                   note->flags));
  }
  image.loads_program = (note->flags & DBOS_IMAGE_LOADS_PROGRAM) != 0;
  image.needed_features = uint64_t{note->features_high} << 32 | note->features_low;
}

PageRights rights_of(const Elf64_Phdr& header) {
  if ((header.p_flags & PF_X) != 0) return PageRights::kReadExecute;
  return (header.p_flags & PF_W) != 0 ? PageRights::kReadWrite : PageRights::kRead;
}

KernelSegment read_segment(Bytes file, const std::string& name, const Elf64_Phdr& header,
                           const std::string& segment) {
  if (header.p_filesz > header.p_memsz) {
    refuse(name, segment + " is larger in the file than in memory; link it again");
  }
  if (!is_inside(file, header.p_offset, header.p_filesz)) {
    refuse(name, segment + " ends beyond the end of the file, which is truncated");
  }
  if (header.p_vaddr % kPageSize != 0) {
    refuse(name, fmt::format("{} at {:#x} does not begin with a page; align it in the linker "
                             "script",
                             segment, header.p_vaddr));
  }
  const uint64_t offset = header.p_vaddr - kKernelImageBase;
  const bool fits = header.p_vaddr >= kKernelImageBase && offset < kKernelImageSizeMax &&
                    header.p_memsz <= kKernelImageSizeMax - offset;
  if (!fits) {
    refuse(name, fmt::format("{} at {:#x} with {:#x} bytes is not in the region of guest kernels, "
                             "{:#x} with {:#x} bytes; link it there",
                             segment, header.p_vaddr, header.p_memsz, kKernelImageBase,
                             kKernelImageSizeMax));
  }
  if ((header.p_flags & PF_W) != 0 && (header.p_flags & PF_X) != 0) {
    refuse(name, segment + " is writable and executable; separate code and data");
  }
  return {offset, file.subspan(header.p_offset, header.p_filesz),
          align_up(header.p_memsz, kPageSize), rights_of(header)};
}

void read_segments(Bytes file, const std::vector<Elf64_Phdr>& headers, KernelImage& image) {
  uint64_t end = 0;
  for (size_t i = 0; i < headers.size(); ++i) {
    if (headers[i].p_type == PT_INTERP || headers[i].p_type == PT_DYNAMIC) {
      refuse(image.name, "it is dynamically linked; link it with -static -no-pie");
    }
    if (headers[i].p_type != PT_LOAD || headers[i].p_memsz == 0) continue;
    const std::string name = "segment " + std::to_string(i);
    const KernelSegment segment = read_segment(file, image.name, headers[i], name);
    if (segment.offset < end) {
      refuse(image.name, name + " overlaps the one before it, or is out of order; link it again");
    }
    end = segment.offset + segment.memory_size;
    image.segments.push_back(segment);
  }
  if (image.segments.empty()) refuse(image.name, "it has no segment to load (PT_LOAD)");
}

void check_entry(const KernelImage& image) {
  for (const KernelSegment& segment : image.segments) {
    const uint64_t begin = kKernelImageBase + segment.offset;
    const bool holds_it = image.entry >= begin && image.entry - begin < segment.memory_size;
    if (holds_it && segment.rights == PageRights::kReadExecute) return;
  }
  refuse(image.name,
         fmt::format("its entry point {:#x} is not in an executable segment; name it with ENTRY "
                     "in the linker script",
                     image.entry));
}

}  // namespace

std::vector<std::byte> read_kernel_file(const std::string& path) {
  const FileDescriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK));
  struct stat status;
  if (!file.is_open() || fstat(file.number(), &status) != 0) {
    refuse(path, fmt::format("cannot open it: {}", std::strerror(errno)));
  }
  if (!S_ISREG(status.st_mode)) refuse(path, "it is not a regular file");
  const auto size = static_cast<uint64_t>(status.st_size);
  if (size > kKernelFileSizeMax) {
    refuse(path, fmt::format("it has {} bytes, dbos-run takes at most {}; strip it", size,
                             kKernelFileSizeMax));
  }
  std::vector<std::byte> content(size);
  for (size_t done = 0; done < content.size();) {
    const ssize_t got = ::read(file.number(), content.data() + done, content.size() - done);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) refuse(path, fmt::format("reading it failed: {}", std::strerror(errno)));
    if (got == 0) refuse(path, "it became shorter while it was read; try again");
    done += static_cast<size_t>(got);
  }
  return content;
}

KernelImage parse_kernel_image(std::span<const std::byte> file, const std::string& name) {
  const Elf64_Ehdr header = read_header(file, name);
  const std::vector<Elf64_Phdr> headers = read_program_headers(file, name, header);
  KernelImage image;
  image.name = name;
  image.entry = header.e_entry;
  read_note(file, headers, image);
  read_segments(file, headers, image);
  check_entry(image);
  return image;
}

void check_features(const KernelImage& image, uint64_t offered) {
  const uint64_t missing = image.needed_features & ~offered;
  if (missing == 0) return;
  if ((missing & kFeatureClock) != 0) {
    refuse(image.name,
           "it needs the clock page, but there is none: Linux does not trust the time stamp "
           "counter here, or --clock host is given");
  }
  if ((missing & kFeatureXsave) != 0) {
    refuse(image.name, "it needs XSAVE, which this processor or its KVM does not have");
  }
  refuse(image.name, fmt::format("it needs features that this dbos-run does not have ({:#x}); it "
                                 "may need a newer one",
                                 missing));
}

}  // namespace dbos::vmm
