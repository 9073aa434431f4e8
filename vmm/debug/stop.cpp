// The debugger's side: attaching, stopping, going on.
#include "vmm/debug/stop.h"

#include <asm/unistd.h>
#include <sys/eventfd.h>

#include <bitset>
#include <chrono>

#include "hypercall/abi.h"
#include "vmm/debug/debug_state.h"
#include "vmm/error.h"
#include "vmm/host/futex.h"
#include "vmm/host/host_call.h"
#include "vmm/host/keep_descriptor.h"
#include "vmm/process/attention.h"
#include "vmm/process/host_process.h"

namespace dbos::vmm {
namespace {

constexpr uint32_t kPatienceAtDetach_ms = 2000;
constexpr uint32_t kPatienceOfStep_ms = 1000;

using Clock = std::chrono::steady_clock;

void pause() {
  sleep_for(100'000);
}

// With the lock.
void ask_to_stop(Vcpu& vcpu, ThreadStop& stop) {
  if (stop.held.load() != 0 || stop.is_wanted) return;
  set_debug_flags(vcpu, 0, kDebugStopWanted);
  stop.is_wanted = request_attention(vcpu) == 0;  // else again, in a moment
}

// Asks those that run, and returns whether none does. Who begins after that finds the program
// stopped (begin_debugging).
bool ask_all() {
  const HostLockGuard guard(debug_state().lock);
  bool at_rest = true;
  for_each_debugged([&](Vcpu& vcpu, ThreadStop& stop) {
    ask_to_stop(vcpu, stop);
    at_rest = at_rest && is_at_rest(vcpu);
  });
  debug_state().is_stopped = debug_state().is_stopped || at_rest;
  return at_rest;
}

bool is_to_be_told(const ThreadStop& stop) {
  return stop.held.load() != 0 && !stop.is_reported && !stop.stays;
}

bool is_urgent(const ThreadStop& stop) {
  const bool keeps = stop.cause == StopCause::kWatchpoint || stop.cause == StopCause::kSignal;
  return is_to_be_told(stop) && keeps;
}

bool has_urgent_event() {
  bool found = false;
  for_each_debugged([&](Vcpu&, const ThreadStop& stop) { found = found || is_urgent(stop); });
  return found;
}

void arm_step(Vcpu& vcpu, ThreadStop& stop, bool signal_comes) {
  ProgramFrame& frame = program_frame(vcpu.index);
  const bool is_held = stop.held.load() != 0;
  const bool in_system_call = !is_held && frame.vector == kSystemCallVector;
  if (in_system_call || signal_comes) {
    // Ends where the call returns, or at the handler's first instruction.
    stop.steps_to_return = true;
    set_debug_flags(vcpu, 0, kDebugStopWanted);
    return;
  }
  stop.is_stepping = true;
  frame.rflags |= kFlagTrap;
  if (is_held && frame.vector == kSystemCallVector) frame.vector = kRestoredVector;
}

void wake(ThreadStop& stop) {
  stop.held.store(0);
  stop.is_first = false;
  stop.go.store(1);
  futex_wake(stop.go);
}

// A debugger gives it to a thread that stopped for something else. By the VMM's own numbers: those
// in the page are in the guest's hands, and this thread has all rights of dbos-run.
void send_signal(const Vcpu& vcpu, ThreadStop& stop, int signal) {
  const int64_t result = raw_call(__NR_tgkill, vcpu.process->process_id, vcpu.host_thread.load(),
                                  static_cast<uint64_t>(signal));
  if (result >= 0) stop.signal_to_come = signal;
}

// Whether the debugger was told that the thread stands where it does. If there is a breakpoint, one
// that stopped because another thread did, or whose stop was not reported yet, has still to hit it,
// and does when it goes on.
bool is_known_to_stand(const ThreadStop& stop) {
  return stop.held.load() != 0 && stop.cause != StopCause::kRequested && stop.is_reported;
}

// With the lock.
void let_go(Vcpu& vcpu, ThreadStop& stop, Run run, int signal) {
  if (run == Run::kStay) return;
  disarm_step(vcpu.index);
  stop.is_wanted = false;
  const bool is_held = stop.held.load() != 0;
  const bool is_behind = stop.debug_registers != debug_state().hardware_version;
  set_debug_flags(vcpu, kDebugStopWanted, !is_held && is_behind ? kDebugStopWanted : 0);
  const bool signal_comes = is_held && signal != 0;
  if (is_held && stop.cause == StopCause::kSignal) stop.result = signal;
  if (signal_comes && stop.cause != StopCause::kSignal) send_signal(vcpu, stop, signal);
  if (is_known_to_stand(stop)) program_frame(vcpu.index).rflags |= kFlagResume;
  if (run == Run::kStep) arm_step(vcpu, stop, signal_comes);
  if (is_held) wake(stop);
}

// Takes a held thread over the instruction that a breakpoint lies on, alone.
void step_over(Vcpu& vcpu, ThreadStop& stop, const SoftwareBreakpoint& breakpoint, int signal) {
  write_breakpoint_byte(*debug_state().process, breakpoint.address, breakpoint.original);
  {
    const HostLockGuard guard(debug_state().lock);
    let_go(vcpu, stop, Run::kStep, signal);
  }
  wait_until_at_rest(vcpu, kPatienceOfStep_ms);
  write_breakpoint_byte(*debug_state().process, breakpoint.address, kBreakpointInstruction);
}

// Whom a debugger lets go on, and how.
struct Runs {
  std::span<const ThreadRun> threads;
  Run others;
  std::bitset<kVcpuCountMax> are_over_breakpoints;  // and have got their signal

  ThreadRun of(const Vcpu& vcpu, const ThreadStop& stop) const {
    ThreadRun run = {vcpu.index, others, kOwnSignal};
    for (const ThreadRun& thread : threads) {
      if (thread.vcpu == vcpu.index) run = thread;
    }
    if (run.signal == kOwnSignal) run.signal = stop.signal;
    if (are_over_breakpoints.test(vcpu.index)) run.signal = 0;
    return run;
  }
};

void note_who_stays(const Runs& runs) {
  const HostLockGuard guard(debug_state().lock);
  for_each_debugged([&](const Vcpu& vcpu, ThreadStop& stop) {
    stop.stays = runs.of(vcpu, stop).run == Run::kStay;
  });
}

// Returns whether a step over a breakpoint was all that was asked for, or ended in something else.
bool step_over_breakpoints(Runs& runs) {
  bool is_done = false;
  for_each_debugged([&](Vcpu& vcpu, ThreadStop& stop) {
    const auto [index, run, signal] = runs.of(vcpu, stop);
    if (run == Run::kStay || !is_known_to_stand(stop)) return;
    const SoftwareBreakpoint* const breakpoint =
        software_breakpoint_at(program_frame(vcpu.index).rip);
    if (breakpoint == nullptr) return;
    step_over(vcpu, stop, *breakpoint, signal);
    runs.are_over_breakpoints.set(index);
    if (run == Run::kStep || is_urgent(stop)) is_done = true;
    if (run != Run::kContinue || stop.cause != StopCause::kStep) return;
    stop.cause = StopCause::kRequested;  // nobody is told, and it has still to hit what is here
    stop.is_reported = true;
  });
  return is_done;
}

bool is_attached() {
  return debug_state().owner.load() == own_thread_id();
}

void mark_threads() {
  const HostLockGuard guard(debug_state().lock);
  debug_state().holds.store(true);
  for_each_debugged([](Vcpu& vcpu, ThreadStop& stop) {
    set_debug_flags(vcpu, 0, kDebugTraps);
    stop.stays = false;
  });
}

void release_threads() {
  DebugState& state = debug_state();
  const HostLockGuard guard(state.lock);
  state.holds.store(false);
  for_each_debugged([&](Vcpu& vcpu, ThreadStop& stop) {
    set_debug_flags(vcpu, kDebugTraps, 0);
    let_go(vcpu, stop, Run::kContinue, stop.signal);
  });
  state.is_stopped = state.keeps_others = false;
}

bool is_fork(const ProgramFrame& frame) {
  if (frame.vector != kSystemCallVector) return false;
  switch (frame.error_code) {
    case __NR_fork:
    case __NR_vfork:
    case __NR_clone:
    case __NR_clone3:
      return true;
    default:
      return false;
  }
}

// A fork whose child is not announced yet (making.h), and may have a copy of the memory. While the
// program is stopped it has not ended, or it would be held.
bool prepares_child(const Vcpu& vcpu, const ThreadStop& stop) {
  const bool is_in_call = debug_state().is_stopped || vcpu.current_call.load() != kNoCall;
  return stop.held.load() == 0 && is_in_call && is_fork(program_frame(vcpu.index)) &&
         vcpu.making.child.load() == nullptr;
}

// A fork that was under way makes a child with breakpoints that is not there yet.
bool has_child_to_come() {
  for (const Vcpu& vcpu : vcpus()) {
    const ThreadStop& stop = debug_state().threads[vcpu.index];
    if (vcpu.is_busy() && stop.is_scrubbed) return true;
    if (stop.is_debugged && is_live(vcpu) && prepares_child(vcpu, stop)) return true;
  }
  return false;
}

}  // namespace

bool wait_until_at_rest(const Vcpu& vcpu, uint32_t timeout_ms) {
  const auto end = Clock::now() + std::chrono::milliseconds(timeout_ms);
  while (is_live(vcpu) && !is_at_rest(vcpu)) {
    if (Clock::now() > end) return false;
    pause();
  }
  return true;
}

void serve_last_children() {
  const auto end = Clock::now() + std::chrono::milliseconds(kPatienceAtDetach_ms);
  for (serve_children(); has_child_to_come() && Clock::now() < end; serve_children()) pause();
}

void enable_debugging(Vcpu& first, bool stop_first) {
  DebugState& state = debug_state();
  const int descriptor = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (descriptor < 0) throw StartError::with_errno("can't make a descriptor for debugging");
  state.event = keep_descriptor(descriptor);
  state.process = first.process;
  ThreadStop& stop = state.threads[first.index];
  stop.is_debugged = true;
  stop.is_first = stop_first;
  if (stop_first) set_debug_flags(first, 0, kDebugStopWanted);
  state.is_enabled.store(true);
}

std::string attach_debugger(const std::string& who) {
  DebugState& state = debug_state();
  if (!is_debugging_enabled()) return "this dbos-run was started without debugging";
  const uint32_t self = own_thread_id();
  uint32_t nobody = 0;
  if (!state.owner.compare_exchange_strong(nobody, self)) {
    return "another debugger is attached: " + attached_debugger();
  }
  const size_t length = who.copy(state.who.data(), state.who.size() - 1);
  state.who[length] = 0;
  state.end.reset();
  state.end_known.store(0);
  mark_threads();
  return {};
}

std::string attached_debugger() {
  return debug_state().owner.load() == 0 ? std::string() : std::string(debug_state().who.data());
}

void detach_debugger() {
  if (!is_attached()) return;
  DebugState& state = debug_state();
  if (!state.end) stop_all(kPatienceAtDetach_ms);
  serve_last_children();
  if (is_any_debugged() && !state.end) take_out_breakpoints(*state.process);
  {
    const HostLockGuard guard(state.lock);
    state.software.clear();
    const bool had_hardware = state.hardware != decltype(state.hardware){};
    state.hardware = {};
    if (had_hardware) ++state.hardware_version;
  }
  release_threads();
  release_agent();
  state.owner.store(0);
  state.end_known.store(1);
  futex_wake(state.end_known);
}

bool stop_all(uint32_t timeout_ms) {
  const auto end = Clock::now() + std::chrono::milliseconds(timeout_ms);
  while (!ask_all()) {
    if (Clock::now() > end) return false;
    pause();
  }
  return true;
}

bool is_stopped() {
  return debug_state().is_stopped;
}

void resume(std::span<const ThreadRun> threads, Run others) {
  DebugState& state = debug_state();
  Runs runs{threads, others, {}};
  if (!state.is_stopped) return;
  note_who_stays(runs);
  if (has_urgent_event() || step_over_breakpoints(runs)) return;
  const HostLockGuard guard(state.lock);
  state.is_stopped = false;
  state.keeps_others = others == Run::kStay;
  for_each_debugged([&](Vcpu& vcpu, ThreadStop& stop) {
    const ThreadRun run = runs.of(vcpu, stop);
    let_go(vcpu, stop, run.run, run.signal);
  });
}

int debug_event_descriptor() {
  return debug_state().event;
}

void clear_debug_event() {
  uint64_t count = 0;
  raw_call(__NR_read, static_cast<uint64_t>(debug_state().event),
           reinterpret_cast<uint64_t>(&count), sizeof count);
}

std::optional<StopEvent> take_event() {
  const HostLockGuard guard(debug_state().lock);
  std::optional<StopEvent> event;
  for_each_debugged([&](Vcpu& vcpu, ThreadStop& stop) {
    if (event || !is_to_be_told(stop)) return;
    stop.is_reported = true;
    event = StopEvent{vcpu.index, stop.cause, stop.signal, stop.address};
  });
  return event;
}

std::optional<ProcessEnd> process_end() {
  const HostLockGuard guard(debug_state().lock);
  return debug_state().end;
}

void serve_children() {
  for (const Vcpu& vcpu : vcpus()) {
    ThreadStop& stop = debug_state().threads[vcpu.index];
    if (!stop.is_scrubbed || stop.held.load() == 0) continue;
    const HostProcess* const process = vcpu.process;
    if (is_live(vcpu) && process != nullptr) take_out_breakpoints(*process);
    const HostLockGuard guard(debug_state().lock);
    stop.is_scrubbed = false;
    wake(stop);
  }
}

}  // namespace dbos::vmm
