#include "guest/process/signal_actions.h"

#include "guest/hypercall.h"
#include "guest/platform.h"

namespace dbos {
namespace {

SignalDisposition disposition_of(const SignalAction& action) {
  if (action.handler == kHandlerDefault) return SignalDisposition::kDefault;
  if (action.handler == kHandlerIgnore) return SignalDisposition::kIgnore;
  return SignalDisposition::kCatch;
}

u64 child_flags(const SignalAction& action) {
  return action.flags & (action_flag::kNoChildStop | action_flag::kNoChildWait);
}

bool same_for_linux(const SignalAction& a, const SignalAction& b) {
  return disposition_of(a) == disposition_of(b) && child_flags(a) == child_flags(b);
}

enum class Turn { kNothingToTell, kAnothers, kOwn };

// Whose turn it is to tell of the signal. The caller's: `action` is what it has to tell, and it
// calls end_turn() then.
Turn take_turn(Process& process, u32 signal, SignalAction& action) {
  const u64 bit = signal_bit(signal);
  LockGuard guard(process.signal_lock);
  if ((process.signals_being_told & bit) != 0) return Turn::kAnothers;
  if ((process.untold_signals & bit) == 0) return Turn::kNothingToTell;
  process.untold_signals &= ~bit;
  process.signals_being_told |= bit;
  for (InheritedActions* heir = process.heirs; heir != nullptr; heir = heir->next) {
    heir->uncertain.fetch_or(bit);
  }
  action = process.actions[signal - 1];
  return Turn::kOwn;
}

void end_turn(Process& process, u32 signal) {
  LockGuard guard(process.signal_lock);
  process.signals_being_told &= ~signal_bit(signal);
}

}  // namespace

void set_action(Process& process, u32 signal, const SignalAction& action) {
  SignalAction& entry = process.actions[signal - 1];
  if (!same_for_linux(entry, action)) process.untold_signals |= signal_bit(signal);
  entry = action;
}

void tell_linux(Process& process, u32 signal) {
  SignalAction action{};
  platform::Wait wait;
  for (;;) {
    switch (take_turn(process, signal, action)) {
      case Turn::kNothingToTell:
        return;
      case Turn::kAnothers:
        wait.turn();
        break;
      case Turn::kOwn:
        hypercall(Service::kSignalAction, signal, static_cast<u64>(disposition_of(action)),
                  action.flags);
        end_turn(process, signal);
    }
  }
}

void begin_inheritance(Process& child, Process& parent, InheritedActions& inherited) {
  LockGuard guard(parent.signal_lock);
  for (u32 i = 0; i < kSignalCount; i++) child.actions[i] = parent.actions[i];
  inherited.uncertain.store(parent.untold_signals | parent.signals_being_told);
  inherited.next = parent.heirs;
  parent.heirs = &inherited;
}

void end_inheritance(Process& parent, InheritedActions& inherited) {
  LockGuard guard(parent.signal_lock);
  InheritedActions** link = &parent.heirs;
  while (*link != &inherited) link = &(*link)->next;
  *link = inherited.next;
}

void tell_uncertain(Process& child, const InheritedActions& inherited) {
  u64 untold;
  {
    LockGuard guard(child.signal_lock);
    child.untold_signals |= inherited.uncertain.load();
    untold = child.untold_signals;
  }
  for (u32 signal = 1; untold != 0 && signal <= kSignalCount; ++signal) {
    if ((untold & signal_bit(signal)) != 0) tell_linux(child, signal);
  }
}

void clear_handlers(Process& child) {
  LockGuard guard(child.signal_lock);
  for (u32 signal = 1; signal <= kSignalCount; ++signal) {
    if (is_caught(child.actions[signal - 1])) set_action(child, signal, SignalAction{});
  }
}

}  // namespace dbos
