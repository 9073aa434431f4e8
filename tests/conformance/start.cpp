// How a program starts: arguments, environment, auxiliary vector, registers, program headers,
// relocated and zeroed data, constructors and destructors. Also built static, static-pie and
// non-PIE.
#include <elf.h>
#include <link.h>
#include <sys/auxv.h>
#include <sys/resource.h>

#include "support.h"

extern char** environ;
extern "C"
    [[gnu::visibility("hidden")]] const char __ehdr_start[];  // the linker's: the file's first byte

extern "C" {
int start_chosen() {
  return 17;
}
int (*start_choose())() {
  return start_chosen;
}
}
[[gnu::ifunc("start_choose")]] int chosen();

namespace {

std::string order;  // constructed before the ones below: same file, earlier
struct Constructed {
  explicit Constructed(char letter) : letter_(letter) { order += letter_; }
  ~Constructed() { destroyed(letter_); }
  static void destroyed(char letter) {
    if (getenv("START_TELL_EXIT") != nullptr) check::print("destroyed %c\n", letter);
  }
  char letter_;
};
Constructed first('a');
Constructed second('b');
Constructed third('c');

int early_value = 0;
[[gnu::constructor(101)]] void early() {
  early_value = early_value * 10 + 1;
}
[[gnu::constructor(102)]] void later() {
  early_value = early_value * 10 + 2;
}

uint32_t first_mxcsr = 0;
uint16_t first_x87 = 0;
uint64_t first_flags = 0;
[[gnu::constructor(103)]] void note_registers() {
  asm volatile("stmxcsr %0" : "=m"(first_mxcsr));
  asm volatile("fnstcw %0" : "=m"(first_x87));
  first_flags = __builtin_ia32_readeflags_u64();
}

unsigned char big_zero[16 * kMiB];
int initialised[3] = {7, 8, 9};
int* const pointers[] = {&initialised[0], &initialised[2]};
const char text_constant[] = "constant";
alignas(64) thread_local int thread_value = 42;
thread_local unsigned char thread_zero[5000];

int plain() {
  return 17;
}

uint64_t hash_of(const char* text) {
  uint64_t h = 1469598103934665603u;
  for (; *text != 0; ++text) h = (h ^ static_cast<unsigned char>(*text)) * 1099511628211u;
  return h;
}

// Runs this program again; what it prints is part of this program's output.
int run_again(std::vector<std::string> argv, std::vector<std::string> env) {
  std::vector<char*> a, e;
  for (std::string& one : argv) a.push_back(one.data());
  for (std::string& one : env) e.push_back(one.data());
  a.push_back(nullptr);
  e.push_back(nullptr);
  return run_child([&] {
    execve(check::self.c_str(), a.data(), e.data());
    check::print("execve: %s\n", check::errno_name(errno));
  });
}
std::vector<std::string> helper(const char* name, std::vector<std::string> more = {}) {
  std::vector<std::string> argv = {check::self, "--helper", name};
  argv.insert(argv.end(), more.begin(), more.end());
  return argv;
}

const ElfW(Phdr) * program_headers() {
  return reinterpret_cast<const ElfW(Phdr)*>(getauxval(AT_PHDR));
}
// What has to be added to the addresses in the program headers.
uintptr_t load_bias() {
  for (size_t i = 0; i < getauxval(AT_PHNUM); ++i) {
    const auto& header = program_headers()[i];
    if (header.p_type == PT_LOAD && header.p_offset == 0) {
      return reinterpret_cast<uintptr_t>(__ehdr_start) - header.p_vaddr;
    }
  }
  return 0;
}

}  // namespace

