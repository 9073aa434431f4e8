// The ELF header and program headers of an executable file, checked for being what this machine
// runs. What the program headers say is checked in elf_segments.h.
//
// The reading is libelf's. Its lenience is not: it gives fewer program headers than the header
// announces if the file ends early, follows PN_XNUM into the section headers (Linux does not), and
// ignores e_phentsize; so what it says is compared with the header, and a difference is an error.
#pragma once

#include <elf.h>

#include <cstdint>
#include <string>
#include <vector>

namespace dbos::vmm {

enum class ImageRole { kProgram, kInterpreter };

struct ElfFile {
  Elf64_Ehdr header;
  std::vector<Elf64_Phdr> program_headers;
  uint64_t file_size;
};

// `path` is for the messages only; the file is read through `descriptor`, whose offset stays.
// Throws LoadError.
ElfFile read_elf_file(int descriptor, const std::string& path, ImageRole role);

// The path that PT_INTERP names; empty if there is none. Throws LoadError.
std::string read_interpreter_path(int descriptor, const std::string& path, const ElfFile& file);

}  // namespace dbos::vmm
