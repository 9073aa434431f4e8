#include "guest/syscalls/filtered_calls.h"

#include <asm/unistd_64.h>
#include <linux/close_range.h>
#include <linux/prctl.h>
#include <linux/sched.h>
#include <linux/shm.h>
#include <linux/sysinfo.h>

#include "guest/hypercall.h"
#include "guest/lib/log.h"
#include "guest/memory/address_space.h"
#include "guest/memory/user_copy.h"
#include "guest/process/memory_limits.h"
#include "guest/process/signal.h"
#include "guest/syscalls/memory_calls.h"
#include "guest/syscalls/proxy.h"
#include "guest/syscalls/resource_limits.h"
#include "hypercall/linux_structures.h"

namespace dbos {
namespace {

// Calls that swap the signal mask while they wait.
i64 wait_with_mask(Thread& thread, u64 number, const u64 arguments[6], u64 mask, u64 mask_size) {
  TemporaryMask temporary(thread);
  DBOS_TRY_CALL(temporary.read(VirtualAddress(mask), mask_size));
  return temporary.finish(proxy_system_call(static_cast<u32>(number), arguments));
}

// pselect6's mask and its size stand in the program's memory.
i64 pselect(Thread& thread, const u64 arguments[6]) {
  MaskAndSize given = {};
  if (arguments[5] != 0) {
    const auto read = read_program<MaskAndSize>(VirtualAddress(arguments[5]));
    if (read.is_error()) return -EFAULT;
    given = read.value();
  }
  return wait_with_mask(thread, __NR_pselect6, arguments, given.mask, given.size);
}

// The threads of a process share one table of descriptors, because the VMM's are in it. One alone
// has it for itself anyhow.
i64 proxy_with_shared_table(Thread& thread, u64 number, const u64 arguments[6], u32 flags_index,
                            u64 unshare_flag) {
  u64 passed[6];
  for (u32 i = 0; i < 6; ++i) passed[i] = arguments[i];
  if (count_threads(*thread.process) == 1) passed[flags_index] &= ~unshare_flag;
  const u64 refused = unshare_flag | (number == __NR_unshare ? CLONE_NEWPID | CLONE_NEWUSER : 0);
  if ((passed[flags_index] & refused) != 0) {
    LogLine()
        .text(number == __NR_unshare ? "unshare" : "close_range")
        .text(" with flags ")
        .hex(passed[flags_index])
        .text(" is not supported: EINVAL")
        .send();
    return -EINVAL;
  }
  return proxy_system_call(static_cast<u32>(number), passed);
}

// Linux counts the VMM's memory and its faults.
i64 resource_usage(const Thread& thread, const u64 arguments[6]) {
  constexpr i32 kSelf = 0, kChildren = -1;                  // RUSAGE_...
  constexpr u64 kPeakOffset = 32, kMinorFaultsOffset = 64;  // in struct rusage
  const i64 result = proxy_system_call(__NR_getrusage, arguments);
  const auto who = static_cast<i32>(arguments[0]);
  if (result != 0 || who == kChildren) return result;
  const VirtualAddress usage(arguments[1]);
  const SpaceStatistics statistics = thread.space->statistics();
  const auto peak_kb = static_cast<i64>(statistics.resident_bytes_peak / 1024);
  auto written = write_program(usage + kPeakOffset, peak_kb);
  if (who == kSelf && written.is_ok()) {
    written = write_program(usage + kMinorFaultsOffset, statistics.faults);
  }
  return written.is_error() ? -EFAULT : 0;
}

i64 system_information(VirtualAddress address) {
  struct sysinfo information = {};
  const i64 result = hypercall(__NR_sysinfo, host_pointer(&information));
  if (result < 0) return result;
  DBOS_ASSERT(information.mem_unit != 0);
  const MemoryBounds bounds = memory_bounds();
  const auto bound = [&](__kernel_ulong_t& value, u64 bytes) {
    const u64 most = bytes / information.mem_unit;
    if (value > most) value = most;
  };
  bound(information.totalram, bounds.total);
  bound(information.freeram, bounds.free);
  return result_of(write_program(address, information));
}

// For Linux it is a matter of the memory, and that is the VMM's, some of whose threads keep rights
// that the program gives up. So Linux hears only of a program that wants less.
i64 set_dumpable(Process& process, const u64 arguments[6]) {
  const bool is_dumpable = arguments[1] == 1;
  if (!is_dumpable) {
    const i64 result = proxy_system_call(__NR_prctl, arguments);
    if (result < 0) return result;
  }
  process.is_dumpable = is_dumpable;
  return 0;
}

i64 process_control(Thread& thread, const u64 arguments[6]) {
  switch (static_cast<int>(arguments[0])) {
    case PR_SET_THP_DISABLE:
      return system_set_thp_disable(thread, arguments);
    case PR_GET_THP_DISABLE:
      return system_get_thp_disable(thread, arguments);
    case PR_SET_DUMPABLE:
      return set_dumpable(*thread.process, arguments);
    case PR_GET_DUMPABLE:
      return thread.process->is_dumpable ? 1 : proxy_system_call(__NR_prctl, arguments);
    default:
      return proxy_system_call(__NR_prctl, arguments);
  }
}

}  // namespace

Answer dispatch_filtered(Thread& thread, u64 number, const u64 arguments[6]) {
  switch (number) {
    case __NR_ppoll:
      return wait_with_mask(thread, number, arguments, arguments[3], arguments[4]);
    case __NR_pselect6:
      return pselect(thread, arguments);
    case __NR_getrlimit:
    case __NR_setrlimit:
    case __NR_prlimit64:
      return dispatch_resource_limit(thread, number, arguments);
    case __NR_shmget:
      // No large pages are reserved for anybody, as for mmap.
      return (arguments[2] & SHM_HUGETLB) != 0 ? -ENOMEM
                                               : proxy_system_call(__NR_shmget, arguments);
    case __NR_getrusage:
      return resource_usage(thread, arguments);
    case __NR_sysinfo:
      return system_information(VirtualAddress(arguments[0]));
    case __NR_prctl:
      return process_control(thread, arguments);
    case __NR_epoll_pwait:
    case __NR_epoll_pwait2:
      return wait_with_mask(thread, number, arguments, arguments[4], arguments[5]);
    case __NR_unshare:
      return proxy_with_shared_table(thread, number, arguments, 0, CLONE_FILES);
    case __NR_close_range:
      return proxy_with_shared_table(thread, number, arguments, 2, CLOSE_RANGE_UNSHARE);
    default:
      return {};
  }
}

}  // namespace dbos
