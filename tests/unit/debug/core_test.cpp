#include <elf.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/procfs.h>
#include <sys/stat.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <csignal>
#include <cstdlib>
#include <cstring>

#include "vmm/debug/core_file.h"

using dbos::DebugMapping;
using dbos::kPageSize;
using dbos::vmm::CoreProgram;

namespace {

struct Note {
  uint32_t type;
  std::string owner;
  std::string data;
};

struct Core {
  std::string bytes;
  Elf64_Ehdr header;
  std::vector<Elf64_Phdr> segments;
  std::vector<Note> notes;
};

DebugMapping mapping(uint64_t begin, uint64_t pages, uint32_t protection, bool shared,
                     const char* path) {
  DebugMapping result = {begin,      begin + pages * kPageSize,         0,
                         protection, shared ? dbos::kMappingShared : 0, {}};
  std::strncpy(result.path, path, sizeof result.path - 1);
  return result;
}

CoreProgram sample() {
  CoreProgram program{};
  program.process_id = 42;
  program.signal = SIGSEGV;
  program.path = "/usr/bin/program";
  program.extended_features = 7;
  program.auxiliary_vector = std::vector<uint8_t>(32, 9);
  for (uint32_t id : {43u, 42u}) {
    dbos::vmm::CoreThread thread{id, {}};
    thread.registers.general.rip = 0x400000 + id;
    thread.registers.general.rsp = 0x7fff0000;
    thread.registers.fs_base = 0x1000 * id;
    thread.registers.extended[576] = 0xab;
    thread.registers.has_special = true;
    program.threads.push_back(thread);
  }
  program.mappings = {mapping(0x400000, 2, PROT_READ | PROT_EXEC, false, "/usr/bin/program"),
                      mapping(0x600000, 3, PROT_READ | PROT_WRITE, false, ""),
                      mapping(0x700000, 1, PROT_NONE, false, ""),
                      mapping(0x800000, 1, PROT_READ | PROT_WRITE, true, "/tmp/shared"),
                      mapping(0x900000, 1, PROT_READ | PROT_EXEC, true, "[vdso]")};
  return program;
}

// Each page holds its own address; the second page of the anonymous mapping is not there.
uint64_t read_page(const DebugMapping&, uint64_t address, void* destination, size_t size) {
  if (address == 0x601000) return size;
  std::memset(destination, 0x11, size);
  std::memcpy(destination, &address, sizeof address);
  return 0;
}

Core write(const CoreProgram& program) {
  const int descriptor = memfd_create("core", 0);
  REQUIRE(dbos::vmm::write_core(descriptor, program, read_page).empty());
  Core core;
  core.bytes.resize(static_cast<size_t>(lseek(descriptor, 0, SEEK_END)));
  REQUIRE(pread(descriptor, core.bytes.data(), core.bytes.size(), 0) ==
          static_cast<ssize_t>(core.bytes.size()));
  close(descriptor);
  std::memcpy(&core.header, core.bytes.data(), sizeof core.header);
  core.segments.resize(core.header.e_phnum);
  std::memcpy(core.segments.data(), &core.bytes[core.header.e_phoff],
              core.segments.size() * sizeof(Elf64_Phdr));
  const Elf64_Phdr& notes = core.segments.at(0);
  for (size_t at = notes.p_offset; at < notes.p_offset + notes.p_filesz;) {
    Elf64_Nhdr header;
    std::memcpy(&header, &core.bytes[at], sizeof header);
    at += sizeof header;
    Note note{header.n_type, core.bytes.substr(at, header.n_namesz - 1), {}};
    at += (header.n_namesz + 3) / 4 * 4;
    note.data = core.bytes.substr(at, header.n_descsz);
    at += (header.n_descsz + 3) / 4 * 4;
    core.notes.push_back(note);
  }
  return core;
}

}  // namespace

