// Fuzzes the VMM's check of hypercalls: whatever a guest passes, what would reach Linux lies in the
// guest's memory or is the VMM's own checked copy. No host call is made.
//
// With libFuzzer: clang++ -fsanitize=fuzzer,address -DDBOS_LIBFUZZER. Otherwise a program that
// draws its inputs at random: proxy_fuzz [seconds] [seed].
#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>

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
  if (!fault.empty()) fail(fault + " would reach Linux");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  run(data, size);
  return 0;
}

#ifndef DBOS_LIBFUZZER
namespace {

std::string random_bytes(Random& random) {
  std::string bytes(1024, '\0');
  for (size_t i = 0; i < bytes.size(); i += 8) {
    const uint64_t value = random();
    std::memcpy(&bytes[i], &value, sizeof value);
  }
  return bytes;
}

}  // namespace

int main(int argc, char** argv) {
  return fuzz_main(argc, argv, random_bytes);
}
#endif
