#include "vmm/process/execute_program.h"

#include <asm/unistd.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <string_view>

#include "hypercall/linux_structures.h"
#include "hypercall/syscall_kinds.h"
#include "vmm/host/descriptor_guard.h"
#include "vmm/host/host_call.h"
#include "vmm/log.h"
#include "vmm/machine/machine.h"
#include "vmm/process/call_memory.h"
#include "vmm/process/death_signal.h"
#include "vmm/process/host_process.h"
#include "vmm/process/thread_making.h"

namespace dbos::vmm {
namespace {

// Linux's own limit on the sizes is smaller (a quarter of the stack limit, MAX_ARG_STRINGS).
constexpr uint64_t kStringsMax = 1 << 20;

bool is_string(uint64_t address) {
  const GuestMemory& memory = machine().memory();
  for (uint64_t i = 0; i < kStringSizeMax; ++i) {
    if (i % kPageSize == 0 || (address + i) % kPageSize == 0) {
      if (!memory.is_plain(address + i, 1)) return false;
    }
    if (*reinterpret_cast<const volatile char*>(address + i) == 0) return true;
  }
  return true;  // too long: Linux answers E2BIG
}

// How many strings there are, or -EFAULT. Whoever has too many is told so by Linux.
int64_t count_strings(uint64_t array) {
  const GuestMemory& memory = machine().memory();
  for (uint64_t count = 0; count < kStringsMax; ++count) {
    if (!memory.is_plain(array + count * 8, 8)) return -EFAULT;
    if (reinterpret_cast<const volatile uint64_t*>(array)[count] == 0) {
      return static_cast<int64_t>(count);
    }
  }
  return kStringsMax;
}

// The guest's array of string addresses, copied once and checked; the 0 at its end is there.
int64_t copy_strings(uint64_t* copy, uint64_t array, uint64_t count) {
  for (uint64_t i = 0; i < count; ++i) {
    copy[i] = reinterpret_cast<const volatile uint64_t*>(array)[i];
    if (!is_string(copy[i])) return -EFAULT;
  }
  return 0;
}

// Both arrays, one behind the other, in memory of the call's own.
struct Strings {
  uint64_t arguments;
  uint64_t environment;
};
int64_t copy_arrays(Vcpu& vcpu, const Call& call, Strings& strings) {
  const int64_t arguments = count_strings(call.arguments[2]);
  if (arguments < 0) return arguments;
  const int64_t environment = count_strings(call.arguments[3]);
  if (environment < 0) return environment;
  const auto argument_count = static_cast<uint64_t>(arguments);
  const auto environment_count = static_cast<uint64_t>(environment);
  const int64_t memory = map_call_memory(vcpu, (argument_count + environment_count + 2) * 8);
  if (memory < 0) return memory;
  auto* const first = reinterpret_cast<uint64_t*>(memory);
  uint64_t* const second = first + argument_count + 1;
  strings = {reinterpret_cast<uint64_t>(first), reinterpret_cast<uint64_t>(second)};
  const int64_t result = copy_strings(first, call.arguments[2], argument_count);
  return result < 0 ? result : copy_strings(second, call.arguments[3], environment_count);
}

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

// Of this process, as Linux has it.
struct Limit {  // struct rlimit64
  uint64_t soft, hard;
};
Limit limit_of(uint64_t resource) {
  Limit limit = {};
  raw_call(__NR_prlimit64, 0, resource, 0, reinterpret_cast<uint64_t>(&limit));
  return limit;
}

constexpr uint64_t kResources[kExecuteLimitCount] = {RLIMIT_AS, RLIMIT_DATA, RLIMIT_STACK};

// A hard limit that was lowered could not be put back when nothing is executed, so it stays as it
// is.
void set_limits(const MemoryLimits& limits) {
  for (uint32_t i = 0; i < kExecuteLimitCount; ++i) {
    const uint64_t soft = limits.soft[i];
    const Limit now = limit_of(kResources[i]);
    const Limit wanted = {soft, std::max(soft, now.hard)};
    if (now.soft == soft) continue;
    raw_call(__NR_prlimit64, 0, kResources[i], reinterpret_cast<uint64_t>(&wanted), 0);
  }
}

void lend_limits(LentLimits& lent, const MemoryLimits& limits) {
  const HostLockGuard guard(lent.lock);
  for (uint32_t i = 0; lent.users == 0 && i < kExecuteLimitCount; ++i) {
    lent.own.soft[i] = limit_of(kResources[i]).soft;
  }
  ++lent.users;
  lent.were_lent.store(true);
  set_limits(limits);
}

void take_limits_back(LentLimits& lent) {
  const HostLockGuard guard(lent.lock);
  if (--lent.users == 0) set_limits(lent.own);
}

bool is_only_thread(const Vcpu& vcpu) {
  for (const Vcpu& other : vcpus()) {
    if (&other != &vcpu && other.process == vcpu.process && other.is_alive()) return false;
  }
  return true;
}

int64_t call_execveat(Vcpu& vcpu, const uint64_t (&arguments)[6]) {
  const OwnSignalAsChosen own_signal(vcpu, is_only_thread(vcpu));
  return host_call(&vcpu.page->signal.number, __NR_execveat, arguments);
}

// Comes back only if nothing is executed.
int64_t execute(Vcpu& vcpu, const Call& call, const char* path, const Strings& strings) {
  const uint64_t* const a = call.arguments;
  const bool is_ours = own_descriptors().is_ours(static_cast<int>(a[0]));
  const uint64_t directory = is_ours ? DescriptorGuard::kNone : a[0];
  const uint64_t passed[6] = {
      directory, reinterpret_cast<uint64_t>(path), strings.arguments, strings.environment, a[4], 0};
  log_execution(vcpu, directory, path, a[4]);
  // The new program does not belong to the machine any more.
  const int death_signal = lend_death_signal(*vcpu.process);
  // Its children live on whatever the new program's end is.
  vcpu.process->ended_by_itself.fetch_add(kExecutes);
  const bool has_limits = a[5] != 0;
  MemoryLimits limits = {};
  if (has_limits) limits = *reinterpret_cast<const MemoryLimits*>(a[5]);
  // Before the limits, which are not for threads of ours.
  stop_thread_making(*vcpu.process);
  if (has_limits) lend_limits(vcpu.process->lent_limits, limits);
  const int64_t result = call_execveat(vcpu, passed);
  if (has_limits) take_limits_back(vcpu.process->lent_limits);
  vcpu.process->ended_by_itself.fetch_sub(kExecutes);
  // After signal 64 is heard again: it looks whether the parent has ended meanwhile.
  restore_death_signal(*vcpu.process, death_signal);
  return result;
}

}  // namespace

void set_own_limits(const HostProcess& process) {
  const LentLimits& lent = process.parent->lent_limits;
  if (lent.were_lent.load()) set_limits(lent.own);
}

int64_t execute_program(Vcpu& vcpu, const Call& call) {
  const uint64_t* const a = call.arguments;
  char path[syscalls::kPathMax];
  int64_t result = copy_path(path, a[1]);
  if (result < 0) return result;
  const bool has_limits = a[5] != 0;
  if (has_limits && !machine().memory().is_plain(a[5], sizeof(MemoryLimits))) return -EFAULT;
  Strings strings = {};
  result = copy_arrays(vcpu, call, strings);
  if (result == 0) result = execute(vcpu, call, path, strings);
  unmap_call_memory(vcpu);
  return result;
}

}  // namespace dbos::vmm