TEST_CASE("a core has a segment for each mapping, with what it may hold") {
  const Core core = write(sample());
  REQUIRE(std::memcmp(core.header.e_ident, ELFMAG, SELFMAG) == 0);
  REQUIRE(core.header.e_type == ET_CORE);
  REQUIRE(core.header.e_machine == EM_X86_64);
  REQUIRE(core.segments.size() == 6);
  REQUIRE(core.segments[0].p_type == PT_NOTE);
  const uint64_t sizes[] = {2 * kPageSize, 3 * kPageSize, 0, 0, kPageSize};
  for (size_t i = 1; i < core.segments.size(); ++i) {
    REQUIRE(core.segments[i].p_type == PT_LOAD);
    REQUIRE(core.segments[i].p_filesz == sizes[i - 1]);
    REQUIRE(core.segments[i].p_offset % kPageSize == 0);
  }
  REQUIRE(core.segments[1].p_flags == (PF_R | PF_X));
  REQUIRE(core.segments[2].p_memsz == 3 * kPageSize);
  // The page that is not there is a hole that reads as zeros.
  const size_t hole = core.segments[2].p_offset + kPageSize;
  REQUIRE(core.bytes.substr(hole, kPageSize) == std::string(kPageSize, '\0'));
  uint64_t address = 0;
  std::memcpy(&address, &core.bytes[hole + kPageSize], sizeof address);
  REQUIRE(address == 0x602000);
}

TEST_CASE("a core's notes are those that gdb reads, the thread that died first") {
  const Core core = write(sample());
  const std::vector<uint32_t> wanted = {NT_PRSTATUS, NT_PRPSINFO, NT_AUXV,
                                        NT_FILE,     NT_FPREGSET, NT_X86_XSTATE,
                                        NT_PRSTATUS, NT_FPREGSET, NT_X86_XSTATE};
  std::vector<uint32_t> types;
  for (const Note& note : core.notes) types.push_back(note.type);
  REQUIRE(types == wanted);
  elf_prstatus status;
  REQUIRE(core.notes[0].data.size() == sizeof status);
  std::memcpy(&status, core.notes[0].data.data(), sizeof status);
  REQUIRE(status.pr_pid == 43);
  REQUIRE(status.pr_cursig == SIGSEGV);
  REQUIRE(status.pr_reg[16] == 0x400000 + 43);  // rip, as in struct user_regs_struct
  REQUIRE(status.pr_reg[21] == 0x1000 * 43);    // fs_base
  REQUIRE(status.pr_reg[15] == UINT64_MAX);     // orig_rax
  // XCR0, without which gdb does not know that ymm is there.
  REQUIRE(core.notes[5].owner == "LINUX");
  REQUIRE(core.notes[5].data.size() == 832);
  REQUIRE(core.notes[5].data[464] == 7);
  REQUIRE(static_cast<uint8_t>(core.notes[5].data[576]) == 0xab);
  uint64_t files[5];
  std::memcpy(files, core.notes[3].data.data(), sizeof files);
  REQUIRE(files[0] == 2);
  REQUIRE(files[2] == 0x400000);
  REQUIRE(core.notes[3].data.find(std::string("/usr/bin/program\0/tmp/shared\0", 29)) ==
          8 * (2 + 2 * 3));
}

TEST_CASE("a core written over a file that others may read is for its owner alone") {
  char path[] = "/tmp/dbos-core-test.XXXXXX";
  const int made = mkstemp(path);
  REQUIRE(fchmod(made, 0644) == 0);
  const dbos::vmm::CoreFile file = dbos::vmm::open_core_file(path);
  struct stat status = {};
  fstat(made, &status);
  unlink(path);
  close(made);
  close(file.descriptor);
  REQUIRE(file.error.empty());
  REQUIRE_FALSE(file.is_new);
  REQUIRE((status.st_mode & 07777) == 0600);
}

TEST_CASE("a core that can't be written says why") {
  const int descriptor = open("/dev/full", O_RDWR);
  REQUIRE(dbos::vmm::write_core(descriptor, sample(), read_page).find("No space") !=
          std::string::npos);
  close(descriptor);
}

TEST_CASE(
    "what is not there is passed over in one step, also where a mapping takes up all addresses") {
  CoreProgram program = sample();
  program.mappings = {mapping(0x600000, 1, PROT_READ | PROT_WRITE, false, "")};
  program.mappings[0].end = dbos::kProgramEnd;
  uint64_t steps = 0;
  const auto read = [&steps](const DebugMapping&, uint64_t address, void*, size_t) {
    constexpr uint64_t kEntry = uint64_t{1} << 39;
    ++steps;
    return kEntry - address % kEntry;
  };
  const int descriptor = memfd_create("core", 0);
  dbos::vmm::write_core(descriptor, program, read);  // a file of that size may be refused
  close(descriptor);
  REQUIRE(steps == 256);
}
