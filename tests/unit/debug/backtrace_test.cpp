// This test's own process stands for the program: its registers, memory and libraries.
#include <link.h>
#include <sys/auxv.h>
#include <sys/uio.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <climits>
#include <cstddef>
#include <cstring>

#include "vmm/debug/backtrace.h"
#include "vmm/debug/disassemble.h"

using dbos::ProgramFrame;
using dbos::vmm::CallFrame;

namespace {

size_t read_own(uint64_t address, void* destination, size_t size) {
  iovec to = {destination, size};
  iovec from = {reinterpret_cast<void*>(address), size};
  const ssize_t done = process_vm_readv(getpid(), &to, 1, &from, 1, 0);
  return done < 0 ? 0 : static_cast<size_t>(done);
}

std::string own_path() {
  char path[PATH_MAX] = {};
  REQUIRE(readlink("/proc/self/exe", path, sizeof path - 1) > 0);
  return path;
}

// The auxiliary vector lies behind the environment.
uint64_t auxiliary_begin() {
  char** end = environ;
  while (*end != nullptr) ++end;
  return reinterpret_cast<uint64_t>(end + 1);
}

std::vector<CallFrame> own_backtrace() {
  const uint64_t begin = auxiliary_begin();
  const auto modules = dbos::vmm::loaded_modules(read_own, own_path(), begin, begin + 1024);
  ProgramFrame frame = {};
  asm volatile(
      "lea 0(%%rip), %0\n\tmov %%rsp, %1\n\tmov %%rbp, %2\n\tmov %%rbx, %3\n\tmov %%r12, %4\n\t"
      "mov %%r13, %5\n\tmov %%r14, %6\n\tmov %%r15, %7"
      : "=&r"(frame.rip), "=m"(frame.rsp), "=m"(frame.rbp), "=m"(frame.rbx), "=m"(frame.r12),
        "=m"(frame.r13), "=m"(frame.r14), "=m"(frame.r15));
  return dbos::vmm::program_backtrace(frame, read_own, modules);
}

[[gnu::noinline]] std::vector<CallFrame> caller_of_backtrace() {
  auto frames = own_backtrace();
  asm volatile("");  // no tail call
  return frames;
}

// Its name as the linker has it tells a terminal to clear the screen.
[[gnu::noinline]] void clears_the_screen() asm("\"named\033[2J\"");
void clears_the_screen() {
  asm volatile("");
}

}  // namespace

TEST_CASE("the libraries that the dynamic linker has loaded are found in memory") {
  const uint64_t begin = auxiliary_begin();
  const auto modules = dbos::vmm::loaded_modules(read_own, own_path(), begin, begin + 1024);
  REQUIRE(modules.front().path == own_path());
  const auto* const header = reinterpret_cast<const ElfW(Phdr)*>(getauxval(AT_PHDR));
  REQUIRE(modules.front().bias == reinterpret_cast<uint64_t>(header) - header->p_vaddr);
  bool has_libc = false;
  for (const auto& module : modules)
    has_libc = has_libc || module.path.find("/libc.so") != std::string::npos;
  REQUIRE(has_libc);
}

TEST_CASE("a backtrace names functions of the program and of libraries, up to the start") {
  const auto frames = caller_of_backtrace();
  const std::string text = dbos::vmm::format_backtrace(frames);
  INFO(text);
  REQUIRE(frames.size() > 4);
  REQUIRE(text.find("caller_of_backtrace") != std::string::npos);
  REQUIRE(text.find("backtrace_test.cpp:") != std::string::npos);
  REQUIRE(text.find("backtrace_test.cpp:0") == std::string::npos);
  REQUIRE(text.find("main") != std::string::npos);
  REQUIRE(text.find("__libc_start") != std::string::npos);
}

TEST_CASE("memory that can't be read ends a backtrace, and nothing else") {
  ProgramFrame frame = {};
  frame.rip = 0x10;
  frame.rsp = 0x20;
  const auto nothing = [](uint64_t, void*, size_t) -> size_t { return 0; };
  REQUIRE(dbos::vmm::loaded_modules(nothing, "/bin/true", 8, 16).size() == 1);
  const auto frames = dbos::vmm::program_backtrace(frame, nothing, {{"/nowhere", 0}});
  REQUIRE(frames.size() == 1);
  REQUIRE(frames[0].address == 0x10);
  REQUIRE(frames[0].function.empty());
}

TEST_CASE("a chain of libraries that goes round is followed for a while only") {
  // Every word of memory points to itself: all lists are circles.
  const auto circle = [](uint64_t address, void* destination, size_t size) -> size_t {
    auto* const words = static_cast<uint64_t*>(destination);
    for (size_t i = 0; i < size / 8; ++i) words[i] = address;
    return size;
  };
  REQUIRE(dbos::vmm::loaded_modules(circle, "/bin/true", 8, 1024).size() < 1000);
}