HELPER(tell) {
  check::print("argc %d, argv[argc] %s\n", argc, argv[argc] == nullptr ? "null" : "not null");
  for (int i = 0; i < argc && i < 8; ++i) {
    check::print("argument %d: length %zu, hash %016llx\n", i, strlen(argv[i]),
                 static_cast<unsigned long long>(hash_of(argv[i])));
  }
  uint64_t all = 0;
  for (int i = 0; i < argc; ++i) all = all * 31 + hash_of(argv[i]);
  size_t count = 0, size = 0;
  for (char** e = environ; *e != nullptr; ++e, ++count) size += strlen(*e) + 1;
  check::print("arguments' hash %016llx, environment %zu strings, %zu bytes\n",
               static_cast<unsigned long long>(all), count, size);
  for (size_t i = 0; i < count && i < 5; ++i) {
    check::print("environment %zu: hash %016llx\n", i,
                 static_cast<unsigned long long>(hash_of(environ[i])));
  }
  return 0;
}

HELPER(exit_by_return) {
  atexit([] { check::print("atexit 1\n"); });
  atexit([] { check::print("atexit 2\n"); });
  return 5;
}
HELPER(exit_by_exit) {
  atexit([] { check::print("atexit 1\n"); });
  exit(6);
}
HELPER(exit_at_once) {
  atexit([] { check::print("atexit must not run\n"); });
  _exit(7);
}
HELPER(exit_quickly) {
  atexit([] { check::print("atexit must not run\n"); });
  at_quick_exit([] { check::print("at_quick_exit\n"); });
  quick_exit(8);
}
HELPER(exit_flushes) {
  printf("left in the buffer");
  return 9;
}

CASE(arguments_are_terminated_and_adjacent) {
  int count = 0;
  while (check::arguments[count] != nullptr) ++count;
  CHECK(count >= 1);
  CHECK(check::arguments + count + 1 == environ);  // one array after the other on the first stack
}

CASE(auxiliary_vector_describes_the_process) {
  CHECK_EQ(getauxval(AT_PAGESZ), 4096);
  CHECK_EQ(getauxval(AT_CLKTCK), 100);
  CHECK_EQ(getauxval(AT_UID), getuid());
  CHECK_EQ(getauxval(AT_EUID), geteuid());
  CHECK_EQ(getauxval(AT_GID), getgid());
  CHECK_EQ(getauxval(AT_EGID), getegid());
  CHECK_EQ(getauxval(AT_SECURE), 0);
  CHECK_EQ(getauxval(AT_FLAGS), 0);
  CHECK_EQ(getauxval(AT_PHENT), sizeof(ElfW(Phdr)));
  CHECK(strcmp(reinterpret_cast<const char*>(getauxval(AT_PLATFORM)), "x86_64") == 0);
  const char* name = reinterpret_cast<const char*>(getauxval(AT_EXECFN));
  REQUIRE(name != nullptr);
  CHECK(strcmp(name, check::arguments[0]) == 0);
  errno = 0;
  CHECK_EQ(getauxval(9999), 0);
  CHECK_EQ(errno, ENOENT);
}

CASE(auxiliary_vector_names_the_cpu_features) {
  // Some hosts leave it empty, so it is only compared.
  check::print("AT_HWCAP has SSE2: %d\n", (getauxval(AT_HWCAP) >> 26 & 1) != 0);
  check::print("AT_HWCAP2: %lx\n",
               getauxval(AT_HWCAP2) & 1);  // bit 1, FSGSBASE, is the kernel's own
}

CASE(auxiliary_vector_has_sixteen_random_bytes) {
  auto* random = reinterpret_cast<unsigned char*>(getauxval(AT_RANDOM));
  REQUIRE(random != nullptr);
  CHECK(!all_are(random, 16, random[0]));
}

CASE(auxiliary_vector_follows_the_environment) {
  char** end = environ;
  while (*end != nullptr) ++end;
  auto* vector = reinterpret_cast<ElfW(auxv_t)*>(end + 1);
  bool found = false;
  int entries = 0;
  for (; vector->a_type != AT_NULL && entries < 64; ++vector, ++entries) {
    if (vector->a_type == AT_PAGESZ) found = vector->a_un.a_val == kPage;
  }
  CHECK(found);
  CHECK(entries < 64);
}

