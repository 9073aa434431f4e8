#include "guest/syscalls/resource_limits.h"

#include <asm/resource.h>
#include <asm/unistd_64.h>
#include <linux/capability.h>

#include "guest/hypercall.h"
#include "guest/memory/address_space.h"
#include "guest/memory/frame_allocator.h"
#include "guest/memory/user_copy.h"
#include "guest/process/process_table.h"
#include "guest/process/program_start.h"

namespace dbos {
namespace {

ResourceLimit* limit_of(Process& process, u64 resource) {
  switch (resource) {
    case RLIMIT_AS:
      return &process.address_space_limit;
    case RLIMIT_DATA:
      return &process.data_limit;
    case RLIMIT_STACK:
      return &process.stack_limit;
    default:
      return nullptr;
  }
}

// A child that shares its parent's memory (vfork) has limits of its own, which hold once it has
// executed a program. With the process table's lock.
void apply(Process& process) {
  if (process.borrows_space) return;
  SpaceLimits limits;
  limits.address_space = process.address_space_limit.soft;
  limits.data = process.data_limit.soft;
  limits.stack = process.stack_limit.soft;
  limits.locked = process.lock_limit;
  limits.at_once = memory_at_once_max();
  process.space->set_limits(limits);
}

ResourceLimit host_limit(u64 resource) {
  ResourceLimit limit = {kUnlimited, kUnlimited};
  hypercall(__NR_prlimit64, 0, resource, 0, host_pointer(&limit));
  return limit;
}

bool has_capability(u32 capability) {
  __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {};
  const i64 result = hypercall(__NR_capget, host_pointer(&header), host_pointer(data));
  return result == 0 && (data[0].effective & CAP_TO_MASK(capability)) != 0;
}

struct Request {
  i32 process_id;
  u32 resource;
  VirtualAddress wanted;  // 0: none
  VirtualAddress old;
};

// With the process table's lock: calls nobody.
i64 exchange(Process& process, u32 resource, const ResourceLimit* wanted, bool may_raise,
             ResourceLimit& before) {
  ResourceLimit& limit = *limit_of(process, resource);
  before = limit;
  if (wanted == nullptr) return 0;
  if (wanted->soft > wanted->hard) return -EINVAL;
  if (wanted->hard > limit.hard && !may_raise) return -EPERM;
  limit = *wanted;
  apply(process);
  return 0;
}

// Nothing: no process of ours.
Answer perform(const Request& request) {
  ResourceLimit wanted = {};
  const bool is_set = request.wanted.value() != 0;
  if (is_set) {
    const auto given = read_program<ResourceLimit>(request.wanted);
    if (given.is_error()) return -EFAULT;
    wanted = given.value();
  }
  const bool may_raise = is_set && has_capability(CAP_SYS_RESOURCE);
  ResourceLimit before = {};
  i64 result = 0;
  const bool is_found = visit_process(request.process_id, [&](Process& process) {
    result = exchange(process, request.resource, is_set ? &wanted : nullptr, may_raise, before);
  });
  if (!is_found) return {};
  if (result != 0) return result;
  return result_of(write_if_given(request.old, before));
}

}  // namespace

Answer dispatch_resource_limit(Thread& thread, u64 number, const u64 a[6]) {
  const i32 own = thread.process->process_id;
  const auto resource_at = [&](u32 i) { return static_cast<u32>(a[i]); };
  Request request = {};
  if (number == __NR_getrlimit) {
    request = {own, resource_at(0), VirtualAddress(0), VirtualAddress(a[1])};
  } else if (number == __NR_setrlimit) {
    request = {own, resource_at(0), VirtualAddress(a[1]), VirtualAddress(0)};
  } else {
    const auto target = static_cast<i32>(a[0]);
    request = {target == 0 ? own : target, resource_at(1), VirtualAddress(a[2]),
               VirtualAddress(a[3])};
  }
  if (limit_of(*thread.process, request.resource) == nullptr) return {};
  if (number != __NR_prlimit64 && a[1] == 0) return -EFAULT;
  return perform(request);
}

MemoryLimits memory_limits(Process& process) {
  MemoryLimits limits = {};
  visit_process(process.process_id.load(), [&](Process& own) {
    limits = {own.address_space_limit, own.data_limit, own.stack_limit};
  });
  return limits;
}

u64 memory_at_once_max() {
  const BootInformation& boot = started_program();
  return (boot.flags & kBootOvercommit) != 0 ? kUnlimited : boot.arena_size_max;
}

MemoryBounds memory_bounds() {
  const FrameCounts counts = frame_allocator.counts();
  const u64 total = started_program().arena_size_max;
  const u64 used = (counts.total - counts.free) * kPageSize;
  return {total, used < total ? total - used : 0};
}

void apply_lock_limit(Process& process) {
  const u64 limit = has_capability(CAP_IPC_LOCK) ? kUnlimited : host_limit(RLIMIT_MEMLOCK).soft;
  visit_process(process.process_id.load(), [=](Process& own) {
    own.lock_limit = limit;
    apply(own);
  });
}

void inherit_resource_limits(Process& process) {  // at boot, alone
  process.address_space_limit = host_limit(RLIMIT_AS);
  process.data_limit = host_limit(RLIMIT_DATA);
  process.stack_limit = host_limit(RLIMIT_STACK);
  process.lock_limit = kUnlimited;  // each call that locks asks first
  apply(process);
}

}  // namespace dbos
