// Builds ELF images for the tests, byte by byte, so that each can be wrong in one place.
#pragma once

#include <elf.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "vmm/loader/file_descriptor.h"

namespace dbos::vmm::test {

inline Elf64_Phdr load_header(uint64_t offset, uint64_t address, uint64_t file_size,
                              uint64_t memory_size, uint32_t flags) {
  Elf64_Phdr header{};
  header.p_type = PT_LOAD;
  header.p_flags = flags;
  header.p_offset = offset;
  header.p_vaddr = address;
  header.p_paddr = address;
  header.p_filesz = file_size;
  header.p_memsz = memory_size;
  header.p_align = 0x1000;
  return header;
}

// Starts as a sound static program: text with the headers at 0x400000, data with 0x800 bytes from
// the file and a bss of 0x2000 bytes at 0x402000. `bytes` is what the file holds at which offset.
struct ElfBuilder {
  Elf64_Ehdr header{};
  std::vector<Elf64_Phdr> segments;
  uint64_t file_size = 0x2800;
  std::vector<std::pair<uint64_t, std::string>> bytes;

  ElfBuilder() {
    std::memcpy(header.e_ident, ELFMAG, SELFMAG);
    header.e_ident[EI_CLASS] = ELFCLASS64;
    header.e_ident[EI_DATA] = ELFDATA2LSB;
    header.e_ident[EI_VERSION] = EV_CURRENT;
    header.e_type = ET_EXEC;
    header.e_machine = EM_X86_64;
    header.e_version = EV_CURRENT;
    header.e_ehsize = sizeof(Elf64_Ehdr);
    header.e_phoff = sizeof(Elf64_Ehdr);
    header.e_phentsize = sizeof(Elf64_Phdr);
    header.e_entry = 0x401000;
    segments.push_back(load_header(0, 0x400000, 0x1800, 0x1800, PF_R | PF_X));
    segments.push_back(load_header(0x2000, 0x402000, 0x800, 0x2800, PF_R | PF_W));
  }

  // The same as a position-independent image, linked at 0.
  ElfBuilder& make_position_independent() {
    header.e_type = ET_DYN;
    header.e_entry -= 0x400000;
    for (Elf64_Phdr& segment : segments) segment.p_vaddr -= 0x400000;
    return *this;
  }

  ElfBuilder& add_interpreter(const std::string& path) {
    Elf64_Phdr interpreter{};
    interpreter.p_type = PT_INTERP;
    interpreter.p_offset = 0x1700;
    interpreter.p_filesz = path.size() + 1;
    segments.insert(segments.begin(), interpreter);
    bytes.emplace_back(0x1700, path + '\0');
    return *this;
  }

  // With `announced` program headers in the ELF header, however many there are.
  std::string image(int announced = -1) const {
    Elf64_Ehdr head = header;
    head.e_phnum = static_cast<uint16_t>(announced >= 0 ? announced : segments.size());
    std::string result(file_size, '\0');
    auto put = [&](uint64_t offset, const void* from, size_t size) {
      if (size == 0 || offset >= result.size()) return;
      std::memcpy(result.data() + offset, from, std::min<uint64_t>(size, result.size() - offset));
    };
    put(0, &head, sizeof(head));
    put(header.e_phoff, segments.data(), segments.size() * sizeof(Elf64_Phdr));
    for (const auto& [offset, text] : bytes) put(offset, text.data(), text.size());
    return result;
  }
};

inline FileDescriptor memory_file(const std::string& content) {
  FileDescriptor file(memfd_create("elf", MFD_CLOEXEC));
  if (!file.is_open() || pwrite(file.number(), content.data(), content.size(), 0) !=
                             static_cast<ssize_t>(content.size())) {
    throw std::runtime_error("cannot make a file in memory");
  }
  return file;
}

}  // namespace dbos::vmm::test
