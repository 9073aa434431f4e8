#include "guest/process/memory_limits.h"

#include <asm/resource.h>
#include <asm/unistd_64.h>
#include <linux/capability.h>

#include "guest/hypercall.h"
#include "guest/memory/address_space.h"
#include "guest/memory/frame_allocator.h"
#include "guest/process/process_table.h"
#include "guest/process/program_start.h"

namespace dbos {
namespace {

ResourceLimit host_limit(u64 resource) {
  ResourceLimit limit = {kUnlimited, kUnlimited};
  hypercall(__NR_prlimit64, 0, resource, 0, host_pointer(&limit));
  return limit;
}

}  // namespace

bool has_capability(u32 capability) {
  __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {};
  const i64 result = hypercall(__NR_capget, host_pointer(&header), host_pointer(data));
  return result == 0 && (data[0].effective & CAP_TO_MASK(capability)) != 0;
}

void apply_memory_limits(Process& process) {
  if (process.borrows_space) return;
  SpaceLimits limits;
  limits.address_space = process.address_space_limit.soft;
  limits.data = process.data_limit.soft;
  limits.stack = process.stack_limit.soft;
  limits.locked = process.lock_limit;
  limits.at_once = memory_at_once_max();
  process.space->set_limits(limits);
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
    apply_memory_limits(own);
  });
}

void inherit_memory_limits(Process& process) {  // at boot, alone
  process.address_space_limit = host_limit(RLIMIT_AS);
  process.data_limit = host_limit(RLIMIT_DATA);
  process.stack_limit = host_limit(RLIMIT_STACK);
  process.lock_limit = kUnlimited;  // each call that locks asks first
  apply_memory_limits(process);
}

}  // namespace dbos