CASE(vdso_is_an_elf_image_with_clock_gettime) {
  auto* header = reinterpret_cast<const ElfW(Ehdr)*>(getauxval(AT_SYSINFO_EHDR));
  REQUIRE(header != nullptr);
  CHECK(memcmp(header->e_ident, ELFMAG, SELFMAG) == 0);
  CHECK_EQ(header->e_machine, EM_X86_64);
  auto* base = reinterpret_cast<const char*>(header);
  auto* program = reinterpret_cast<const ElfW(Phdr)*>(base + header->e_phoff);
  const char* load = nullptr;
  const ElfW(Dyn)* dynamic = nullptr;
  for (int i = 0; i < header->e_phnum; ++i) {
    if (program[i].p_type == PT_LOAD) load = base + program[i].p_offset - program[i].p_vaddr;
    if (program[i].p_type == PT_DYNAMIC) {
      dynamic = reinterpret_cast<const ElfW(Dyn)*>(base + program[i].p_offset);
    }
  }
  REQUIRE(load != nullptr && dynamic != nullptr);
  const char* strings = nullptr;
  size_t size = 0;
  for (; dynamic->d_tag != DT_NULL; ++dynamic) {
    if (dynamic->d_tag == DT_STRTAB) strings = load + dynamic->d_un.d_ptr;
    if (dynamic->d_tag == DT_STRSZ) size = dynamic->d_un.d_val;
  }
  REQUIRE(strings != nullptr);
  std::string names(strings, size);
  CHECK(names.find("__vdso_clock_gettime") != std::string::npos);
  CHECK(names.find("__vdso_gettimeofday") != std::string::npos);
  CHECK(names.find("__vdso_time") != std::string::npos);
  CHECK(names.find("__vdso_getcpu") != std::string::npos);
}

CASE(program_headers_cover_code_and_data) {
  uintptr_t bias = load_bias();
  auto within = [bias](uintptr_t address, unsigned flags) {
    for (size_t i = 0; i < getauxval(AT_PHNUM); ++i) {
      const auto& header = program_headers()[i];
      if (header.p_type != PT_LOAD || (header.p_flags & flags) != flags) continue;
      uintptr_t start = header.p_vaddr + bias;
      if (address >= start && address < start + header.p_memsz) return true;
    }
    return false;
  };
  CHECK(within(getauxval(AT_ENTRY), PF_X));
  CHECK(within(reinterpret_cast<uintptr_t>(&plain), PF_X));
  CHECK(within(reinterpret_cast<uintptr_t>(big_zero), PF_W));
  CHECK(within(reinterpret_cast<uintptr_t>(big_zero + sizeof big_zero - 1), PF_W));
  CHECK(within(reinterpret_cast<uintptr_t>(text_constant), PF_R));
}

CASE(loader_walks_the_objects) {
  int with_main = 0;
  dl_iterate_phdr(
      [](dl_phdr_info* info, size_t, void* count) {
        if (info->dlpi_addr == load_bias() && info->dlpi_name[0] == 0) ++*static_cast<int*>(count);
        return 0;
      },
      &with_main);
  CHECK_EQ(with_main, 1);
}

CASE(registers_at_start_are_linux_defaults) {
  CHECK_EQ(first_mxcsr, 0x1f80);
  CHECK_EQ(first_x87, 0x037f);
  CHECK_EQ(first_flags & 0x400, 0);      // direction flag
  CHECK_EQ(first_flags & 0x200, 0x200);  // a program sees interrupts enabled
  alignas(64) volatile int aligned = 1;
  CHECK_EQ(reinterpret_cast<uintptr_t>(&aligned) % 64, 0);
}

CASE(data_is_relocated_and_bss_is_zero) {
  CHECK_EQ(*pointers[0] + *pointers[1], 16);
  for (size_t i = 0; i < sizeof big_zero; i += kPage) CHECK_EQ(bytes(big_zero)[i], 0);
  CHECK_EQ(bytes(big_zero)[sizeof big_zero - 1], 0);
  fill(big_zero, sizeof big_zero, 1, 64 * kKiB);
  CHECK(filled(big_zero, sizeof big_zero, 1, 64 * kKiB));
}

