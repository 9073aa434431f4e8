#include "vmm/loader/elf_file.h"

#include <gelf.h>
#include <libelf.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstring>
#include <memory>
#include <string_view>

#include "vmm/loader/load_error.h"
#include "vmm/printable.h"

namespace dbos::vmm {
namespace {

// Linux reads that much of a file to see what it is, and so much of a script's first line.
constexpr size_t kIdentificationSize = 256;
// The most bytes of program headers that Linux takes.
constexpr uint64_t kTableSizeMax = 65536;

[[noreturn]] void refuse(const std::string& path, const std::string& what) {
  throw LoadError(ExitStatus::kCannotExecute, "cannot run '" + path + "': " + what);
}

size_t read_at(int descriptor, const std::string& path, uint64_t offset, void* to, size_t size) {
  size_t done = 0;
  while (done < size) {
    const ssize_t got = pread(descriptor, static_cast<char*>(to) + done, size - done,
                              static_cast<off_t>(offset + done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) {
      refuse(path, std::string("reading it failed: ") + std::strerror(errno) +
                       "; check the file system it is on");
    }
    if (got == 0) break;
    done += static_cast<size_t>(got);
  }
  return done;
}

std::string_view trimmed(std::string_view text) {
  const size_t begin = text.find_first_not_of(" \t\r");
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t\r") - begin + 1);
}

[[noreturn]] void refuse_script(const std::string& path, std::string_view start) {
  const std::string_view line = trimmed(start.substr(2, start.find('\n') - 2));
  if (line.empty()) refuse(path, "it is a script that names no interpreter; add one after '#!'");
  refuse(path, "it is a script for " + printable(line) +
                   ", and what it executes would run on Linux, outside the guest; put dbos-run "
                   "before the database inside the script, or name the database itself");
}

std::string machine_name(uint16_t machine) {
  switch (machine) {
    case EM_386:
      return "i386";
    case EM_AARCH64:
      return "aarch64";
    case EM_ARM:
      return "32-bit ARM";
    case EM_RISCV:
      return "riscv";
    case EM_PPC64:
      return "ppc64";
    case EM_S390:
      return "s390x";
    case EM_MIPS:
      return "mips";
    case EM_SPARCV9:
      return "sparc64";
    case EM_IA_64:
      return "ia64";
    case 258:
      return "loongarch";  // EM_LOONGARCH, not in every <elf.h>
    default:
      return "ELF machine " + std::to_string(machine);
  }
}

void check_identification(const std::string& path, std::string_view start) {
  if (start.empty()) refuse(path, "the file is empty; install or build it again");
  if (start.substr(0, 2) == "#!") refuse_script(path, start);
  if (start.substr(0, SELFMAG) != ELFMAG) {
    refuse(path, "it is not an ELF file; dbos-run runs Linux x86-64 programs only");
  }
  if (start.size() < sizeof(Elf64_Ehdr)) {
    refuse(path, "the file is truncated within its ELF header; install or build it again");
  }
  const char file_class = start[EI_CLASS];
  if (file_class == ELFCLASS32) {
    refuse(path,
           "it is a 32-bit program; dbos-run runs 64-bit ones, build or install it for "
           "x86-64");
  }
  if (file_class != ELFCLASS64) {
    refuse(path, "its ELF class is neither 32-bit nor 64-bit; the file is damaged");
  }
  if (start[EI_DATA] == ELFDATA2MSB) {
    refuse(path, "it is a big-endian program; install it for x86-64");
  }
  if (start[EI_DATA] != ELFDATA2LSB) {
    refuse(path, "its ELF header names no known byte order; the file is damaged");
  }
  if (start[EI_VERSION] != EV_CURRENT) {
    refuse(path, "its ELF version is unknown; the file is damaged");
  }
}

void check_header(const std::string& path, const Elf64_Ehdr& header, ImageRole role) {
  if (header.e_machine != EM_X86_64) {
    refuse(path, "it is built for " + machine_name(header.e_machine) +
                     "; build or install it for x86-64");
  }
  switch (header.e_type) {
    case ET_EXEC:
    case ET_DYN:
      break;
    case ET_REL:
      refuse(path, "it is a relocatable object file; link it to a program first");
    case ET_CORE:
      refuse(path, "it is a core dump; a debugger reads it (gdb PROGRAM " + path + ")");
    default:
      refuse(path, "its ELF type " + std::to_string(header.e_type) + " is not a program's");
  }
  if (header.e_ehsize != sizeof(Elf64_Ehdr)) {
    refuse(path, "its ELF header has a size of " + std::to_string(header.e_ehsize) +
                     " bytes instead of 64; the file is damaged");
  }
  if (header.e_phnum == 0) refuse(path, "it has no program headers; link it to a program first");
  if (header.e_phentsize != sizeof(Elf64_Phdr)) {
    refuse(path, "its program headers have a size of " + std::to_string(header.e_phentsize) +
                     " bytes instead of 56; the file is damaged");
  }
  if (header.e_type == ET_DYN && role == ImageRole::kProgram && header.e_entry == 0) {
    refuse(path, "it is a shared library, which has no entry point; name a program");
  }
}

void check_table_bounds(const std::string& path, const Elf64_Ehdr& header, uint64_t file_size) {
  const uint64_t size = uint64_t{header.e_phnum} * sizeof(Elf64_Phdr);
  if (size > kTableSizeMax) {
    refuse(path, "it has " + std::to_string(header.e_phnum) +
                     " program headers, Linux takes at "
                     "most 1170; the file is damaged");
  }
  if (header.e_phoff > file_size || size > file_size - header.e_phoff) {
    refuse(path,
           "its program headers lie beyond the end of the file; the file is truncated or "
           "damaged, install or build it again");
  }
}

struct ElfCloser {
  void operator()(Elf* elf) const { elf_end(elf); }
};

}  // namespace

ElfFile read_elf_file(int descriptor, const std::string& path, ImageRole role) {
  struct stat status;
  if (fstat(descriptor, &status) != 0) {
    refuse(path, std::string("cannot get its size: ") + std::strerror(errno));
  }
  char start[kIdentificationSize];
  const size_t start_size = read_at(descriptor, path, 0, start, sizeof(start));
  check_identification(path, {start, start_size});

  ElfFile file{};
  file.file_size = static_cast<uint64_t>(status.st_size);
  elf_version(EV_CURRENT);
  const std::unique_ptr<Elf, ElfCloser> elf(elf_begin(descriptor, ELF_C_READ, nullptr));
  GElf_Ehdr header;
  if (elf == nullptr || gelf_getehdr(elf.get(), &header) == nullptr) {
    refuse(path, std::string("its ELF header is damaged: ") + elf_errmsg(-1));
  }
  check_header(path, header, role);
  check_table_bounds(path, header, file.file_size);
  size_t count = 0;
  if (elf_getphdrnum(elf.get(), &count) != 0 || count != header.e_phnum) {
    refuse(path, "its program headers can't be read; the file is damaged");
  }
  file.header = header;
  file.program_headers.resize(count);
  for (size_t i = 0; i < count; ++i) {
    if (gelf_getphdr(elf.get(), static_cast<int>(i), &file.program_headers[i]) == nullptr) {
      refuse(path, "program header " + std::to_string(i) + " can't be read: " + elf_errmsg(-1));
    }
  }
  return file;
}

std::string read_interpreter_path(int descriptor, const std::string& path, const ElfFile& file) {
  for (const Elf64_Phdr& header : file.program_headers) {
    if (header.p_type != PT_INTERP) continue;  // Linux takes the first one
    if (header.p_filesz < 2 || header.p_filesz > PATH_MAX) {
      refuse(path, "the path of its interpreter (PT_INTERP) has " +
                       std::to_string(header.p_filesz) + " bytes; the file is damaged");
    }
    if (header.p_offset > file.file_size || header.p_filesz > file.file_size - header.p_offset) {
      refuse(path,
             "the path of its interpreter (PT_INTERP) lies beyond the end of the file; the "
             "file is truncated, install or build it again");
    }
    std::string text(header.p_filesz, '\0');
    if (read_at(descriptor, path, header.p_offset, text.data(), text.size()) != text.size()) {
      refuse(path, "the file became shorter while it was read; try again");
    }
    if (text.back() != '\0') {
      refuse(path,
             "the path of its interpreter (PT_INTERP) does not end with a NUL; the file is "
             "damaged");
    }
    text.resize(std::strlen(text.c_str()));
    if (text.empty()) {
      refuse(path, "the path of its interpreter (PT_INTERP) is empty; the file is damaged");
    }
    return text;
  }
  return {};
}

}  // namespace dbos::vmm
