#include "vmm/loader/boot_information.h"

#include <sys/auxv.h>
#include <sys/personality.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "hypercall/linux_structures.h"
#include "vmm/host/number_file.h"
#include "vmm/loader/load_error.h"

namespace dbos::vmm {
namespace {

// Linux's ARG_MAX: granted whatever the stack limit.
constexpr uint64_t kStringsSizeLeast = 32 * kPageSize;
// Three quarters of Linux's _STK_LIM of 8 MiB: the most, whatever the stack limit.
constexpr uint64_t kStringsSizeMost = 6 * kMiB;

[[noreturn]] void refuse(const std::string& sentence) {
  throw LoadError(ExitStatus::kCannotExecute, sentence);
}

uint64_t stack_limit() {
  rlimit limit;
  if (getrlimit(RLIMIT_STACK, &limit) != 0) return 8 * kMiB;  // Linux's default
  return limit.rlim_cur;
}

void add_memory_settings(BootInformation& boot) {
  constexpr uint64_t kRefuseNothing = 1;
  boot.mapping_count_max = read_number("/proc/sys/vm/max_map_count", 65530);
  if (read_number("/proc/sys/vm/overcommit_memory", 0) == kRefuseNothing) {
    boot.flags |= kBootOvercommit;
  }
}

void fill_random(std::span<uint8_t> bytes) {
  // Up to 256 bytes come in one piece, once the host's generator is seeded (random(7)).
  ssize_t got;
  do {
    got = getrandom(bytes.data(), bytes.size(), 0);
  } while (got < 0 && errno == EINTR);
  if (got != static_cast<ssize_t>(bytes.size())) {
    throw LoadError(ExitStatus::kFailure, std::string("cannot get random bytes: ") +
                                              std::strerror(errno) +
                                              "; allow the getrandom system call");
  }
}

uint64_t size_with_nul(const std::string& text, const char* kind) {
  if (text.find('\0') != std::string::npos) {
    refuse(std::string(kind) + " holds a NUL byte; take it out");
  }
  const uint64_t size = text.size() + 1;
  if (size > kStringSizeMax) {
    refuse(std::string(kind) + " has " + std::to_string(size) + " bytes, Linux takes at most " +
           std::to_string(kStringSizeMax) + " (E2BIG): '" + text.substr(0, 40) +
           "...'; pass it through a file");
  }
  return size;
}

uint64_t total_size(std::span<const std::string> strings, const char* kind) {
  uint64_t total = 0;
  for (const std::string& text : strings) total += size_with_nul(text, kind);
  return total;
}

class StringWriter {
 public:
  StringWriter(std::span<std::byte> destination, size_t offset)
      : destination_(destination), offset_(offset) {}

  // Result: where the string is. The sizes were checked before.
  uint64_t append(const std::string& text) {
    const size_t at = offset_;
    std::memcpy(destination_.subspan(at, text.size() + 1).data(), text.c_str(), text.size() + 1);
    offset_ += text.size() + 1;
    return at;
  }
  uint64_t append(std::span<const std::string> strings) {
    const size_t at = offset_;
    for (const std::string& text : strings) append(text);
    return at;
  }
  size_t offset() const { return offset_; }

 private:
  std::span<std::byte> destination_;
  size_t offset_;
};

void check_sizes(size_t destination_size, const ProgramStart& start) {
  if (start.arguments.empty()) {
    refuse("the program has no arguments, not even its own name; pass argv[0]");
  }
  const uint64_t strings = total_size(start.arguments, "an argument") +
                           total_size(start.environment, "an environment variable");
  const uint64_t names = size_with_nul(start.executable_name, "the program's name");
  const uint64_t path = size_with_nul(start.executable_path, "the program's path");
  // As Linux counts: the strings, the name, and a pointer for each string.
  const uint64_t counted =
      strings + names + 8 * (start.arguments.size() + start.environment.size());
  const uint64_t allowed = strings_size_max(stack_limit());
  if (counted > allowed) {
    refuse("the arguments and the environment have " + std::to_string(counted) +
           " bytes, Linux takes at most " + std::to_string(allowed) +
           " with this stack limit (E2BIG); shorten them, or raise the limit with ulimit -s");
  }
  const uint64_t room =
      destination_size > sizeof(BootInformation) ? destination_size - sizeof(BootInformation) : 0;
  if (strings + names + path > room) {
    refuse("the arguments and the environment have " + std::to_string(strings + names + path) +
           " bytes, dbos-run takes at most " + std::to_string(room) + " (E2BIG); shorten them");
  }
}

}  // namespace

uint64_t stack_size_for_limit(uint64_t limit) {
  if (limit == RLIM_INFINITY) return kStackSizeUnlimited;
  return align_down(std::clamp(limit, kStackSizeMin, kStackSizeMax), kPageSize);
}

uint64_t strings_size_max(uint64_t stack_limit) {
  return std::clamp(stack_limit / 4, kStringsSizeLeast, kStringsSizeMost);
}

size_t write_boot_information(std::span<std::byte> destination, const LoadedProgram& loaded,
                              const ProgramStart& start, const MachineParameters& machine) {
  check_sizes(destination.size(), start);

  BootInformation boot{};
  boot.abi_version = kAbiVersion;
  boot.vcpu_count_max = machine.vcpu_count_max;
  boot.arena_size_max = machine.arena_size_max;
  boot.kernel_tables = machine.kernel_tables;
  boot.stack_size = stack_size_for_limit(stack_limit());
  boot.tsc_khz = machine.tsc_khz;
  boot.extended_state_mask = machine.extended_state_mask;
  boot.flags = machine.flags;
  constexpr unsigned long kPersonalityQuery = 0xffffffff;
  const int personality_bits = personality(kPersonalityQuery);
  if (personality_bits >= 0 && (personality_bits & ADDR_NO_RANDOMIZE) != 0) {
    boot.flags |= kBootNoRandomization;
  }
  add_memory_settings(boot);
  boot.features = machine.features;
  boot.cow_limit = machine.cow_limit;
  boot.ready_copies = machine.ready_copies;
  boot.user_id = getuid();
  boot.effective_user_id = geteuid();
  boot.group_id = getgid();
  boot.effective_group_id = getegid();
  boot.secure = 0;  // set-user-ID bits are not followed: the program has the user's own rights
  boot.clock_ticks = static_cast<uint32_t>(sysconf(_SC_CLK_TCK));
  boot.hardware_capabilities = getauxval(AT_HWCAP);
  boot.hardware_capabilities_2 = getauxval(AT_HWCAP2);
  fill_random(boot.random);
  fill_random(boot.seed);
  boot.program = loaded.program;
  boot.interpreter = loaded.interpreter;

  StringWriter writer(destination, sizeof(boot));
  boot.argument_count = start.arguments.size();
  boot.arguments_offset = writer.append(start.arguments);
  boot.environment_count = start.environment.size();
  boot.environment_offset = writer.append(start.environment);
  boot.executable_path_offset = writer.append(start.executable_path);
  boot.executable_name_offset = writer.append(start.executable_name);
  boot.size = writer.offset();
  std::memcpy(destination.data(), &boot, sizeof(boot));
  return writer.offset();
}

}  // namespace dbos::vmm
