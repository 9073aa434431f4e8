// Fuzzes the VMM's check of hypercalls: whatever a guest passes, what would reach Linux lies in the
// guest's memory or is the VMM's own checked copy. No host call is made.
//
// With libFuzzer: clang++ -fsanitize=fuzzer,address -DDBOS_LIBFUZZER. Otherwise a program that
// draws its inputs at random: proxy_fuzz [seconds] [seed].
#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>

#include "tests/fuzz/proxy_checker.h"
#include "tests/fuzz/proxy_guest.h"
#include "tests/fuzz/rounds.h"

namespace {

using namespace dbos;
using namespace dbos::test;

constexpr uint64_t kSize = 1 << 20;

struct Machine {
  Machine() {
    void* const wanted = reinterpret_cast<void*>(kArenaBase);
    if (mmap(wanted, kSize, PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) != wanted) {
      std::perror("can't map the guest's memory");
      std::exit(1);
    }
    memory.add(kArenaBase, kSize);
    guard->add(3);
    guard->add(1000);
  }
  vmm::GuestMemory memory;
  std::unique_ptr<vmm::DescriptorGuard> guard = std::make_unique<vmm::DescriptorGuard>();
  uint64_t canary = 0;
};

uint64_t accepted = 0;

void run(const uint8_t* data, size_t size) {
  static Machine machine;
  Bytes bytes(data, size);
  const HostileMemory memory{kArenaBase, kArenaBase + kSize,
                             reinterpret_cast<uint64_t>(&machine.canary)};
  Call call = hostile_call(bytes, memory);
  fill_hostile(bytes, memory, 64);
  if (bytes.next(1) % 2 == 0) send_descriptors(bytes, memory, call);
  const syscalls::SystemCall* entry = syscalls::find(call.number);
  if (entry == nullptr || !entry->is_proxied()) return;
  vmm::CallArguments arguments(machine.memory, *machine.guard, call.number, *entry, call.arguments);
  if (arguments.prepare() != 0) return;
  accepted++;
  const std::string fault =
      CallChecker(machine.memory, *machine.guard, arguments, call.number).find_fault();
  if (fault.empty()) return;
  std::fprintf(stderr, "%s would reach Linux\n", fault.c_str());
  std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  run(data, size);
  return 0;
}

#ifndef DBOS_LIBFUZZER
int main(int argc, char** argv) {
  const uint64_t runs = dbos::test::run_rounds(argc, argv, [](std::mt19937_64& random) {
    uint8_t input[1024];
    for (size_t i = 0; i < sizeof input; i += 8) {
      const uint64_t value = random();
      std::memcpy(input + i, &value, sizeof value);
    }
    run(input, sizeof input);
  });
  std::printf("%llu calls, %llu of them would be made\n", static_cast<unsigned long long>(runs),
              static_cast<unsigned long long>(accepted));
  return accepted == 0 ? 1 : 0;
}
#endif
