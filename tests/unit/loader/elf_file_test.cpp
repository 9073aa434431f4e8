#include "vmm/loader/elf_file.h"

#include <catch2/catch.hpp>
#include <climits>

#include "tests/unit/loader/elf_builder.h"
#include "tests/unit/loader/refusal.h"

namespace dbos::vmm::test {
namespace {

std::string header_refusal(const std::string& content) {
  const FileDescriptor file = memory_file(content);
  return refusal([&] { read_elf_file(file.number(), "/opt/db", ImageRole::kProgram); });
}

std::string interpreter_refusal(const ElfBuilder& builder) {
  const FileDescriptor file = memory_file(builder.image());
  const ElfFile elf = read_elf_file(file.number(), "/opt/db", ImageRole::kProgram);
  return refusal([&] { read_interpreter_path(file.number(), "/opt/db", elf); });
}

}  // namespace

TEST_CASE("a sound program's headers are read as they are in the file") {
  const ElfBuilder builder;
  const FileDescriptor file = memory_file(builder.image());
  const ElfFile elf = read_elf_file(file.number(), "/opt/db", ImageRole::kProgram);
  REQUIRE(elf.file_size == builder.file_size);
  REQUIRE(elf.header.e_entry == 0x401000);
  REQUIRE(elf.program_headers.size() == 2);
  REQUIRE(std::memcmp(elf.program_headers.data(), builder.segments.data(),
                      2 * sizeof(Elf64_Phdr)) == 0);
  REQUIRE(read_interpreter_path(file.number(), "/opt/db", elf).empty());
}

TEST_CASE("reading the headers leaves the file's offset where it was") {
  const FileDescriptor file = memory_file(ElfBuilder().image());
  lseek(file.number(), 17, SEEK_SET);
  read_elf_file(file.number(), "/opt/db", ImageRole::kProgram);
  REQUIRE(lseek(file.number(), 0, SEEK_CUR) == 17);
}

TEST_CASE("what is not an ELF file is refused by its kind") {
  require_words(header_refusal(""), {"126", "/opt/db", "empty"});
  require_words(header_refusal("hello, world"), {"126", "not an ELF file"});
  require_words(header_refusal("\x7f"), {"not an ELF file"});
  require_words(header_refusal("\x7f"
                               "ELF\2\1\1"),
                {"truncated", "ELF header"});
}

TEST_CASE("a script's refusal names its interpreter with its arguments") {
  require_words(
      header_refusal("#!/usr/bin/env -S python3 -u\nprint(1)\n"),
      {"126", "script for /usr/bin/env -S python3 -u", "outside the guest", "put dbos-run before"});
  require_words(header_refusal("#! \t/bin/sh \r\n"), {"script for /bin/sh, and"});
  require_words(header_refusal("#!/bin/sh"), {"script for /bin/sh, and"});
  require_words(header_refusal("#!\n"), {"script", "no interpreter"});
  require_words(header_refusal("#!"), {"script", "no interpreter"});
  require_words(header_refusal("#!/bin/\x1b[31msh\n"), {"/bin/?[31msh"});
  require_words(header_refusal("#!" + std::string(5000, 'x')), {"script"});
}

TEST_CASE("another class, byte order or machine is named") {
  ElfBuilder builder;
  builder.header.e_ident[EI_CLASS] = ELFCLASS32;
  require_words(header_refusal(builder.image()), {"32-bit", "x86-64"});
  builder = {};
  builder.header.e_ident[EI_CLASS] = 7;
  require_words(header_refusal(builder.image()), {"ELF class"});
  builder = {};
  builder.header.e_ident[EI_DATA] = ELFDATA2MSB;
  require_words(header_refusal(builder.image()), {"big-endian"});
  builder = {};
  builder.header.e_ident[EI_DATA] = 9;
  require_words(header_refusal(builder.image()), {"byte order"});
  builder = {};
  builder.header.e_ident[EI_VERSION] = 0;
  require_words(header_refusal(builder.image()), {"ELF version"});
  const std::pair<int, const char*> machines[] = {
      {EM_386, "i386"},   {EM_AARCH64, "aarch64"}, {EM_RISCV, "riscv"},   {EM_PPC64, "ppc64"},
      {EM_S390, "s390x"}, {258, "loongarch"},      {9999, "machine 9999"}};
  for (const auto& [machine, name] : machines) {
    builder = {};
    builder.header.e_machine = static_cast<uint16_t>(machine);
    require_words(header_refusal(builder.image()), {"built for", name});
  }
}

TEST_CASE("an ELF file that is no program is named") {
  ElfBuilder builder;
  builder.header.e_type = ET_REL;
  require_words(header_refusal(builder.image()), {"relocatable object", "link"});
  builder.header.e_type = ET_CORE;
  require_words(header_refusal(builder.image()), {"core dump"});
  builder.header.e_type = 77;
  require_words(header_refusal(builder.image()), {"ELF type 77"});
  builder = {};
  builder.make_position_independent().header.e_entry = 0;
  require_words(header_refusal(builder.image()), {"shared library"});
}

TEST_CASE("a program header table that is not all there is refused") {
  ElfBuilder builder;
  require_words(header_refusal(builder.image(0)), {"no program headers"});
  builder.header.e_phentsize = 32;
  require_words(header_refusal(builder.image()), {"program headers", "32 bytes"});
  builder = {};
  builder.header.e_ehsize = 52;
  require_words(header_refusal(builder.image()), {"ELF header", "52 bytes"});
  builder = {};
  require_words(header_refusal(builder.image(500)), {"program headers", "beyond the end"});
  require_words(header_refusal(builder.image(2000)), {"2000 program headers"});
  // 0xffff (PN_XNUM) sends libelf to the section headers; Linux takes it as the number.
  require_words(header_refusal(builder.image(PN_XNUM)), {"65535 program headers"});
  for (const uint64_t offset : {builder.file_size - 100, builder.file_size, uint64_t{1} << 40,
                                UINT64_MAX - 10, UINT64_MAX}) {
    builder.header.e_phoff = offset;
    require_words(header_refusal(builder.image()), {"program headers", "beyond the end"});
  }
}

TEST_CASE("section headers do not matter, however broken") {
  ElfBuilder builder;
  builder.header.e_shoff = UINT64_MAX - 3;
  builder.header.e_shnum = 60000;
  builder.header.e_shentsize = 1;
  builder.header.e_shstrndx = 61000;
  REQUIRE(header_refusal(builder.image()).empty());
  builder.header.e_shnum = 0;
  builder.header.e_shoff = 0x100;
  REQUIRE(header_refusal(builder.image()).empty());
}

TEST_CASE("the interpreter's path is what PT_INTERP says") {
  ElfBuilder builder;
  builder.add_interpreter("/lib64/ld-linux-x86-64.so.2");
  const FileDescriptor file = memory_file(builder.image());
  const ElfFile elf = read_elf_file(file.number(), "/opt/db", ImageRole::kProgram);
  REQUIRE(read_interpreter_path(file.number(), "/opt/db", elf) == "/lib64/ld-linux-x86-64.so.2");
}

TEST_CASE("an interpreter's path that is none is refused") {
  ElfBuilder sound;
  sound.add_interpreter("/lib64/ld.so");
  ElfBuilder builder = sound;
  builder.segments[0].p_filesz = 1;
  require_words(interpreter_refusal(builder), {"126", "PT_INTERP", "1 bytes"});
  builder.segments[0].p_filesz = PATH_MAX + 1;
  require_words(interpreter_refusal(builder), {"PT_INTERP", "4097 bytes"});
  builder.segments[0].p_filesz = UINT64_MAX;
  require_words(interpreter_refusal(builder), {"PT_INTERP"});
  builder.segments[0].p_filesz = 12;  // without the NUL
  require_words(interpreter_refusal(builder), {"PT_INTERP", "NUL"});
  builder = sound;
  builder.segments[0].p_offset = builder.file_size - 5;
  require_words(interpreter_refusal(builder), {"PT_INTERP", "beyond the end"});
  builder.segments[0].p_offset = UINT64_MAX - 5;
  require_words(interpreter_refusal(builder), {"PT_INTERP", "beyond the end"});
  builder = sound;
  builder.segments[0].p_offset = 0x1800;  // zeros
  require_words(interpreter_refusal(builder), {"PT_INTERP", "empty"});
}

}  // namespace dbos::vmm::test
