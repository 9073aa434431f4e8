#include "vmm/proxy/execute.h"

#include <asm/errno.h>
#include <asm/fcntl.h>
#include <asm/unistd.h>
#include <linux/close_range.h>
#include <linux/nsfs.h>
#include <linux/personality.h>
#include <linux/prctl.h>
#include <linux/sched.h>

#include <algorithm>
#include <csignal>

#include "vmm/host/descriptor_guard.h"
#include "vmm/host/host_call.h"
#include "vmm/host/signal_mask.h"
#include "vmm/proxy/call_arguments.h"
#include "vmm/proxy/relative_timeout.h"

namespace dbos::vmm {

using syscalls::SystemCall;
using syscalls::Waits;

namespace {

// close_range without the VMM's descriptors: the pieces between them.
int64_t close_range(const DescriptorGuard& guard, const uint64_t arguments[6]) {
  const uint32_t first = static_cast<uint32_t>(arguments[0]);
  const uint32_t last = static_cast<uint32_t>(arguments[1]);
  const uint64_t flags = static_cast<uint32_t>(arguments[2]);
  constexpr uint32_t kDescriptorMax = 0x7fffffff;
  if ((flags & CLOSE_RANGE_UNSHARE) != 0) return -EINVAL;  // see may_unshare
  uint32_t begin = first;
  if (first <= last && first <= kDescriptorMax) {
    for (;;) {
      const int ours = guard.next_ours(static_cast<int>(begin));
      if (ours < 0 || static_cast<uint32_t>(ours) > last) break;
      const uint32_t own = static_cast<uint32_t>(ours);
      if (own > begin) {
        const int64_t result = raw_call(__NR_close_range, begin, own - 1, flags);
        if (result < 0) return result;
      }
      if (own == last || own == kDescriptorMax) return 0;
      begin = own + 1;
    }
  }
  return raw_call(__NR_close_range, begin, last, flags);
}

// The VMM counts on it that the threads of a process share one table of descriptors (their vCPUs
// and the guard), and that all processes see the same ids (HostLock, and who is whose parent). With
// a user namespace anybody could mount and chroot, which hides the names of files (opened_files.h).
bool may_unshare(uint64_t flags) {
  return (flags & (CLONE_FILES | CLONE_NEWPID | CLONE_NEWUSER)) == 0;
}

// setns. Without a type Linux takes any, so it is told the one that was looked at: another thread
// may put another file behind the number meanwhile.
int64_t enter_namespace(const DescriptorGuard& guard, const uint64_t arguments[6]) {
  const uint64_t descriptor = static_cast<uint32_t>(arguments[0]);
  uint64_t types = static_cast<uint32_t>(arguments[1]);
  if (guard.is_ours(static_cast<int>(descriptor))) return -EBADF;
  if (types == 0) {
    const int64_t type = raw_call(__NR_ioctl, descriptor, NS_GET_NSTYPE);
    if (type < 0) return type == -EBADF ? type : -EINVAL;
    types = static_cast<uint64_t>(type);
  }
  return may_unshare(types) ? raw_call(__NR_setns, descriptor, types) : -EINVAL;
}

// Requests whose meaning a single argument does not tell. 0: Linux may have it.
int64_t refuse(const DescriptorGuard& guard, uint32_t number, const uint64_t arguments[6]) {
  constexpr uint32_t kKcmpFile = 0, kKcmpEpoll = 7;
  constexpr uint32_t kSetPath = 3, kSetDescriptor = 5;  // FSCONFIG_SET_PATH, ..._FD
  constexpr uint32_t kHandleFlags = 0x1600;  // AT_EMPTY_PATH, AT_SYMLINK_FOLLOW, AT_HANDLE_FID
  constexpr uint32_t kPersonalityQuery = 0xffffffff;
  constexpr uint32_t kReportIds = 0x200;  // FAN_REPORT_FID
  const auto first = static_cast<uint32_t>(arguments[0]);
  const auto request = static_cast<uint32_t>(arguments[number == __NR_kcmp ? 2 : 1]);
  switch (number) {
    case __NR_personality:  // Linux would make the guest's memory executable in this process, too
      return first != kPersonalityQuery && (first & READ_IMPLIES_EXEC) != 0 ? -EINVAL : 0;
    case __NR_socket:
    case __NR_socketpair:
      return syscalls::is_plain_socket_family(static_cast<int32_t>(arguments[0])) ? 0
                                                                                  : -EAFNOSUPPORT;
    case __NR_unshare:
      return may_unshare(arguments[0]) ? 0 : -EINVAL;
    case __NR_prctl:  // the VMM's memory may be closed to the program's user, and not opened again
      return static_cast<int32_t>(arguments[0]) == PR_SET_DUMPABLE && arguments[1] != 0 ? -EINVAL
                                                                                        : 0;
    case __NR_fanotify_init:  // its events bring files that nobody looks at (opened_files.h)
      return (first & kReportIds) != 0 ? 0 : -EPERM;
    case __NR_pidfd_getfd:
      return descriptors_of_all_processes().is_ours(static_cast<int>(arguments[1])) ? -EBADF : 0;
    case __NR_kcmp:
      if (request != kKcmpFile && request != kKcmpEpoll) return 0;
      return guard.is_ours(static_cast<int>(arguments[3])) ? -EBADF : 0;
    case __NR_fsconfig:
      if (request < kSetPath || request > kSetDescriptor) return 0;
      return guard.is_ours(static_cast<int>(arguments[4])) ? -EBADF : 0;
    case __NR_pidfd_open:  // PIDFD_THREAD reaches threads of the VMM with a table of their own
      return (request & ~uint32_t{O_NONBLOCK}) == 0 ? 0 : -EINVAL;
    case __NR_name_to_handle_at:  // AT_HANDLE_MNT_ID_UNIQUE: 8 bytes where others write 4
      return (static_cast<uint32_t>(arguments[4]) & ~kHandleFlags) == 0 ? 0 : -EINVAL;
    default:
      return 0;
  }
}

OwnSignalTaker take_signal = nullptr;

// A wait for all signals takes the VMM's, too.
bool is_to_be_made_again(uint32_t number, const uint64_t* checked, int64_t result) {
  if (result == kMakeAgain) return true;
  return number == __NR_rt_sigtimedwait && result == kParentDeathSignal && take_signal != nullptr &&
         take_signal(*reinterpret_cast<const siginfo_t*>(checked[1]));
}

int64_t wait_for_call(const GuestMemory& memory, uint32_t number, const uint64_t* checked,
                      const volatile uint32_t* pending_signal) {
  RelativeTimeout timeout(memory, number, checked);
  int64_t result = dbos_host_call(pending_signal, number, checked);
  if (!is_to_be_made_again(number, checked, result)) return result;
  uint64_t arguments[6];
  std::copy(checked, checked + 6, arguments);
  do {
    timeout.shorten(arguments);
    result = dbos_host_call(pending_signal, number, arguments);
  } while (is_to_be_made_again(number, checked, result));
  return result;
}

}  // namespace

void set_own_signal_taker(OwnSignalTaker taker) {
  take_signal = taker;
}

int64_t execute_call(const GuestMemory& memory, const Call& call,
                     const volatile uint32_t* pending_signal) {
  const DescriptorGuard& guard = own_descriptors();
  const SystemCall* entry = syscalls::find(call.number);
  if (entry == nullptr || !entry->is_proxied()) return -ENOSYS;
  if (call.number == __NR_close_range) return close_range(guard, call.arguments);
  if (call.number == __NR_setns) return enter_namespace(guard, call.arguments);
  const int64_t refused = refuse(guard, call.number, call.arguments);
  if (refused != 0) return refused;
  CallArguments arguments(memory, guard, call.number, *entry, call.arguments);
  const int64_t error = arguments.prepare();
  if (error != 0) return error;
  const uint64_t* a = arguments.values();
  const int64_t result = arguments.waits() == Waits::kYes
                             ? wait_for_call(memory, call.number, a, pending_signal)
                             : raw_call(call.number, a[0], a[1], a[2], a[3], a[4], a[5]);
  if (!is_interrupted(result)) arguments.finish(result);
  return result;
}

}  // namespace dbos::vmm
