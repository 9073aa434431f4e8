// The vDSO's image as the guest kernel maps it: one page of clock before it. argv[1]: the image.
#include <elf.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>
#include <ctime>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <vector>

#include "vmm/machine/clock.h"

namespace {

using namespace dbos;  // NOLINT: a test program

int failures = 0;
void check(bool condition, const char* what) {
  std::printf("%s %s\n", condition ? "ok  " : "FAIL", what);
  failures += condition ? 0 : 1;
}

// By name in the dynamic symbols, as libc looks.
template <typename Function>
Function find(const uint8_t* image, const char* name) {
  const auto* header = reinterpret_cast<const Elf64_Ehdr*>(image);
  const auto* segments = reinterpret_cast<const Elf64_Phdr*>(image + header->e_phoff);
  const Elf64_Dyn* dynamic = nullptr;
  for (int i = 0; i < header->e_phnum; ++i) {
    if (segments[i].p_type == PT_DYNAMIC)
      dynamic = reinterpret_cast<const Elf64_Dyn*>(image + segments[i].p_vaddr);
  }
  const char* strings = nullptr;
  const Elf64_Sym* symbols = nullptr;
  const uint32_t* hash = nullptr;
  for (; dynamic->d_tag != DT_NULL; ++dynamic) {
    const uint8_t* const at = image + dynamic->d_un.d_ptr;
    if (dynamic->d_tag == DT_STRTAB) strings = reinterpret_cast<const char*>(at);
    if (dynamic->d_tag == DT_SYMTAB) symbols = reinterpret_cast<const Elf64_Sym*>(at);
    if (dynamic->d_tag == DT_HASH) hash = reinterpret_cast<const uint32_t*>(at);
  }
  for (uint32_t i = 1; i < hash[1]; ++i) {
    if (std::strcmp(strings + symbols[i].st_name, name) == 0)
      return reinterpret_cast<Function>(const_cast<uint8_t*>(image) + symbols[i].st_value);
  }
  std::printf("FAIL no symbol %s\n", name);
  std::_Exit(1);
}

int64_t nanoseconds(const timespec& time) {
  return int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

bool agrees(int (*clock_gettime_of_vdso)(int, timespec*), int clock) {
  timespec before{};
  timespec now{};
  timespec after{};
  syscall(SYS_clock_gettime, clock, &before);
  if (clock_gettime_of_vdso(clock, &now) != 0) return false;
  // Linux's coarse clock stands still until its next tick, which comes late on a busy host.
  const int fine = clock == CLOCK_MONOTONIC_COARSE ? CLOCK_MONOTONIC : clock;
  syscall(SYS_clock_gettime, fine, &after);
  constexpr int64_t kTolerance = 5'000'000;  // the coarse clocks' tick
  return nanoseconds(now) > nanoseconds(before) - kTolerance &&
         nanoseconds(now) < nanoseconds(after) + kTolerance;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  std::ifstream file(argv[1], std::ios::binary);
  const std::vector<char> bytes((std::istreambuf_iterator<char>(file)), {});
  const size_t size = (bytes.size() + 4095) & ~size_t{4095};
  auto* const pages = static_cast<uint8_t*>(
      mmap(nullptr, 4096 + size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  std::memcpy(pages + 4096, bytes.data(), bytes.size());
  mprotect(pages + 4096, size, PROT_READ | PROT_EXEC);
  const uint8_t* const image = pages + 4096;

  const auto get = find<int (*)(int, timespec*)>(image, "__vdso_clock_gettime");
  const auto of_day = find<int (*)(timeval*, void*)>(image, "__vdso_gettimeofday");
  const auto seconds = find<long (*)(long*)>(image, "__vdso_time");
  const auto resolution = find<int (*)(int, timespec*)>(image, "__vdso_clock_getres");
  const auto cpu = find<long (*)(unsigned*, unsigned*, void*)>(image, "__vdso_getcpu");
  check(find<void*>(image, "clock_gettime") == reinterpret_cast<void*>(get), "alias");

  const auto run = [&](const char* state) {
    std::printf("-- %s\n", state);
    for (const int clock : {0, 1, 4, 5, 6, 7, 11}) check(agrees(get, clock), "a clock agrees");
    timespec result{};
    check(get(1234, &result) == -22, "an unknown clock is EINVAL");
    timeval value{};
    check(of_day(&value, nullptr) == 0 && std::labs(value.tv_sec - time(nullptr)) <= 1,
          "gettimeofday");
    struct timezone zone {};
    check(of_day(&value, &zone) == 0, "gettimeofday with a zone");
    long stored = 0;
    const long answer = seconds(&stored);
    check(answer == stored && std::labs(answer - time(nullptr)) <= 1, "time");
    check(resolution(1, &result) == 0 && result.tv_nsec == 1, "resolution");
    check(resolution(6, &result) == 0 && result.tv_nsec > 1, "coarse resolution");
    unsigned number = ~0u;
    check(cpu(&number, nullptr, nullptr) == 0 && number != ~0u, "getcpu");
  };
  run("without a clock page: system calls");
  vmm::ClockWriter writer(*reinterpret_cast<ClockPage*>(pages));
  writer.start();
  run("with the clock page");
  timespec last{};
  bool rises = true;
  for (int i = 0; i < 100'000; ++i) {
    timespec now{};
    get(CLOCK_MONOTONIC, &now);
    rises &= nanoseconds(now) >= nanoseconds(last);
    last = now;
  }
  check(rises, "monotonic time does not step back");
  return failures == 0 ? 0 : 1;
}
