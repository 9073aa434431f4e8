#include "vmm/loader/boot_information.h"

#include <sys/auxv.h>
#include <sys/personality.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstring>
#include <fstream>
#include <vector>

#include "hypercall/linux_structures.h"
#include "tests/unit/loader/refusal.h"

namespace dbos::vmm::test {
namespace {

const std::vector<std::string> kArguments = {"redis-server", "", "--port", "6379"};
const std::vector<std::string> kEnvironment = {"PATH=/bin", "EMPTY="};

ProgramStart sound_start() {
  return {kArguments, kEnvironment, "/usr/bin/redis-check-rdb", "redis-server"};
}

// Aligned as the boot information's page is.
std::vector<std::byte> destination(size_t size = kBootInformationSizeMax) {
  return std::vector<std::byte>(size, std::byte{0xee});
}

BootInformation read_back(std::span<const std::byte> bytes) {
  BootInformation boot;
  std::memcpy(&boot, bytes.data(), sizeof(boot));
  return boot;
}

std::vector<std::string> strings_at(std::span<const std::byte> bytes, uint64_t offset,
                                    uint64_t count) {
  std::vector<std::string> result;
  const char* text = reinterpret_cast<const char*>(bytes.data()) + offset;
  for (uint64_t i = 0; i < count; ++i) {
    result.emplace_back(text);
    text += result.back().size() + 1;
  }
  return result;
}

std::string write_refusal(const ProgramStart& start, size_t size = kBootInformationSizeMax) {
  std::vector<std::byte> bytes = destination(size);
  return refusal([&] { write_boot_information(bytes, LoadedProgram{}, start, {}); });
}

}  // namespace

TEST_CASE("the boot information holds what the host's settings say of memory") {
  std::vector<std::byte> bytes = destination();
  write_boot_information(bytes, LoadedProgram{}, sound_start(), {});
  const BootInformation boot = read_back(bytes);
  uint64_t count = 0;
  uint64_t overcommit = 0;
  std::ifstream("/proc/sys/vm/max_map_count") >> count;
  std::ifstream("/proc/sys/vm/overcommit_memory") >> overcommit;
  CHECK(boot.mapping_count_max == count);
  CHECK(((boot.flags & kBootOvercommit) != 0) == (overcommit == 1));
}

TEST_CASE("the boot information holds the program, the strings and the machine") {
  std::vector<std::byte> bytes = destination();
  LoadedProgram loaded{};
  loaded.program.descriptor = 77;
  loaded.program.segment_count = 3;
  loaded.interpreter.descriptor = -1;
  MachineParameters machine;
  machine.vcpu_count_max = 64;
  machine.arena_size_max = 5 * kGiB;
  machine.kernel_tables = kKernelTablesAddress;
  machine.tsc_khz = 2'200'000;
  machine.extended_state_mask = 7;
  machine.flags = kBootNoLargePages;
  machine.features = kFeatureXsave;
  machine.cow_limit = kGiB;
  const size_t size = write_boot_information(bytes, loaded, sound_start(), machine);

  const BootInformation boot = read_back(bytes);
  REQUIRE(boot.abi_version == kAbiVersion);
  REQUIRE(boot.size == size);
  REQUIRE(bytes[size] == std::byte{0xee});  // nothing behind the end
  REQUIRE(boot.vcpu_count_max == 64);
  REQUIRE(boot.arena_size_max == 5 * kGiB);
  REQUIRE(boot.kernel_tables == kKernelTablesAddress);
  REQUIRE(boot.tsc_khz == 2'200'000);
  REQUIRE(boot.extended_state_mask == 7);
  REQUIRE((boot.flags & kBootNoLargePages) != 0);
  REQUIRE(boot.features == kFeatureXsave);
  REQUIRE(boot.cow_limit == kGiB);
  REQUIRE(boot.program.descriptor == 77);
  REQUIRE(boot.program.segment_count == 3);
  REQUIRE(boot.interpreter.descriptor == -1);
  REQUIRE(strings_at(bytes, boot.arguments_offset, boot.argument_count) == kArguments);
  REQUIRE(strings_at(bytes, boot.environment_offset, boot.environment_count) == kEnvironment);
  REQUIRE(strings_at(bytes, boot.executable_path_offset, 1)[0] == "/usr/bin/redis-check-rdb");
  REQUIRE(strings_at(bytes, boot.executable_name_offset, 1)[0] == "redis-server");
}

TEST_CASE("what Linux tells a program about itself is this process's own") {
  std::vector<std::byte> bytes = destination();
  write_boot_information(bytes, LoadedProgram{}, sound_start(), {});
  const BootInformation boot = read_back(bytes);
  REQUIRE(boot.user_id == getuid());
  REQUIRE(boot.effective_user_id == geteuid());
  REQUIRE(boot.group_id == getgid());
  REQUIRE(boot.effective_group_id == getegid());
  REQUIRE(boot.secure == 0);
  REQUIRE(boot.clock_ticks == getauxval(AT_CLKTCK));
  REQUIRE(boot.hardware_capabilities == getauxval(AT_HWCAP));
  REQUIRE(boot.hardware_capabilities_2 == getauxval(AT_HWCAP2));
}

TEST_CASE("each start has random bytes of its own") {
  std::vector<std::byte> bytes = destination();
  write_boot_information(bytes, LoadedProgram{}, sound_start(), {});
  const BootInformation first = read_back(bytes);
  write_boot_information(bytes, LoadedProgram{}, sound_start(), {});
  const BootInformation second = read_back(bytes);
  REQUIRE(std::memcmp(first.random, second.random, sizeof(first.random)) != 0);
  REQUIRE(std::memcmp(first.seed, second.seed, sizeof(first.seed)) != 0);
  REQUIRE(std::memcmp(first.random, first.seed, sizeof(first.seed)) != 0);
}

TEST_CASE("setarch -R reaches the guest") {
  std::vector<std::byte> bytes = destination();
  const int before = personality(0xffffffff);
  // Containers may forbid the change; then there is nothing to see.
  for (const unsigned long bit : {0UL, static_cast<unsigned long>(ADDR_NO_RANDOMIZE)}) {
    const unsigned long wanted = (static_cast<unsigned long>(before) & ~ADDR_NO_RANDOMIZE) | bit;
    if (personality(wanted) < 0) continue;
    write_boot_information(bytes, LoadedProgram{}, sound_start(), {});
    CHECK(((read_back(bytes).flags & kBootNoRandomization) != 0) == (bit != 0));
  }
  personality(static_cast<unsigned long>(before));
}

TEST_CASE("the stack is as large as its limit, within reason") {
  REQUIRE(stack_size_for_limit(8 * kMiB) == 8 * kMiB);
  REQUIRE(stack_size_for_limit(8 * kMiB + 123) == 8 * kMiB);
  REQUIRE(stack_size_for_limit(0) == kStackSizeMin);
  REQUIRE(stack_size_for_limit(1000 * kGiB) == kStackSizeMax);
  REQUIRE(stack_size_for_limit(RLIM_INFINITY) == kStackSizeUnlimited);
}

TEST_CASE("strings may take what Linux grants: a quarter of the stack, within its bounds") {
  REQUIRE(strings_size_max(8 * kMiB) == 2 * kMiB);
  REQUIRE(strings_size_max(4096) == 128 * kKiB);
  REQUIRE(strings_size_max(RLIM_INFINITY) == 6 * kMiB);
}

TEST_CASE("the longest string is taken, one more byte is not") {
  ProgramStart start = sound_start();
  std::vector<std::string> arguments = {"db", std::string(kStringSizeMax - 1, 'x')};
  start.arguments = arguments;
  REQUIRE(write_refusal(start).empty());
  arguments[1] += 'x';
  start.arguments = arguments;
  require_words(write_refusal(start), {"126", "an argument", "131073", "131072", "E2BIG"});
  start = sound_start();
  start.environment = arguments;
  require_words(write_refusal(start), {"an environment variable", "E2BIG"});
}

TEST_CASE("too many strings are refused with Linux's limit") {
  ProgramStart start = sound_start();
  // 100 bytes and a pointer each: more than a quarter of any stack grants.
  const std::vector<std::string> arguments(6 * kMiB / 100, std::string(99, 'x'));
  start.arguments = arguments;
  require_words(write_refusal(start), {"126", "arguments and the environment", "E2BIG", "ulimit"});
}

TEST_CASE("strings that the destination cannot take are refused, an exact fit is not") {
  std::vector<std::byte> bytes = destination();
  const size_t size = write_boot_information(bytes, LoadedProgram{}, sound_start(), {});
  REQUIRE(write_refusal(sound_start(), size).empty());
  require_words(write_refusal(sound_start(), size - 1), {"dbos-run takes", "E2BIG"});
  require_words(write_refusal(sound_start(), 0), {"dbos-run takes at most 0"});
}

TEST_CASE("a program has at least its own name, and no string holds a NUL") {
  ProgramStart start = sound_start();
  start.arguments = {};
  require_words(write_refusal(start), {"argv[0]"});
  const std::vector<std::string> arguments = {std::string("a\0b", 3)};
  start.arguments = arguments;
  require_words(write_refusal(start), {"an argument", "NUL"});
}

}  // namespace dbos::vmm::test
