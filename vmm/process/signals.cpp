#include "vmm/process/signals.h"

#include <asm/unistd.h>
#include <ucontext.h>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "vmm/host/host_call.h"
#include "vmm/host/signal_mask.h"
#include "vmm/log.h"

// Labels in host_call.S.
extern "C" {
extern const char dbos_host_call_check[];
extern const char dbos_host_call_end[];
extern const char dbos_host_call_not_started[];
extern const char dbos_host_call_interrupted[];
extern const char dbos_host_call_again[];
void dbos_signal_restorer();
}

namespace dbos::vmm {

namespace {

// struct sigaction of the system call: libc's own keeps signals 32 and 33 for itself, but they are
// the program's libc's here.
struct KernelAction {
  uint64_t handler;
  uint64_t flags;
  uint64_t restorer;
  uint64_t mask;
};
constexpr uint64_t kRestorerFlag = 0x04000000;
constexpr uint64_t kChildFlags = SA_NOCLDSTOP | SA_NOCLDWAIT;

constexpr uint64_t kNeverBlocked = signal_bit(SIGKILL) | signal_bit(SIGSTOP);
constexpr uint64_t kFullMask = ~(kNeverBlocked | signal_bit(kParentDeathSignal));
constexpr uint64_t kFaultSignals =
    signal_bit(SIGSEGV) | signal_bit(SIGBUS) | signal_bit(SIGILL) | signal_bit(SIGFPE);
// Of these the VMM's handler stays installed when the program wants the default.
constexpr uint64_t kOwnSignals = kFaultSignals | signal_bit(kParentDeathSignal);

// Initial-exec: no allocation and no lock on first use, as a handler needs it.
[[gnu::tls_model("initial-exec")]] thread_local SignalContext* current_context = nullptr;

std::atomic<ParentDeathHook> parent_death_hook{nullptr};
uint64_t guest_defaults = 0;  // take_default_actions(); set before there are threads

bool stays_installed(int signal) {
  return ((kOwnSignals | guest_defaults) & signal_bit(signal)) != 0;
}

int64_t raw_action(int signal, const KernelAction* action, KernelAction* old) {
  return raw_call(__NR_rt_sigaction, static_cast<uint64_t>(signal),
                  reinterpret_cast<uint64_t>(action), reinterpret_cast<uint64_t>(old), 8);
}

int64_t install_plain(int signal, sighandler_t handler, uint64_t flags = 0) {
  const KernelAction action{reinterpret_cast<uint64_t>(handler), flags, 0, 0};
  return raw_action(signal, &action, nullptr);
}

void set_default(int signal) {
  install_plain(signal, SIG_DFL);
}

// Sends a signal that was taken from Linux back to this thread.
void send_to_this_thread(int signal, const siginfo_t& info) {
  const uint32_t process = own_process_id();
  const uint32_t thread = own_thread_id();
  raw_call(__NR_rt_tgsigqueueinfo, process, thread, static_cast<uint64_t>(signal),
           reinterpret_cast<uint64_t>(&info));
}

[[gnu::cold]] void report_own_fault(int signal, const siginfo_t* info, const ucontext_t* context) {
  char line[192];
  const int length = snprintf(
      line, sizeof line,
      "dbos-run: signal %d (code %d) in the VMM itself at instruction %#llx, address %#llx: "
      "a bug of dbos-run, please report it\n",
      signal, info->si_code, static_cast<unsigned long long>(context->uc_mcontext.gregs[REG_RIP]),
      static_cast<unsigned long long>(reinterpret_cast<uintptr_t>(info->si_addr)));
  if (length > 0) write_to_log({line, static_cast<size_t>(length)});
}

// Whether the processor raised it in the VMM. One that was queued may claim any code and address:
// crash handlers send theirs to themselves again, and F_SETSIG chooses any signal. A thread's trap
// number is 0 until its first fault, which is its last; a division error's is 0, too.
bool is_own_fault(int signal, const siginfo_t& info, const ucontext_t& context) {
  constexpr greg_t kDivision = 0, kPageFault = 14, kAlignmentCheck = 17;
  if ((kFaultSignals & signal_bit(signal)) == 0 || info.si_code <= 0) return false;
  const greg_t* const registers = context.uc_mcontext.gregs;
  const auto address = static_cast<greg_t>(reinterpret_cast<uintptr_t>(info.si_addr));
  switch (registers[REG_TRAPNO]) {
    case kDivision:
      return signal == SIGFPE && address == registers[REG_RIP];
    case kPageFault:
      return address == registers[REG_CR2];
    case kAlignmentCheck:  // a split lock of the guest's, which KVM reports so (split_lock_detect)
      return false;
    default:
      return true;
  }
}

uint64_t& mask_of(ucontext_t* context) {
  return *reinterpret_cast<uint64_t*>(&context->uc_sigmask);
}

// A host call that has not begun, or that Linux would restart, ends here and now.
void leave_host_call(ucontext_t* context) {
  greg_t* registers = context->uc_mcontext.gregs;
  const auto instruction = static_cast<uintptr_t>(registers[REG_RIP]);
  const auto end = reinterpret_cast<uintptr_t>(dbos_host_call_end);
  if (instruction < reinterpret_cast<uintptr_t>(dbos_host_call_check) || instruction >= end) return;
  const bool restarted = static_cast<uintptr_t>(registers[REG_RCX]) == end;
  registers[REG_RIP] = static_cast<greg_t>(reinterpret_cast<uintptr_t>(
      restarted ? dbos_host_call_interrupted : dbos_host_call_not_started));
}

void store_for_guest(SignalContext& vcpu, int signal, const siginfo_t* info, ucontext_t* context) {
  PendingSignal& slot = vcpu.page->signal;
  static_assert(sizeof slot.info == sizeof(siginfo_t));
  memcpy(slot.info, info, sizeof slot.info);
  std::atomic_signal_fence(std::memory_order_seq_cst);
  *static_cast<volatile uint32_t*>(&slot.number) = static_cast<uint32_t>(signal);
  __atomic_store_n(&vcpu.page->attention, 1, __ATOMIC_SEQ_CST);
  *static_cast<volatile uint8_t*>(vcpu.immediate_exit) = 1;
  mask_of(context) = kFullMask;
  leave_host_call(context);
}

// Whether Linux delivers another signal to this thread when the handler returns.
bool is_another_pending(ucontext_t* context) {
  return (pending_signals() & ~mask_of(context)) != 0;
}

// The signal was none of the program's. What Linux restarts after a handler goes on; what it never
// does has ended with EINTR, and who made it makes it again.
void make_host_call_again(const SignalContext& vcpu, ucontext_t* context) {
  greg_t* registers = context->uc_mcontext.gregs;
  const auto end = static_cast<greg_t>(reinterpret_cast<uintptr_t>(dbos_host_call_end));
  const bool has_ended =
      registers[REG_RIP] == end && registers[REG_RCX] == end && registers[REG_RAX] == -EINTR;
  if (!has_ended || vcpu.page->signal.number != 0 || is_another_pending(context)) return;
  registers[REG_RIP] = static_cast<greg_t>(reinterpret_cast<uintptr_t>(dbos_host_call_again));
}

// What tells a kick from a signal 64 of the program.
const char kick_mark = 0;

bool take_kick(SignalContext& vcpu, const siginfo_t& info) {
  if (info.si_code != SI_QUEUE || info.si_value.sival_ptr != &kick_mark) return false;
  *static_cast<volatile uint8_t*>(vcpu.immediate_exit) = 1;
  vcpu.kicks_received.fetch_add(1);
  return true;
}

// Signal 64, which the program can't have now. Blocked, it would stay with Linux, but no kick would
// take the thread out of KVM_RUN then; a second one is blocked all the same.
void keep_for_later(SignalContext& vcpu, const siginfo_t& info, ucontext_t* context) {
  if (vcpu.runs_guest.load() != 0 && vcpu.has_kept.load() == 0) {
    vcpu.kept = info;
    vcpu.has_kept.store(1);
    return;
  }
  mask_of(context) |= signal_bit(kParentDeathSignal);
  vcpu.blocks_kicks.store(1);
  send_to_this_thread(kParentDeathSignal, info);
}

// Whoever sends a kick may be killed, or stopped, before it does or takes its count back. One that
// comes late is counted ahead.
constexpr int kTurnsBeforeLost = 1000;

int32_t missing_kicks(const SignalContext& context) {
  return static_cast<int32_t>(context.kicks_sent.load() - context.kicks_received.load());
}

// missing_kicks() is the kicks under way less those that were written off. Below 0, one that was
// written off has come after all: that is undone, or the next kick would not be waited for. Only
// this thread writes off, so it stays below 0 meanwhile, whatever senders and the handler do.
void take_back_write_offs(SignalContext& context) {
  while (missing_kicks(context) < 0) context.kicks_received.fetch_sub(1);
}

void handle_signal(int signal, siginfo_t* info, void* opaque) {
  auto* context = static_cast<ucontext_t*>(opaque);
  SignalContext* vcpu = current_context;

  if (is_own_fault(signal, *info, *context)) {
    report_own_fault(signal, info, context);
    set_default(signal);
    return;  // the instruction faults again and ends the process
  }
  if (signal == kParentDeathSignal && take_own_signal(*info)) {
    if (vcpu != nullptr) make_host_call_again(*vcpu, context);
    return;
  }
  if (vcpu == nullptr) {
    // A thread without a vCPU takes no signals: another one shall have it.
    mask_of(context) = ~kNeverBlocked;
    send_to_process(signal, *info);
    return;
  }
  // Only signal 64 can come while the slot is taken or while the program blocks it.
  const bool blocked =
      (vcpu->program_mask.load(std::memory_order_relaxed) & signal_bit(signal)) != 0;
  const SignalDisposition disposition =
      vcpu->dispositions->disposition[signal].load(std::memory_order_relaxed);
  const bool comes_too_early = vcpu->page->signal.number != 0 || blocked;
  if (signal == kParentDeathSignal && comes_too_early &&
      disposition != SignalDisposition::kIgnore) {
    keep_for_later(*vcpu, *info, context);
    return;
  }
  switch (disposition) {
    case SignalDisposition::kIgnore:
      return;
    case SignalDisposition::kDefault:
      if ((kOwnSignals & ~guest_defaults & signal_bit(signal)) != 0) {
        set_default(signal);
        send_to_this_thread(signal, *info);
        return;
      }
      break;  // or it changed after Linux chose this handler: the guest performs the default
    case SignalDisposition::kCatch:
      break;
  }
  store_for_guest(*vcpu, signal, info, context);
}

int64_t install(int signal, uint64_t child_flags) {
  const KernelAction action{
      .handler = reinterpret_cast<uint64_t>(handle_signal),
      .flags = SA_SIGINFO | SA_RESTART | kRestorerFlag | child_flags,
      .restorer = reinterpret_cast<uint64_t>(dbos_signal_restorer),
      .mask = ~uint64_t{0},
  };
  return raw_action(signal, &action, nullptr);
}

}  // namespace

void ProcessSignals::copy_from(const ProcessSignals& other) {
  for (uint32_t i = 0; i <= kSignalCount; i++) {
    disposition[i].store(other.disposition[i].load(std::memory_order_relaxed),
                         std::memory_order_relaxed);
  }
}

InheritedSignals inherited_signals() {
  InheritedSignals inherited{};
  for (int signal = 1; signal <= static_cast<int>(kSignalCount); signal++) {
    KernelAction action{};
    if (raw_action(signal, nullptr, &action) == 0 &&
        action.handler == reinterpret_cast<uint64_t>(SIG_IGN))
      inherited.ignored |= signal_bit(signal);
  }
  raw_call(__NR_rt_sigprocmask, SIG_SETMASK, 0, reinterpret_cast<uint64_t>(&inherited.blocked), 8);
  return inherited;
}

void install_handlers(ProcessSignals& process, uint64_t inherited_ignored) {
  for (int signal = 1; signal <= static_cast<int>(kSignalCount); signal++) {
    const bool ignored = (inherited_ignored & signal_bit(signal)) != 0;
    process.disposition[signal].store(
        ignored ? SignalDisposition::kIgnore : SignalDisposition::kDefault,
        std::memory_order_relaxed);
    const bool keep_ignored = ignored && signal != kParentDeathSignal;
    if (stays_installed(signal) && !keep_ignored) install(signal, 0);
  }
}

void take_default_actions(uint64_t signals) {
  guest_defaults = signals;
}

void set_parent_death_hook(ParentDeathHook hook) {
  parent_death_hook.store(hook, std::memory_order_relaxed);
}

bool take_own_signal(const siginfo_t& info) {
  SignalContext* const vcpu = current_context;
  if (vcpu != nullptr && take_kick(*vcpu, info)) return true;
  const ParentDeathHook hook = parent_death_hook.load(std::memory_order_relaxed);
  return hook != nullptr && hook(info);
}

void set_signal_context(SignalContext* context) {
  current_context = context;
  std::atomic_signal_fence(std::memory_order_seq_cst);
}

uint64_t block_all_signals() {
  return change_signal_mask(SIG_SETMASK, ~uint64_t{0});
}

void set_own_mask(uint64_t mask) {
  change_signal_mask(SIG_SETMASK, mask);
}

OwnSignalAsChosen::OwnSignalAsChosen(const SignalContext& context, bool is_only_thread)
    : blocks_((context.program_mask.load() & ~change_signal_mask(SIG_BLOCK, 0) &
               signal_bit(kParentDeathSignal)) != 0),
      ignores_(is_only_thread && context.dispositions->disposition[kParentDeathSignal].load() ==
                                     SignalDisposition::kIgnore) {
  if (blocks_) change_signal_mask(SIG_BLOCK, signal_bit(kParentDeathSignal));
  if (ignores_) install_plain(kParentDeathSignal, SIG_IGN);
}

// The others stay as they are: with a signal for the guest that came meanwhile, all are blocked.
OwnSignalAsChosen::~OwnSignalAsChosen() {
  if (ignores_) install(kParentDeathSignal, 0);
  if (blocks_) change_signal_mask(SIG_UNBLOCK, signal_bit(kParentDeathSignal));
}

int64_t signal_action(ProcessSignals& process, uint64_t signal, uint64_t disposition,
                      uint64_t flags) {
  if (signal < 1 || signal > kSignalCount) return -EINVAL;
  const int number = static_cast<int>(signal);
  if ((kNeverBlocked & signal_bit(number)) != 0) return -EINVAL;
  const uint64_t child_flags = flags & kChildFlags;
  const bool own = stays_installed(number);
  switch (static_cast<SignalDisposition>(disposition)) {
    case SignalDisposition::kDefault:
    case SignalDisposition::kIgnore: {
      const bool ignore = static_cast<SignalDisposition>(disposition) == SignalDisposition::kIgnore;
      process.disposition[number].store(static_cast<SignalDisposition>(disposition),
                                        std::memory_order_relaxed);
      if (own && (!ignore || number == kParentDeathSignal)) return install(number, child_flags);
      return install_plain(number, ignore ? SIG_IGN : SIG_DFL, child_flags);
    }
    case SignalDisposition::kCatch:
      process.disposition[number].store(SignalDisposition::kCatch, std::memory_order_relaxed);
      return install(number, child_flags);
  }
  return -EINVAL;
}

int64_t signal_mask(SignalContext& context, uint64_t mask) {
  const uint64_t before = context.program_mask.load(std::memory_order_relaxed);
  context.program_mask.store(mask, std::memory_order_relaxed);
  const uint64_t host_mask = mask & kFullMask;
  const uint64_t arguments[6] = {SIG_SETMASK, reinterpret_cast<uint64_t>(&host_mask), 0, 8, 0, 0};
  const int64_t result = host_call(&context.page->signal.number, __NR_rt_sigprocmask, arguments);
  if (result < 0) context.program_mask.store(before, std::memory_order_relaxed);
  return result;
}

void die_by_signal(int signal) {
  change_signal_mask(SIG_SETMASK, ~uint64_t{0});
  set_default(signal);
  const uint32_t process = own_process_id();
  const uint32_t thread = own_thread_id();
  raw_call(__NR_tgkill, process, thread, static_cast<uint64_t>(signal));
  change_signal_mask(SIG_SETMASK, ~signal_bit(signal));
  // Not reached with a signal that ends a process; nothing else must run on in its place.
  raw_call(__NR_exit_group, 128 + static_cast<uint64_t>(signal));
  __builtin_unreachable();
}

// Linux lets only the first thread queue what looks like kill(2)'s or the kernel's. From the others
// it comes as sigqueue(3) sends it, with the same sender and value; kill(2) needs no room in the
// queue.
void send_to_process(int signal, siginfo_t info) {
  const uint32_t process = own_process_id();
  const auto number = static_cast<uint64_t>(signal);
  const auto address = reinterpret_cast<uint64_t>(&info);
  if (raw_call(__NR_rt_sigqueueinfo, process, number, address) >= 0) return;
  info.si_code = SI_QUEUE;
  if (raw_call(__NR_rt_sigqueueinfo, process, number, address) >= 0) return;
  raw_call(__NR_kill, process, number);
}

void give_back_signal(SignalContext& context) {
  PendingSignal& slot = context.page->signal;
  const uint32_t number = slot.number;
  if (number == 0) return;
  siginfo_t info;
  memcpy(&info, slot.info, sizeof info);
  slot.number = 0;
  if (info.si_code != SI_TKILL) send_to_process(static_cast<int>(number), info);
}

void reset_signal_64(SignalContext& context) {
  context.has_kept.store(0);
  context.blocks_kicks.store(0);
}

void take_last_kicks(SignalContext& context) {
  for (int turn = 0; missing_kicks(context) > 0; ++turn) {
    listen_to_kicks(context);
    raw_call(__NR_sched_yield);
    // That signal 64 is pending says nothing: it may be the program's, which is always sent again.
    if (turn >= kTurnsBeforeLost) context.kicks_received.fetch_add(1);
  }
  take_back_write_offs(context);
  if (context.has_kept.load() == 0) return;
  change_signal_mask(SIG_BLOCK, signal_bit(kParentDeathSignal));
  context.blocks_kicks.store(1);
  context.has_kept.store(0);
  send_to_this_thread(kParentDeathSignal, context.kept);
}

void listen_to_kicks(SignalContext& context) {
  take_back_write_offs(context);
  if (context.blocks_kicks.load() == 0) return;
  context.blocks_kicks.store(0);
  change_signal_mask(SIG_UNBLOCK, signal_bit(kParentDeathSignal));
}

int64_t send_kick(uint32_t process, uint32_t thread) {
  siginfo_t info = {};
  info.si_signo = kParentDeathSignal;
  info.si_code = SI_QUEUE;
  info.si_value.sival_ptr = const_cast<char*>(&kick_mark);
  return raw_call(__NR_rt_tgsigqueueinfo, process, thread, kParentDeathSignal,
                  reinterpret_cast<uint64_t>(&info));
}

}  // namespace dbos::vmm
