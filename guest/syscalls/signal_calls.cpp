#include "guest/syscalls/signal_calls.h"

#include <asm/unistd_64.h>

#include "guest/hypercall.h"
#include "guest/memory/user_copy.h"
#include "guest/process/clock.h"
#include "guest/process/signal.h"
#include "guest/process/signal_actions.h"
#include "guest/process/signal_frame.h"

namespace dbos {

namespace {

constexpr u64 kMaskSize = sizeof(u64);

enum MaskOperation : u64 { kBlock = 0, kUnblock = 1, kSetMask = 2 };

// Linux knows the action when this returns, also where another thread has changed it.
Result<void> change_action(Process& process, u32 signal, const SignalAction* wanted,
                           SignalAction& old) {
  if (signal < 1 || signal > kSignalCount) return Error(EINVAL);
  if (wanted != nullptr && (kUnblockableSignals & signal_bit(signal)) != 0) return Error(EINVAL);
  {
    LockGuard guard(process.signal_lock);
    old = process.actions[signal - 1];
    if (wanted != nullptr) {
      SignalAction action = *wanted;
      action.flags &= action_flag::kKnown;
      action.mask &= ~kUnblockableSignals;
      set_action(process, signal, action);
    }
  }
  tell_linux(process, signal);
  return {};
}

}  // namespace

i64 system_rt_sigaction(Thread& thread, u64 signal, VirtualAddress action, VirtualAddress old,
                        u64 mask_size) {
  if (mask_size != kMaskSize) return -EINVAL;
  SignalAction wanted{};
  if (action.value() != 0) wanted = DBOS_TRY_CALL(read_program<SignalAction>(action));
  SignalAction before{};
  DBOS_TRY_CALL(change_action(*thread.process, static_cast<u32>(signal),
                              action.value() != 0 ? &wanted : nullptr, before));
  return result_of(write_if_given(old, before));
}

i64 system_rt_sigprocmask(Thread& thread, u64 how, VirtualAddress set, VirtualAddress old,
                          u64 mask_size) {
  if (mask_size != kMaskSize) return -EINVAL;
  const u64 before = thread.blocked;
  if (set.value() != 0) {
    const u64 mask = DBOS_TRY_CALL(read_program<u64>(set)) & ~kUnblockableSignals;
    u64 wanted;
    switch (static_cast<u32>(how)) {
      case kBlock:
        wanted = before | mask;
        break;
      case kUnblock:
        wanted = before & ~mask;
        break;
      case kSetMask:
        wanted = mask;
        break;
      default:
        return -EINVAL;
    }
    const i64 result = set_signal_mask(thread, wanted);
    if (result != 0) return result;
  }
  return result_of(write_if_given(old, before));
}

i64 system_rt_sigreturn(Thread& thread, TrapFrame& frame) {
  const Result<u64> mask = signal_frame_mask(frame);
  if (mask.is_ok()) {
    const i64 result = set_signal_mask(thread, mask.value());
    if (result != 0) return result;  // a signal comes first: then this call is made again
  }
  const bool is_stepped = (frame.rflags & kFlagTrap) != 0;
  frame.vector = kRestoredVector;
  if (mask.is_error() || pop_signal_frame(thread, frame).is_error()) {
    frame.rax = 0;
    force_fault_signal(thread, frame, signal_number::kSegv, kCodeKernel, 0,
                       thread.fault_trap_number, thread.fault_error_code);
  }
  if (is_stepped) end_debugger_step();
  return static_cast<i64>(frame.rax);
}

i64 system_sigaltstack(Thread& thread, const TrapFrame& frame, VirtualAddress stack,
                       VirtualAddress old) {
  AlternateStack wanted{};
  if (stack.value() != 0) wanted = DBOS_TRY_CALL(read_program<AlternateStack>(stack));
  AlternateStack before = thread.alternate_stack;
  const u32 armed = static_cast<u32>(before.flags) & stack_flag::kAutoDisarm;
  before.flags = static_cast<i32>(alternate_stack_flags(thread, frame.rsp) | armed);
  before.reserved = 0;
  if (stack.value() != 0) DBOS_TRY_CALL(set_alternate_stack(thread, wanted, frame.rsp));
  return result_of(write_if_given(old, before));
}

i64 system_rt_sigpending(VirtualAddress set, u64 mask_size) {
  if (mask_size > kMaskSize) return -EINVAL;
  u64 pending = 0;
  const i64 result = hypercall(__NR_rt_sigpending, host_pointer(&pending), kMaskSize);
  if (result < 0) return result;
  return result_of(copy_to_program(set, &pending, mask_size));
}

i64 system_rt_sigtimedwait(VirtualAddress set, VirtualAddress info, VirtualAddress timeout,
                           u64 mask_size) {
  if (mask_size != kMaskSize) return -EINVAL;
  const u64 mask = DBOS_TRY_CALL(read_program<u64>(set));
  TimeSpec time{};
  if (timeout.value() != 0) time = DBOS_TRY_CALL(read_program<TimeSpec>(timeout));
  SignalInfo taken{};
  const i64 result = hypercall(__NR_rt_sigtimedwait, host_pointer(&mask), host_pointer(&taken),
                               timeout.value() != 0 ? host_pointer(&time) : 0, kMaskSize);
  if (result > 0) DBOS_TRY_CALL(write_if_given(info, taken));
  return result;
}

i64 system_rt_sigsuspend(Thread& thread, VirtualAddress mask, u64 mask_size) {
  if (mask_size != kMaskSize) return -EINVAL;
  if (mask.value() == 0) return -EFAULT;
  TemporaryMask temporary(thread);
  DBOS_TRY_CALL(temporary.read(mask, mask_size));
  return temporary.finish(hypercall(__NR_rt_sigsuspend, host_pointer(temporary.mask()), kMaskSize));
}

}  // namespace dbos
