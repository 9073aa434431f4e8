#include "guest/process/signal.h"

#include <asm/unistd_64.h>

#include "guest/hypercall.h"
#include "guest/memory/user_copy.h"
#include "guest/process/exit.h"
#include "guest/process/signal_actions.h"
#include "guest/process/signal_frame.h"
#include "hypercall/debug.h"

namespace dbos {

namespace {

constexpr i32 kInitProcess = 1;
constexpr u64 kSystemCallLength = 2;  // bytes of the `syscall` instruction

enum class Origin { kLinux, kFault };
enum class DefaultAction { kIgnore, kStop, kDie };

DefaultAction default_action(u32 signal) {
  switch (signal) {
    case signal_number::kChild:
    case signal_number::kContinue:
    case signal_number::kUrgent:
    case signal_number::kWindowChange:
      return DefaultAction::kIgnore;
    case signal_number::kStop:
    case signal_number::kTerminalStop:
    case signal_number::kTerminalInput:
    case signal_number::kTerminalOutput:
      return DefaultAction::kStop;
    default:
      return DefaultAction::kDie;
  }
}

// What is left when a signal has no handler by the time it gets here. Linux performs the default
// itself but for faults, which it does not see, and for a handler that another thread just removed.
void perform_default(const Thread& thread, u32 signal, Origin origin) {
  // A pid namespace's first process gets only the signals that it handles (pid_namespaces(7)).
  if (origin == Origin::kLinux && thread.process->process_id == kInitProcess) return;
  switch (default_action(signal)) {
    case DefaultAction::kIgnore:
      return;
    case DefaultAction::kStop:
      hypercall(__NR_kill, static_cast<u64>(thread.process->process_id), signal_number::kStop);
      return;
    case DefaultAction::kDie:
      die(signal);
  }
}

void make_call_again(TrapFrame& frame) {
  frame.rax = frame.error_code;
  frame.rip -= kSystemCallLength;
  frame.vector = kRestoredVector;
}

// Decides, before a handler's frame is built, whether an interrupted system call is made again.
// `action` is null when no handler runs.
void resolve_interrupted_call(const Thread& thread, TrapFrame& frame, const SignalAction* action) {
  if (frame.vector != kSystemCallVector) return;
  const i64 result = static_cast<i64>(frame.rax);
  const bool restarts = action == nullptr || (action->flags & action_flag::kRestart) != 0;
  // Linux's ERESTARTNOHAND: only a handler ends these calls.
  const bool needs_handler = result == -EINTR && action == nullptr && thread.has_temporary_mask;
  if (result == kNotStarted || (result == kInterrupted && restarts) || needs_handler) {
    make_call_again(frame);
  } else if (result == kInterrupted) {
    frame.rax = static_cast<u64>(-EINTR);
  }
}

// The action of a signal that is about to be delivered, with the table changed as delivery demands.
SignalAction choose_action(Thread& thread, u32 signal, Origin origin) {
  Process& process = *thread.process;
  LockGuard guard(process.signal_lock);
  SignalAction chosen = process.actions[signal - 1];
  // A fault cannot wait and cannot be overlooked: where the program does so, it dies.
  const bool blocked = (thread.blocked & signal_bit(signal)) != 0;
  const bool dies = origin == Origin::kFault && (blocked || chosen.handler == kHandlerIgnore);
  if (dies) chosen.handler = kHandlerDefault;
  SignalAction left = chosen;
  const bool resets = is_caught(chosen) && (chosen.flags & action_flag::kResetHandler) != 0;
  if (resets) left.handler = kHandlerDefault;
  set_action(process, signal, left);
  return chosen;
}

void deliver(Thread& thread, TrapFrame& frame, const SignalInfo& info, Origin origin);

// Where no frame can be built: SIGSEGV, and where that was SIGSEGV's own, death.
void deliver_segv_instead(Thread& thread, TrapFrame& frame, u32 signal) {
  if (signal == signal_number::kSegv) die(signal_number::kSegv);
  SignalInfo info{};
  info.number = static_cast<i32>(signal_number::kSegv);
  info.code = kCodeKernel;
  deliver(thread, frame, info, Origin::kFault);
}

// What a debugger makes of a signal: the same, another one, or none (number 0).
SignalInfo info_after_debugger(const SignalInfo& info) {
  if ((current_hypercall_page().debug & kDebugTraps) == 0) return info;
  const i64 number = hypercall(Service::kDebugStop, static_cast<u64>(DebugCause::kSignal),
                               static_cast<u64>(info.number));
  if (number == info.number || number < 0 || number > i64{kSignalCount}) return info;
  SignalInfo changed{};
  changed.number = static_cast<i32>(number);
  return changed;
}

void deliver(Thread& thread, TrapFrame& frame, const SignalInfo& given, Origin origin) {
  const SignalInfo info = info_after_debugger(given);
  const u32 signal = static_cast<u32>(info.number);
  if (signal == 0) return;
  DBOS_ASSERT(signal <= kSignalCount);
  const SignalAction action = choose_action(thread, signal, origin);
  if (action.handler == kHandlerIgnore) return;
  if (action.handler == kHandlerDefault) {
    perform_default(thread, signal, origin);
    return;
  }
  if ((action.flags & action_flag::kResetHandler) != 0) tell_linux(*thread.process, signal);
  resolve_interrupted_call(thread, frame, &action);

  const u64 interrupted_mask = thread.blocked;
  const u64 mask_of_call = thread.has_temporary_mask ? thread.temporary_blocked : thread.blocked;
  if (push_signal_frame(thread, frame, signal, action, info, interrupted_mask).is_error()) {
    deliver_segv_instead(thread, frame, signal);
    return;
  }
  thread.has_temporary_mask = false;
  frame.vector = kRestoredVector;
  thread.blocked = mask_of_call | action.mask;
  if ((action.flags & action_flag::kNoDefer) == 0) thread.blocked |= signal_bit(signal);
  thread.blocked &= ~kUnblockableSignals;
}

SignalInfo take_pending(PendingSignal& pending) {
  SignalInfo info;
  static_assert(sizeof info == sizeof pending.info);
  __builtin_memcpy(&info, pending.info, sizeof info);
  info.number = static_cast<i32>(pending.number);
  asm volatile("" : : : "memory");  // the slot is free from here on
  pending.number = 0;
  return info;
}

// Delivers what Linux has for this thread, and gives Linux the mask to go on with, until both stay
// done. `host_mask`: what Linux has now; it is full once a signal was taken.
void deliver_all(Thread& thread, TrapFrame& frame, u64 host_mask) {
  HypercallPage& page = current_hypercall_page();
  bool synchronized = host_mask == thread.blocked;
  for (;;) {
    if (page.dying != 0) exit_thread_dying();
    if (page.signal.number != 0) {
      const SignalInfo info = take_pending(page.signal);
      deliver(thread, frame, info, Origin::kLinux);
      synchronized = false;
      continue;
    }
    if (synchronized) return;
    synchronized = hypercall(Service::kSignalMask, thread.blocked) == 0;
  }
}

}  // namespace

void deliver_pending_signal(Thread& thread, TrapFrame& frame) {
  deliver_all(thread, frame, thread.blocked);
  // No handler has run: Linux's own answer to that.
  resolve_interrupted_call(thread, frame, nullptr);
  thread.has_temporary_mask = false;
}

void force_fault_signal(Thread& thread, TrapFrame& frame, u32 signal, i32 code, u64 address,
                        u64 trap_number, u64 error_code) {
  thread.fault_trap_number = trap_number;
  thread.fault_error_code = error_code;
  thread.fault_address = address;
  SignalInfo info{};
  info.number = static_cast<i32>(signal);
  info.code = code;
  if (code != kCodeKernel) info.fault_address = address;
  const u64 host_mask = thread.blocked;
  deliver(thread, frame, info, Origin::kFault);
  deliver_all(thread, frame, host_mask);
}

void end_debugger_step() {
  if ((current_hypercall_page().debug & kDebugTraps) == 0) return;
  hypercall(Service::kDebugStop, static_cast<u64>(DebugCause::kTrap), kDebugVector);
}

i64 set_signal_mask(Thread& thread, u64 mask) {
  const u64 wanted = mask & ~kUnblockableSignals;
  if (wanted == thread.blocked) return 0;
  const i64 result = hypercall(Service::kSignalMask, wanted);
  if (result == 0) thread.blocked = wanted;
  return result;
}

i64 hold_signals() {
  return hypercall(Service::kSignalMask, ~u64{0});
}

void release_signals(const Thread& thread) {
  hypercall(Service::kSignalMask, thread.blocked);
}

void initialize_signals(Process& process, Thread& thread, const BootInformation& boot) {
  for (u32 signal = 1; signal <= kSignalCount; signal++) {
    SignalAction& action = process.actions[signal - 1];
    action = SignalAction{};
    if ((boot.ignored_signals & signal_bit(signal)) != 0) action.handler = kHandlerIgnore;
  }
  thread.blocked = boot.blocked_signals & ~kUnblockableSignals;
  thread.has_temporary_mask = false;
  thread.alternate_stack = kNoAlternateStack;
}

void inherit_signal_state(Thread& child, const Thread& parent, bool keep_alternate_stack) {
  child.blocked = parent.blocked;
  child.temporary_blocked = 0;
  child.has_temporary_mask = false;
  child.fault_trap_number = parent.fault_trap_number;
  child.fault_error_code = parent.fault_error_code;
  child.fault_address = parent.fault_address;
  child.alternate_stack = keep_alternate_stack ? parent.alternate_stack : kNoAlternateStack;
}

Result<void> TemporaryMask::read(VirtualAddress address, u64 size) {
  if (address.value() == 0) return {};
  if (size != sizeof mask_) return Error(EINVAL);
  mask_ = DBOS_TRY(read_program<u64>(address)) & ~kUnblockableSignals;
  is_given_ = true;
  return {};
}

i64 TemporaryMask::finish(i64 result) {
  if (is_given_ && result == -EINTR) {
    thread_.temporary_blocked = mask_;
    thread_.has_temporary_mask = true;
  }
  return result;
}

}  // namespace dbos
