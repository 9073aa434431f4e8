// The side of the threads that are stopped: what runs on the host threads of vCPUs.
#include <linux/time_types.h>

#include "vmm/debug/debug_state.h"
#include "vmm/host/futex.h"
#include "vmm/host/host_call.h"
#include "vmm/kvm/kvm_api.h"
#include "vmm/process/attention.h"
#include "vmm/process/host_process.h"

namespace dbos::vmm {
namespace {

constexpr uint64_t kStepBit = 1 << 14;  // DR6.BS

// How long a thread waits before it looks whether its debugger is still there.
constexpr __kernel_timespec kPatience = {1, 0};
constexpr int kPatienceAtEnd = 2;

// What a thread that calls Service::kDebugStop does.
enum class Entry { kHold, kGoOn };

bool is_owner_gone() {
  const uint32_t owner = debug_state().owner.load();
  return owner != 0 && !shares_our_memory(owner);
}

// A thread before its first instruction waits for whoever may come; a child that was forked with
// breakpoints only for the debugger that set them.
bool is_left_alone(const ThreadStop& stop) {
  return is_owner_gone() || (!debug_state().holds.load() && !stop.is_first);
}

// Why a thread that was asked to stop does; kNone: it need not.
StopCause cause_of_wanted(ThreadStop& stop) {
  if (stop.exit_cause != StopCause::kNone) {
    const StopCause cause = stop.exit_cause;
    stop.exit_cause = StopCause::kNone;
    stop.address = stop.exit_address;
    return cause;
  }
  if (stop.steps_to_return) return StopCause::kStep;
  return stop.is_wanted || stop.is_first ? StopCause::kRequested : StopCause::kNone;
}

StopCause cause_of_trap(uint32_t vcpu, const ThreadStop& stop, uint64_t vector) {
  if (vector == kDebugVector) return stop.is_stepping ? StopCause::kStep : StopCause::kNone;
  ProgramFrame& frame = program_frame(vcpu);
  if (vector != kBreakpointVector || software_breakpoint_at(frame.rip - 1) == nullptr)
    return StopCause::kNone;
  frame.rip -= 1;
  return StopCause::kBreakpoint;
}

void begin_hold(ThreadStop& stop, StopCause cause) {
  stop.cause = cause;
  stop.is_wanted = false;
  // A thread that only does what it was asked to is no news; the first instruction is.
  stop.is_reported = cause == StopCause::kRequested && !stop.is_first;
  stop.is_changed = false;
  stop.signal_to_come = 0;  // it has come, or was ignored
  stop.go.store(0);
  stop.held.store(1);
}

// With the lock. Sets stop.result.
Entry enter(Vcpu& vcpu, ThreadStop& stop, DebugCause why, uint64_t argument) {
  const bool is_signal = why == DebugCause::kSignal;
  stop.result = is_signal ? static_cast<int64_t>(argument) : kDebugPassed;
  if (why == DebugCause::kWanted) set_debug_flags(vcpu, kDebugStopWanted, 0);
  if (stop.is_scrubbed) {
    disarm_step(vcpu.index);
    begin_hold(stop, StopCause::kNone);
    return Entry::kHold;
  }
  // It was told to stop, or has noted why, when somebody was still attached.
  const bool is_held = debug_state().holds.load() || stop.is_first;
  if (!is_held) stop.exit_cause = StopCause::kNone;
  if (!stop.is_debugged || !is_held) return Entry::kGoOn;
  if (is_signal && stop.signal_to_come == static_cast<int>(argument)) {
    stop.signal_to_come = 0;
    return Entry::kGoOn;
  }
  StopCause cause = StopCause::kNone;
  switch (why) {
    case DebugCause::kWanted:
      cause = cause_of_wanted(stop);
      break;
    case DebugCause::kTrap:
      cause = cause_of_trap(vcpu.index, stop, argument);
      break;
    case DebugCause::kSignal:
      cause = StopCause::kSignal;
      break;
  }
  disarm_step(vcpu.index);
  if (cause == StopCause::kNone) return Entry::kGoOn;
  stop.signal = is_signal ? static_cast<int>(argument) : 0;
  if (!is_signal) stop.result = kDebugTaken;
  begin_hold(stop, cause);
  return Entry::kHold;
}

// With the lock. A dead debugger: everything as if nobody had ever been attached. The breakpoints
// are gone with the first process's memory, because it was a thread of that.
void forget_debugger(ThreadStop& stop) {
  DebugState& state = debug_state();
  state.holds.store(false);
  state.owner.store(0);
  state.end_known.store(1);
  stop.is_debugged = false;
}

void wait_for_go(ThreadStop& stop) {
  while (stop.go.load() == 0) {
    if (futex_wait(stop.go, 0, &kPatience) != -ETIMEDOUT) continue;
    const HostLockGuard guard(debug_state().lock);
    // One that is just being let go stays debugged: the next debugger has it.
    if (stop.go.load() != 0 || !is_left_alone(stop)) continue;
    if (is_owner_gone()) forget_debugger(stop);
    stop.is_scrubbed = false;
    stop.held.store(0);
    return;
  }
}

// With the lock.
uint32_t flags_at_birth(const ThreadStop& stop) {
  const DebugState& state = debug_state();
  const bool is_held = stop.is_debugged && state.holds.load();
  const bool has_old_registers =
      stop.debug_registers != (is_held ? state.hardware_version : uint64_t{0});
  const bool stops = stop.is_wanted || stop.is_stepping || stop.is_scrubbed || has_old_registers;
  return (is_held ? kDebugTraps : 0) | (stops ? kDebugStopWanted : 0);
}

}  // namespace

int64_t hold_for_debugger(Vcpu& vcpu, const Call& call) {
  DebugState& state = debug_state();
  ThreadStop& stop = state.threads[vcpu.index];
  Entry entry;
  {
    const HostLockGuard guard(state.lock);
    load_debug_registers(vcpu, stop);
    load_special_registers(vcpu, &stop.registers);
    entry = enter(vcpu, stop, static_cast<DebugCause>(call.arguments[0]), call.arguments[1]);
  }
  if (entry == Entry::kGoOn) return stop.result;
  notify_debugger();
  wait_for_go(stop);
  const HostLockGuard guard(state.lock);
  load_debug_registers(vcpu, stop);
  if (stop.is_changed) store_special_registers(vcpu, stop.registers);
  return stop.result;
}

void prepare_debugging(Vcpu& vcpu, const Vcpu& creator, Birth birth) {
  DebugState& state = debug_state();
  vcpu.page->debug = 0;
  if (!state.is_enabled.load(std::memory_order_relaxed)) return;
  const HostLockGuard guard(state.lock);
  const ThreadStop& parent = state.threads[creator.index];
  ThreadStop& stop = state.threads[vcpu.index];
  const bool shares = birth != Birth::kProcess;
  stop.is_debugged = parent.is_debugged && shares;
  stop.is_scrubbed =
      parent.is_debugged && !shares && (!state.software.empty() || parent.is_stepping);
  stop.is_wanted = stop.is_first = stop.steps_to_return = stop.stays = false;
  // With its creator's flags it has the trap flag, which goes before its first instruction.
  stop.is_stepping = parent.is_stepping && shares;
  stop.exit_cause = StopCause::kNone;
  stop.signal_to_come = 0;
  stop.held.store(0);
}

void begin_debugging(Vcpu& vcpu) {
  DebugState& state = debug_state();
  if (!state.is_enabled.load(std::memory_order_relaxed)) return;
  const HostLockGuard guard(state.lock);
  ThreadStop& stop = state.threads[vcpu.index];
  const bool waits = state.is_stopped || state.keeps_others;
  if (stop.is_debugged && state.holds.load() && waits) stop.is_wanted = true;
  stop.stays = state.keeps_others;
  set_debug_flags(vcpu, 0, flags_at_birth(stop));
}

void note_debug_exit(Vcpu& vcpu) {
  DebugState& state = debug_state();
  ThreadStop& stop = state.threads[vcpu.index];
  const kvm_debug_exit_arch& exit = vcpu.run->debug.arch;
  const HostLockGuard guard(state.lock);
  if (!stop.is_debugged) {
    clear_debug_registers(vcpu, stop);
    stop.exit_cause = StopCause::kBreakpoint;
    return;
  }
  if ((exit.dr6 & kStepBit) != 0 && stop.is_stepping) stop.exit_cause = StopCause::kStep;
  for (uint32_t i = 0; i < kDebugRegisters; ++i) {
    if ((exit.dr6 >> i & 1) == 0 || !state.hardware[i]) continue;
    const bool executes = state.hardware[i]->kind == BreakpointKind::kHardwareExecute;
    stop.exit_cause = executes ? StopCause::kHardwareBreakpoint : StopCause::kWatchpoint;
    stop.exit_address = state.hardware[i]->address;
  }
  if (stop.exit_cause == StopCause::kNone) return;
  set_debug_flags(vcpu, 0, kDebugStopWanted);
  __atomic_store_n(&vcpu.page->attention, 1, __ATOMIC_SEQ_CST);
  bring_into_kernel(vcpu);
}

void tell_process_end(const Vcpu& vcpu, ProcessEnd end) {
  DebugState& state = debug_state();
  if (vcpu.process->parent != nullptr || state.owner.load() == 0) return;
  {
    const HostLockGuard guard(state.lock);
    state.end = end;
  }
  notify_debugger();
  for (int i = 0; i < kPatienceAtEnd && state.end_known.load() == 0 && !is_owner_gone(); ++i) {
    futex_wait(state.end_known, 0, &kPatience);
  }
}

}  // namespace dbos::vmm
