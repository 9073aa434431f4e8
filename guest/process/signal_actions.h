// What the program does with each signal (Process::actions), and what Linux knows of it.
//
// Linux must know whether a signal is at its default, ignored or caught. No lock is held across the
// host call that tells it. So a change makes the signal untold, and one thread at a time tells of a
// signal: what the table says when it begins. Whoever needs Linux to know it waits for that thread,
// or tells.
//
// The table is copied for a child of fork() before Linux copies what it knows. What was untold or
// being told between the two is uncertain: the child tells it again before its program runs.
//
// Lock order: Process::signal_lock is a leaf; no host call is made under it.
#pragma once

#include <atomic>

#include "guest/process/process.h"
#include "guest/process/signal_types.h"

namespace dbos {

// Of a child that is being made. Bit n - 1 is signal n.
struct InheritedActions {
  std::atomic<u64> uncertain{0};
  InheritedActions* next = nullptr;  // guarded by the parent's signal_lock
};

inline bool is_caught(const SignalAction& action) {
  return action.handler != kHandlerDefault && action.handler != kHandlerIgnore;
}

// Changes the table. With signal_lock; tell_linux() is to follow without it.
void set_action(Process& process, u32 signal, const SignalAction& action);
// Returns once Linux knows: at once, if what Linux must know of the signal has not changed.
void tell_linux(Process& process, u32 signal);

// By the parent, around the host call that makes the child: copies the table, and notes what is
// told from then on.
void begin_inheritance(Process& child, Process& parent, InheritedActions& inherited);
void end_inheritance(Process& parent, InheritedActions& inherited);
// By the child, as it begins.
void tell_uncertain(Process& child, const InheritedActions& inherited);
// CLONE_CLEAR_SIGHAND: the child starts with no handlers. Before tell_uncertain().
void clear_handlers(Process& child);

}  // namespace dbos