CASE(constants_and_code_are_read_only) {
  Fault fault = fault_of([] { *bytes(const_cast<char*>(text_constant)) = 'C'; });
  CHECK(is(fault, SIGSEGV, SEGV_ACCERR, const_cast<char*>(text_constant)));
  fault = fault_of([] { *bytes(reinterpret_cast<void*>(&plain)) = 0xcc; });
  CHECK(is(fault, SIGSEGV, SEGV_ACCERR, reinterpret_cast<void*>(&plain)));
  fault = fault_of([] { *bytes(const_cast<int**>(&pointers[0])) = 1; });
  CHECK(is(fault, SIGSEGV, SEGV_ACCERR, const_cast<int**>(&pointers[0])));
}

CASE(thread_locals_and_indirect_functions_are_ready) {
  CHECK_EQ(thread_value, 42);
  CHECK_EQ(reinterpret_cast<uintptr_t>(&thread_value) % 64, 0);
  CHECK(all_are(thread_zero, sizeof thread_zero, 0));
  CHECK_EQ(chosen(), 17);
}

CASE(constructors_ran_in_order) {
  CHECK_EQ(early_value, 12);
  CHECK(order == "abc");
}

CASE(exit_paths_run_what_they_should) {
  std::vector<std::string> env = {"START_TELL_EXIT=1"};
  CHECK(exited(run_again(helper("exit_by_return"), env), 5));
  CHECK(exited(run_again(helper("exit_by_exit"), env), 6));
  CHECK(exited(run_again(helper("exit_at_once"), env), 7));
  CHECK(exited(run_again(helper("exit_quickly"), env), 8));
  CHECK(exited(run_again(helper("exit_flushes"), {}), 9));
  check::print("\n");
}

CASE(exec_passes_odd_arguments) {
  CHECK(exited(run_again(helper("tell", {"", " ", "a b", "-", "\xff\x01", "", "last"}), {"A=1"})));
}
CASE(exec_with_an_empty_environment) {
  CHECK(exited(run_again(helper("tell"), {})));
}
CASE(exec_with_an_odd_environment) {
  CHECK(exited(run_again(helper("tell"), {"A=1", "A=2", "noequals", "=value", ""})));
}
CASE(exec_with_100_kB_argument) {
  CHECK(exited(run_again(helper("tell", {std::string(100000, 'x'), "y"}), {"A=1"})));
}
CASE(exec_with_5000_arguments) {
  std::vector<std::string> many;
  for (int i = 0; i < 5000; ++i) many.push_back("argument " + std::to_string(i));
  CHECK(exited(run_again(helper("tell", many), {"A=1"})));
}
CASE(exec_with_3000_variables_and_a_100_kB_one) {
  std::vector<std::string> many = {"BIG=" + std::string(100000, 'e')};
  for (int i = 0; i < 3000; ++i)
    many.push_back("V" + std::to_string(i) + "=" + std::string(i % 50, 'v'));
  CHECK(exited(run_again(helper("tell"), many)));
}
CASE(exec_refuses_too_much) {
  CHECK(exited(run_again(helper("tell", {std::string(131072, 'x')}), {})));
  rlimit limit = {};
  REQUIRE(getrlimit(RLIMIT_STACK, &limit) == 0);
  if (limit.rlim_cur > 8 * kMiB) SKIP("stack limit above 8 MiB");
  CHECK(exited(
      run_again(helper("tell", std::vector<std::string>(40, std::string(100000, 'x'))), {})));
}
CASE(exec_without_arguments_gets_an_empty_one) {
  char* none[] = {nullptr};
  char name[] = "START_WITHOUT_ARGUMENTS=1";
  char* env[] = {name, nullptr};
  CHECK(exited(run_child([&] {
    execve(check::self.c_str(), none, env);
    check::print("execve: %s\n", check::errno_name(errno));
  })));
}

int main(int argc, char** argv) {
  if (getenv("START_WITHOUT_ARGUMENTS") != nullptr) {
    check::print("argc %d\n", argc);
    for (int i = 0; i < argc; ++i) check::print("argument %d: '%s'\n", i, argv[i]);
    return 0;
  }
  return check::main(argc, argv);
}
