#include "guest/syscalls/resource_limits.h"

#include <asm/resource.h>
#include <asm/unistd_64.h>
#include <linux/capability.h>

#include "guest/hypercall.h"
#include "guest/memory/address_space.h"
#include "guest/memory/user_copy.h"
#include "guest/platform.h"
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

void apply(Process& process) {
  SpaceLimits limits;
  limits.address_space = process.address_space_limit.soft;
  limits.data = process.data_limit.soft;
  limits.stack = process.stack_limit.soft;
  limits.locked = process.lock_limit;
  limits.at_once = started_program().arena_size_max;
  process.space->set_limits(limits);
}

ResourceLimit host_limit(u64 resource) {
  ResourceLimit limit = {kUnlimited, kUnlimited};
  hypercall(__NR_prlimit64, 0, resource, 0, platform::physical_of(&limit).value());
  return limit;
}

bool has_lock_capability() {
  __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {};
  const i64 result = hypercall(__NR_capget, platform::physical_of(&header).value(),
                               platform::physical_of(data).value());
  return result == 0 && (data[0].effective & CAP_TO_MASK(CAP_IPC_LOCK)) != 0;
}

i64 set_limit(Process& process, ResourceLimit& limit, const ResourceLimit& wanted) {
  if (wanted.soft > wanted.hard) return -EINVAL;
  constexpr u64 kRoot = 0;
  const bool raises = wanted.hard > limit.hard;
  if (raises && hypercall(__NR_geteuid) != kRoot) return -EPERM;
  limit = wanted;
  apply(process);
  return 0;
}

struct Request {
  u64 resource;
  VirtualAddress wanted;  // 0: none
  VirtualAddress old;
};

i64 perform(Process& process, ResourceLimit& limit, const Request& request) {
  const ResourceLimit before = limit;
  if (request.wanted.value() != 0) {
    const auto wanted = read_program<ResourceLimit>(request.wanted);
    if (wanted.is_error()) return -EFAULT;
    const i64 result = set_limit(process, limit, wanted.value());
    if (result != 0) return result;
  }
  if (request.old.value() != 0 && write_program(request.old, before).is_error()) return -EFAULT;
  return 0;
}

}  // namespace

bool dispatch_resource_limit(Thread& thread, u64 number, const u64 a[6], i64& result) {
  Process& process = *thread.process;
  Request request = {};
  if (number == __NR_getrlimit) {
    request = {a[0], VirtualAddress(0), VirtualAddress(a[1])};
  } else if (number == __NR_setrlimit) {
    request = {a[0], VirtualAddress(a[1]), VirtualAddress(0)};
  } else {
    const auto target = static_cast<i32>(a[0]);
    if (target != 0 && target != process.process_id) return false;
    request = {a[1], VirtualAddress(a[2]), VirtualAddress(a[3])};
  }
  ResourceLimit* const limit = limit_of(process, static_cast<u32>(request.resource));
  if (limit == nullptr) return false;
  result = perform(process, *limit, request);
  return true;
}

void apply_lock_limit(Process& process) {
  process.lock_limit = has_lock_capability() ? kUnlimited : host_limit(RLIMIT_MEMLOCK).soft;
  apply(process);
}

void inherit_resource_limits(Process& process) {
  process.address_space_limit = host_limit(RLIMIT_AS);
  process.data_limit = host_limit(RLIMIT_DATA);
  process.stack_limit = host_limit(RLIMIT_STACK);
  apply_lock_limit(process);
}

}  // namespace dbos
