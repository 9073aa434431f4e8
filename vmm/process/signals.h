// The program's signals on the host side.
//
// The host thread of a vCPU carries the program's own signal mask, and Linux's own dispositions for
// what the program leaves at default or ignores. So Linux chooses the thread, keeps signals
// pending, stops, continues and kills as ever. Only a signal that the program catches comes here:
// one handler takes it, stores it in the vCPU's hypercall page and gets the guest kernel to look
// (abi.h).
//
// While a stored signal waits for the guest, every signal of that thread is blocked, so one slot is
// enough. Signal 64 is the exception: the VMM uses it as parent-death notice and to interrupt vCPUs
// (attention.h), and leaves it open while the guest runs; one that is the program's and comes at a
// bad time is kept, and Linux has it while the thread makes host calls.
//
// No locks: a handler may run at any instruction, and SIGKILL may end a process at any instruction
// whose memory others share.
#pragma once

#include <csignal>

#include <atomic>
#include <cstdint>

#include "hypercall/abi.h"
#include "vmm/host/signal_mask.h"

namespace dbos::vmm {

// What the program chose, one per host process. A process made by fork gets a copy of its parent's.
struct ProcessSignals {
  std::atomic<SignalDisposition> disposition[kSignalCount + 1];  // [0] unused

  void copy_from(const ProcessSignals& other);
};

// What the handler needs to know of the vCPU that its thread runs.
struct SignalContext {
  HypercallPage* page = nullptr;
  uint8_t* immediate_exit = nullptr;       // kvm_run's field
  ProcessSignals* dispositions = nullptr;  // of the process that the thread belongs to
  std::atomic<uint64_t> program_mask{0};   // the last one of Service::kSignalMask
  // See attention.h.
  std::atomic<uint32_t> runs_guest{0};
  std::atomic<uint32_t> kicks_sent{0};
  std::atomic<uint32_t> kicks_received{0};
  // A signal 64 of the program's own that came while the guest ran and could not have it yet.
  std::atomic<uint32_t> has_kept{0};
  siginfo_t kept = {};
  // The host thread blocks 64, so that Linux keeps such a one pending.
  std::atomic<uint32_t> blocks_kicks{0};
};

// What this process inherited from its parent: bit n - 1 is signal n.
struct InheritedSignals {
  uint64_t ignored;
  uint64_t blocked;
};

// Looks at a signal 64. True: it was the VMM's own notice, and was dealt with. False: it is the
// program's. Async-signal-safe.
using ParentDeathHook = bool (*)(const siginfo_t& info);

// First thing in main(), before any thread: the dispositions and the mask as inherited.
InheritedSignals inherited_signals();

// Fills `process` from what was inherited and installs the VMM's own handlers: those of faults in
// its own code, and of signal 64.
void install_handlers(ProcessSignals& process, uint64_t inherited_ignored);
// Before install_handlers(): of these signals (bit n - 1) the guest performs the default action
// too, instead of Linux, so that a debugger and the crash report see what the program dies by.
void take_default_actions(uint64_t signals);
void set_parent_death_hook(ParentDeathHook hook);
// Of a signal 64 that the calling thread has taken from Linux, in the handler or by a wait for it
// (proxy/execute.h): whether it was a kick or a notice, which is dealt with. Async-signal-safe.
bool take_own_signal(const siginfo_t& info);

// Names the context of the calling host thread. It must be in place before the thread unblocks
// anything; threads are made with all signals blocked.
void set_signal_context(SignalContext* context);

// Blocks everything in the calling thread: for helper threads, which take no signals, and around
// the creation of a thread or process. Returns the mask before.
uint64_t block_all_signals();
void set_own_mask(uint64_t mask);

// ... for as long as this lives.
class AllSignalsBlocked {
 public:
  AllSignalsBlocked() : before_(block_all_signals()) {}
  ~AllSignalsBlocked() { set_own_mask(before_); }
  AllSignalsBlocked(const AllSignalsBlocked&) = delete;
  AllSignalsBlocked& operator=(const AllSignalsBlocked&) = delete;

 private:
  const uint64_t before_;
};

// As long as this lives, the calling thread's signal 64 is blocked or ignored if the program has it
// so: what it executes inherits that. While it is ignored no kick comes, and no notice, so it is
// ignored only for a process's only thread.
class OwnSignalAsChosen {
 public:
  OwnSignalAsChosen(const SignalContext& context, bool is_only_thread);
  ~OwnSignalAsChosen();
  OwnSignalAsChosen(const OwnSignalAsChosen&) = delete;
  OwnSignalAsChosen& operator=(const OwnSignalAsChosen&) = delete;

 private:
  const bool blocks_;
  const bool ignores_;
};

// Service::kSignalAction, kSignalMask, kDie. `signal_mask` returns kNotStarted, with nothing
// changed, when a signal waits in the hypercall page.
int64_t signal_action(ProcessSignals& process, uint64_t signal, uint64_t disposition,
                      uint64_t flags);
int64_t signal_mask(SignalContext& context, uint64_t mask);
[[noreturn]] void die_by_signal(int signal);

// Sends a signal to this process, for whichever thread takes it, with `info` as far as Linux allows
// that. Async-signal-safe.
void send_to_process(int signal, siginfo_t info);
// By the thread of `context`, which blocks all signals and ends: another thread gets what came for
// the process and was not taken by the guest, as of Linux (kernel/signal.c: exit_signals). What
// tkill or tgkill sent ends with its thread.
void give_back_signal(SignalContext& context);

// By the thread of `context`: forgets what the one before left.
void reset_signal_64(SignalContext& context);
// Waits for the kicks that were sent before runs_guest became 0, and gives Linux back what was
// kept: a host call, such as sigtimedwait, may ask for it.
void take_last_kicks(SignalContext& context);
// Before the guest runs, and with runs_guest set: kicks can come.
void listen_to_kicks(SignalContext& context);

// Takes a thread of this process out of KVM_RUN (attention.h); its kicks_received counts it.
// -errno.
int64_t send_kick(uint32_t process, uint32_t thread);

}  // namespace dbos::vmm
