#include "guest/syscalls/futex_calls.h"

#include <asm/unistd_64.h>
#include <linux/futex.h>

#include "guest/hypercall.h"
#include "guest/memory/user_copy.h"
#include "guest/memory/window_object.h"
#include "guest/process/clock.h"
#include "guest/process/futex.h"
#include "guest/process/futex_memory.h"
#include "guest/process/process.h"
#include "guest/vdso/clock_read.h"

namespace dbos {

namespace {

constexpr u64 kTimeMax = 0x7fff'ffff'ffff'ffff;  // KTIME_MAX
constexpr u64 kRobustHeadSize = 24;

struct Request {
  Thread& thread;
  VirtualAddress address;
  u32 command;
  u32 operation;  // with its flags
  u32 value;
  u64 timeout_or_value;
  VirtualAddress second_address;
  u32 third_value;

  i32 second_value() const { return static_cast<i32>(timeout_or_value); }
  bool is_realtime() const { return (operation & FUTEX_CLOCK_REALTIME) != 0; }
};

bool has_timeout(u32 command) {
  return command == FUTEX_WAIT || command == FUTEX_WAIT_BITSET || command == FUTEX_LOCK_PI ||
         command == FUTEX_LOCK_PI2;
}

bool takes_clock_flag(u32 command) {
  return command == FUTEX_WAIT_BITSET || command == FUTEX_LOCK_PI2 ||
         command == FUTEX_WAIT_REQUEUE_PI;
}

bool is_known(u32 command) {
  return command <= FUTEX_LOCK_PI2 && command != FUTEX_FD && command != FUTEX_WAIT_REQUEUE_PI &&
         command != FUTEX_CMP_REQUEUE_PI;
}

bool has_second_futex(u32 command) {
  return command == FUTEX_REQUEUE || command == FUTEX_CMP_REQUEUE || command == FUTEX_WAKE_OP;
}

// To the first word.
Access access_of(u32 command) {
  switch (command) {
    case FUTEX_LOCK_PI:
    case FUTEX_LOCK_PI2:
    case FUTEX_TRYLOCK_PI:
    case FUTEX_UNLOCK_PI:
      return Access::kWrite;
    default:
      return Access::kRead;
  }
}

Result<TimeSpec> read_timeout(const Request& request) {
  const TimeSpec time = DBOS_TRY(read_program<TimeSpec>(VirtualAddress(request.timeout_or_value)));
  if (time.seconds < 0 || static_cast<u64>(time.nanoseconds) >= kNanosecondsPerSecond)
    return Error(EINVAL);
  return time;
}

FutexDeadline deadline_of(const Request& request, const TimeSpec* time) {
  if (time == nullptr) return FutexDeadline::never();
  const u64 seconds = static_cast<u64>(time->seconds);
  u64 nanoseconds = kTimeMax;
  if (seconds < kTimeMax / kNanosecondsPerSecond)
    nanoseconds = seconds * kNanosecondsPerSecond + static_cast<u64>(time->nanoseconds);
  if (request.command == FUTEX_WAIT) {
    const u64 now = clock_now(clock_id::kMonotonic);
    nanoseconds = nanoseconds > kTimeMax - now ? kTimeMax : now + nanoseconds;
  }
  const bool realtime = request.is_realtime() || request.command == FUTEX_LOCK_PI;
  return {nanoseconds, realtime ? clock_id::kRealtime : clock_id::kMonotonic};
}

// Both processes reach the word by its place in the file or in the shared memory, so Linux, which
// knows that place by the window's mapping, does the whole call.
i64 futex_of_host(const Request& request, PhysicalAddress address, PhysicalAddress second,
                  const TimeSpec* time) {
  TimeSpec copy{};
  u64 timeout = request.timeout_or_value;
  if (has_timeout(request.command)) {
    timeout = 0;
    if (time != nullptr) {
      copy = *time;
      timeout = host_pointer(&copy);
    }
  }
  const i64 result = hypercall(__NR_futex, address.value(), request.operation, request.value,
                               timeout, second.value(), request.third_value);
  const bool locks = request.command == FUTEX_LOCK_PI || request.command == FUTEX_LOCK_PI2;
  // Linux's ERESTARTNOINTR: made again whatever the handler's flags are.
  return locks && result == kInterrupted ? kNotStarted : result;
}

i64 futex_of_guest(const Request& request, const TimeSpec* time) {
  Thread& thread = request.thread;
  const i32 count = static_cast<i32>(request.value);
  switch (request.command) {
    case FUTEX_WAIT:
      return futex_wait(thread, request.address, request.value, kFutexBitsetAny,
                        deadline_of(request, time));
    case FUTEX_WAIT_BITSET:
      return futex_wait(thread, request.address, request.value, request.third_value,
                        deadline_of(request, time));
    case FUTEX_WAKE:
      return futex_wake(thread.space, request.address, count, kFutexBitsetAny);
    case FUTEX_WAKE_BITSET:
      return futex_wake(thread.space, request.address, count, request.third_value);
    case FUTEX_REQUEUE:
      return futex_requeue(thread.space, request.address, request.second_address, count,
                           request.second_value(), nullptr);
    case FUTEX_CMP_REQUEUE:
      return futex_requeue(thread.space, request.address, request.second_address, count,
                           request.second_value(), &request.third_value);
    case FUTEX_WAKE_OP:
      return futex_wake_operation(thread.space, request.address, request.second_address, count,
                                  request.second_value(), request.third_value);
    case FUTEX_LOCK_PI:
    case FUTEX_LOCK_PI2:
      return futex_lock_pi(thread, request.address, deadline_of(request, time));
    case FUTEX_TRYLOCK_PI:
      return futex_try_lock_pi(thread, request.address);
    case FUTEX_UNLOCK_PI:
      return futex_unlock_pi(thread, request.address);
    default:
      return -ENOSYS;
  }
}

i64 perform(const Request& request, const TimeSpec* time) {
  if ((request.operation & FUTEX_PRIVATE_FLAG) != 0) return futex_of_guest(request, time);
  if (!is_aligned(request.address.value(), sizeof(u32))) return -EINVAL;
  WindowReference windows[2];
  const PhysicalAddress host = DBOS_TRY_CALL(shared_futex_address(
      *request.thread.space, request.address, access_of(request.command), windows[0]));
  PhysicalAddress second;
  if (has_second_futex(request.command)) {
    const bool writes = request.command == FUTEX_WAKE_OP;
    second =
        DBOS_TRY_CALL(shared_futex_address(*request.thread.space, request.second_address,
                                           writes ? Access::kWrite : Access::kRead, windows[1]));
    // One queue here, the other one at the host: no program is known to do that.
    if (second.is_null() != host.is_null()) return -EINVAL;
  }
  if (host.is_null()) return futex_of_guest(request, time);
  return futex_of_host(request, host, second, time);
}

}  // namespace

i64 system_futex(Thread& thread, VirtualAddress address, u32 operation, u32 value,
                 u64 timeout_or_value, VirtualAddress second_address, u32 third_value) {
  const Request request{
      .thread = thread,
      .address = address,
      .command = operation & static_cast<u32>(FUTEX_CMD_MASK),
      .operation = operation,
      .value = value,
      .timeout_or_value = timeout_or_value,
      .second_address = second_address,
      .third_value = third_value,
  };
  TimeSpec time{};
  const bool timed = has_timeout(request.command) && timeout_or_value != 0;
  if (timed) time = DBOS_TRY_CALL(read_timeout(request));
  if (!is_known(request.command)) return -ENOSYS;
  if (request.is_realtime() && !takes_clock_flag(request.command)) return -ENOSYS;
  return perform(request, timed ? &time : nullptr);
}

i64 system_set_robust_list(Thread& thread, VirtualAddress head, u64 size) {
  if (size != kRobustHeadSize) return -EINVAL;
  thread.robust_list_head = head;
  return 0;
}

i64 system_get_robust_list(Thread& thread, i32 thread_id, VirtualAddress head,
                           VirtualAddress size) {
  VirtualAddress list = thread.robust_list_head;
  if (thread_id != 0 && thread_id != thread.thread_id) {
    LockGuard guard(thread.process->lock);
    const Thread* const other = find_thread(*thread.process, thread_id);
    if (other == nullptr) return -ESRCH;
    list = other->robust_list_head;
  }
  DBOS_TRY_CALL(write_program<u64>(size, kRobustHeadSize));
  return result_of(write_program<u64>(head, list.value()));
}

i64 system_set_tid_address(Thread& thread, VirtualAddress word) {
  thread.clear_child_tid = word;
  return thread.thread_id;
}

}  // namespace dbos