TEST_CASE("a chain of libraries without paths that goes round is followed for a while only") {
  struct Memory {
    Elf64_Phdr header;
    Elf64_Dyn dynamic;
    r_debug linker;
    link_map map;
    Elf64_auxv_t auxiliary[3];
  } memory = {};
  constexpr uint64_t kLoadedAt = 0x7000'0000'0000;
  memory.header.p_type = PT_DYNAMIC;
  memory.header.p_vaddr = kLoadedAt + offsetof(Memory, dynamic);
  memory.dynamic = {DT_DEBUG, {kLoadedAt + offsetof(Memory, linker)}};
  memory.linker.r_map = reinterpret_cast<link_map*>(kLoadedAt + offsetof(Memory, map));
  memory.map.l_next = memory.linker.r_map;
  memory.auxiliary[0] = {AT_PHDR, {kLoadedAt + offsetof(Memory, header)}};
  memory.auxiliary[1] = {AT_PHNUM, {1}};
  uint64_t reads_of_map = 0;
  const auto read = [&](uint64_t address, void* destination, size_t size) -> size_t {
    if (address < kLoadedAt || address + size > kLoadedAt + sizeof memory) return 0;
    if (address == kLoadedAt + offsetof(Memory, map)) ++reads_of_map;
    std::memcpy(destination, reinterpret_cast<char*>(&memory) + (address - kLoadedAt), size);
    return size;
  };
  const uint64_t begin = kLoadedAt + offsetof(Memory, auxiliary);
  CHECK(
      dbos::vmm::loaded_modules(read, "/program", begin, begin + sizeof memory.auxiliary).size() ==
      1);
  CHECK(reads_of_map > 1);
}

TEST_CASE("a static PIE without PT_PHDR is found where it was loaded") {
  struct Memory {
    Elf64_Ehdr header;
    Elf64_Phdr headers[2];
    Elf64_auxv_t auxiliary[3];
  } memory = {};
  constexpr uint64_t kLoadedAt = 0x7000'0000'0000;
  memory.headers[0].p_type = PT_NOTE;
  memory.headers[1].p_type = PT_LOAD;
  memory.auxiliary[0] = {AT_PHDR, {kLoadedAt + offsetof(Memory, headers)}};
  memory.auxiliary[1] = {AT_PHNUM, {2}};
  const auto read = [&](uint64_t address, void* destination, size_t size) -> size_t {
    if (address < kLoadedAt || address + size > kLoadedAt + sizeof memory) return 0;
    std::memcpy(destination, reinterpret_cast<char*>(&memory) + (address - kLoadedAt), size);
    return size;
  };
  const uint64_t begin = kLoadedAt + offsetof(Memory, auxiliary);
  const auto modules =
      dbos::vmm::loaded_modules(read, "/static", begin, begin + sizeof memory.auxiliary);
  REQUIRE(modules.size() == 1);
  REQUIRE(modules[0].bias == kLoadedAt);
  // One that lies where it was linked.
  memory.headers[1].p_vaddr = kLoadedAt;
  REQUIRE(
      dbos::vmm::loaded_modules(read, "/static", begin, begin + sizeof memory.auxiliary)[0].bias ==
      0);
}

TEST_CASE("names are cut to what one types") {
  using dbos::vmm::without_arguments;
  CHECK(without_arguments("dbos::work(int)") == "dbos::work");
  CHECK(without_arguments("work[abi:cxx11](int)") == "work");
  CHECK(without_arguments("(anonymous namespace)::work(int)") == "(anonymous namespace)::work");
  CHECK(without_arguments("a::(anonymous namespace)::work(f(*)(int))") ==
        "a::(anonymous namespace)::work");
  CHECK(without_arguments("lines::work::h0123456789abcdef") == "lines::work");
  CHECK(without_arguments("lines::work::hello_is_no_hash_0") == "lines::work::hello_is_no_hash_0");
  CHECK(without_arguments("main") == "main");
  CHECK(without_arguments("").empty());
}

TEST_CASE("instructions are told, and the current one is marked") {
  const uint8_t code[] = {0x89, 0xc3, 0x0f, 0x05, 0xc3, 0x06};
  REQUIRE(dbos::vmm::load_disassembler());
  const auto list = dbos::vmm::disassemble(code, 0x1000, 10);
  REQUIRE(list.size() == 3);
  REQUIRE(list[0].text == "mov ebx, eax");
  REQUIRE(list[1].address == 0x1002);
  REQUIRE(list[2].text == "ret");
  REQUIRE(dbos::vmm::disassemble(code, 0x1000, 1).size() == 1);
  REQUIRE(dbos::vmm::disassemble({}, 0x1000, 5).empty());
  REQUIRE(dbos::vmm::format_bytes(code) == "   89 c3 0f 05 c3 06\n");
  REQUIRE(dbos::vmm::format_instructions(list, 0x1002).find("=> 0x0000000000001002  syscall") !=
          std::string::npos);
}

TEST_CASE("a name is found in the program, its libraries and the guest kernel's file") {
  const uint64_t begin = auxiliary_begin();
  const auto modules = dbos::vmm::loaded_modules(read_own, own_path(), begin, begin + 1024);
  const dbos::vmm::Symbols symbols(modules, {});
  const auto address = [](auto* function) { return reinterpret_cast<uint64_t>(function); };
  REQUIRE(symbols.find("main").value_or(0) != 0);
  // C++ names are found without their arguments.
  REQUIRE(symbols.find("dbos::vmm::format_backtrace") == address(&dbos::vmm::format_backtrace));
  const auto in_library = symbols.find("getppid");
  REQUIRE(in_library);
  REQUIRE(symbols.describe(*in_library, *in_library).module.find("libc") == 0);
  REQUIRE_FALSE(symbols.find("no_such_function"));
  REQUIRE_FALSE(symbols.find(""));
}

TEST_CASE("names of functions hold nothing that a terminal obeys") {
  clears_the_screen();
  const uint64_t begin = auxiliary_begin();
  const auto modules = dbos::vmm::loaded_modules(read_own, own_path(), begin, begin + 1024);
  const auto address = reinterpret_cast<uint64_t>(&clears_the_screen);
  const CallFrame frame = dbos::vmm::Symbols(modules, {}).describe(address, address);
  REQUIRE(frame.function.find("named?[2J") != std::string::npos);
  REQUIRE(frame.function.find('\033') == std::string::npos);
}
