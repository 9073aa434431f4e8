// Builds images of guest kernels for the tests, each of which can be wrong in one place.
#pragma once

#include <span>

#include "hypercall/abi.h"
#include "tests/unit/loader/elf_builder.h"

namespace dbos::vmm::test {

// A sound image: code at the base, data with a bss behind it, and the note in the code.
struct KernelBuilder : ElfBuilder {
  static constexpr uint64_t kNoteOffset = 0x1100;
  dbos_image_note note{
      5, 16, DBOS_NOTE_TYPE, DBOS_NOTE_NAME, DBOS_ABI_VERSION, DBOS_IMAGE_LOADS_PROGRAM, 0, 0};

  KernelBuilder() {
    header.e_entry = kKernelImageBase + 0x40;
    segments = {load_header(0x1000, kKernelImageBase, 0x800, 0x800, PF_R | PF_X),
                load_header(0x2000, kKernelImageBase + 0x1000, 0x800, 0x2800, PF_R | PF_W),
                note_header()};
    bytes.emplace_back(0x1040, "code");
    bytes.emplace_back(0x2000, "data");
  }

  Elf64_Phdr& code() { return segments[0]; }
  Elf64_Phdr& data() { return segments[1]; }

  static Elf64_Phdr note_header() {
    Elf64_Phdr header = load_header(kNoteOffset, kKernelImageBase + 0x100, sizeof(dbos_image_note),
                                    sizeof(dbos_image_note), PF_R);
    header.p_type = PT_NOTE;
    header.p_align = 4;
    return header;
  }

  std::string image() const {
    ElfBuilder whole = *this;
    whole.bytes.emplace_back(kNoteOffset,
                             std::string(reinterpret_cast<const char*>(&note), sizeof note));
    return whole.image();
  }
};

inline std::span<const std::byte> bytes_of(const std::string& text) {
  return std::as_bytes(std::span(text));
}

}  // namespace dbos::vmm::test
