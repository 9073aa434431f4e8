#include "vmm/process/execute_program.h"

#include <asm/unistd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <string_view>

#include "hypercall/syscall_kinds.h"
#include "vmm/host/descriptor_guard.h"
#include "vmm/host/host_call.h"
#include "vmm/log.h"
#include "vmm/process/death_signal.h"
#include "vmm/process/host_process.h"
#include "vmm/process/vcpu_thread.h"

namespace dbos::vmm {
namespace {

// Linux's own limit on the sizes is smaller (a quarter of the stack limit, MAX_ARG_STRINGS).
constexpr uint64_t kStringsMax = 1 << 20;

bool is_string(uint64_t address) {
  const GuestMemory& memory = machine().memory();
  const uint64_t longest = 32 * kPageSize;  // MAX_ARG_STRLEN
  for (uint64_t i = 0; i < longest; ++i) {
    if (i % kPageSize == 0 || (address + i) % kPageSize == 0) {
      if (!memory.is_plain(address + i, 1)) return false;
    }
    if (*reinterpret_cast<const volatile char*>(address + i) == 0) return true;
  }
  return true;  // too long: Linux answers E2BIG
}

// The guest's array of string addresses, copied once and checked. Its memory is a mapping of its
// own, because this also runs in processes whose end must leave nothing locked.
class StringArray {
 public:
  ~StringArray() {
    if (strings_ != nullptr) raw_call(__NR_munmap, reinterpret_cast<uint64_t>(strings_), size_);
  }
  StringArray() = default;
  StringArray(const StringArray&) = delete;
  StringArray& operator=(const StringArray&) = delete;

  int64_t copy(uint64_t array) {
    const GuestMemory& memory = machine().memory();
    uint64_t count = 0;
    for (; count < kStringsMax; ++count) {
      if (!memory.is_plain(array + count * 8, 8)) return -EFAULT;
      if (reinterpret_cast<const volatile uint64_t*>(array)[count] == 0) break;
    }
    size_ = (count + 1) * 8;
    const int64_t result = raw_call(__NR_mmap, 0, size_, PROT_READ | PROT_WRITE,
                                    MAP_PRIVATE | MAP_ANONYMOUS, static_cast<uint64_t>(-1), 0);
    if (result < 0 && result > -4096) return result;
    strings_ = reinterpret_cast<uint64_t*>(result);
    for (uint64_t i = 0; i < count; ++i) {
      strings_[i] = reinterpret_cast<const volatile uint64_t*>(array)[i];
      if (!is_string(strings_[i])) return -EFAULT;
    }
    return 0;
  }
  uint64_t address() const { return reinterpret_cast<uint64_t>(strings_); }

 private:
  uint64_t* strings_ = nullptr;
  uint64_t size_ = 0;
};

constexpr uint64_t kShownPathMax = 200;

// Copied once: another vCPU may change it.
int64_t copy_path(char (&path)[syscalls::kPathMax], uint64_t address) {
  const GuestMemory& memory = machine().memory();
  for (uint64_t i = 0; i < sizeof path; ++i) {
    if (!memory.is_plain(address + i, 1)) return -EFAULT;
    path[i] = *reinterpret_cast<const volatile char*>(address + i);
    if (path[i] == 0) return 0;
  }
  return -ENAMETOOLONG;
}

// Only before a program that can be executed: execvp() tries every directory of PATH.
void log_execution(const Vcpu& vcpu, uint64_t directory, const char* path, uint64_t flags) {
  const bool is_first = vcpu.process->parent == nullptr;
  const LogLevel level = is_first ? LogLevel::kWarning : LogLevel::kInfo;
  if (!is_logged(level)) return;
  const bool is_executable =
      raw_call(__NR_faccessat2, directory, reinterpret_cast<uint64_t>(path), X_OK, flags) == 0;
  if (!is_executable) return;
  log_line(level, "{} {} executes {} and leaves the guest: Linux runs it from now on",
           is_first ? "the first process," : "process", vcpu.process->process_id,
           std::string_view(path, strnlen(path, kShownPathMax)));
}

// The guest keeps these limits, which would hit the VMM, until a program is executed.
struct MemoryLimits {
  uint64_t soft[kExecuteLimitCount];
};

// Sets the limits of this process, and leaves the former ones in their place. A hard limit that was
// lowered could not be put back when nothing is executed, so it stays as it is.
void exchange_limits(MemoryLimits& limits) {
  constexpr uint64_t kResources[kExecuteLimitCount] = {RLIMIT_AS, RLIMIT_DATA, RLIMIT_STACK};
  for (uint32_t i = 0; i < kExecuteLimitCount; ++i) {
    uint64_t now[2] = {};  // struct rlimit64: the soft one, the hard one
    raw_call(__NR_prlimit64, 0, kResources[i], 0, reinterpret_cast<uint64_t>(now));
    if (now[0] == limits.soft[i]) continue;
    const uint64_t wanted[2] = {limits.soft[i], std::max(limits.soft[i], now[1])};
    const int64_t result =
        raw_call(__NR_prlimit64, 0, kResources[i], reinterpret_cast<uint64_t>(wanted), 0);
    if (result == 0) limits.soft[i] = now[0];
  }
}

}  // namespace

int64_t execute_program(Vcpu& vcpu, const Call& call) {
  const uint64_t* const a = call.arguments;
  char path[syscalls::kPathMax];
  int64_t result = copy_path(path, a[1]);
  if (result < 0) return result;
  const bool has_limits = a[5] != 0;
  if (has_limits && !machine().memory().is_plain(a[5], sizeof(MemoryLimits))) return -EFAULT;
  StringArray arguments;
  StringArray environment;
  result = arguments.copy(a[2]);
  if (result == 0) result = environment.copy(a[3]);
  if (result < 0) return result;
  const bool is_ours = own_descriptors().is_ours(static_cast<int>(a[0]));
  const uint64_t directory = is_ours ? DescriptorGuard::kNone : a[0];
  const uint64_t passed[6] = {
      directory, reinterpret_cast<uint64_t>(path), arguments.address(), environment.address(), a[4],
      0};
  log_execution(vcpu, directory, path, a[4]);
  // The new program does not belong to the machine any more.
  const int death_signal = lend_death_signal(*vcpu.process);
  // Its children live on whatever the new program's end is.
  vcpu.process->ended_by_itself.fetch_add(kExecutes);
  MemoryLimits limits = {};
  if (has_limits) limits = *reinterpret_cast<const MemoryLimits*>(a[5]);
  if (has_limits) exchange_limits(limits);
  result = host_call(&vcpu.page->signal.number, __NR_execveat, passed);
  if (has_limits) exchange_limits(limits);
  vcpu.process->ended_by_itself.fetch_sub(kExecutes);
  restore_death_signal(*vcpu.process, death_signal);
  return result;
}

}  // namespace dbos::vmm
