#include "guest/syscalls/resource_limits.h"

#include <asm/resource.h>
#include <asm/unistd_64.h>
#include <linux/capability.h>

#include "guest/memory/user_copy.h"
#include "guest/process/memory_limits.h"
#include "guest/process/process_table.h"

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
  apply_memory_limits(process);
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

}  // namespace dbos
