#include "vmm/process/services.h"

#include <asm/mman.h>
#include <asm/unistd.h>
#include <linux/futex.h>
#include <linux/time_types.h>
#include <sys/mman.h>

#include <atomic>
#include <ctime>

#include "vmm/debug/crash_report.h"
#include "vmm/debug/gdb_server.h"
#include "vmm/debug/machine_report.h"
#include "vmm/debug/stop.h"
#include "vmm/exit_status.h"
#include "vmm/host/futex.h"
#include "vmm/host/host_call.h"
#include "vmm/kvm/kvm_api.h"
#include "vmm/log.h"
#include "vmm/machine/clock.h"
#include "vmm/machine/machine.h"
#include "vmm/machine/window.h"
#include "vmm/observe/trace_rings.h"
#include "vmm/process/attention.h"
#include "vmm/process/execute_program.h"
#include "vmm/process/helper.h"
#include "vmm/process/host_process.h"
#include "vmm/process/statistics.h"
#include "vmm/process/steward.h"
#include "vmm/process/thread_making.h"
#include "vmm/process/vcpu_thread.h"
#include "vmm/proxy/execute.h"

namespace dbos::vmm {
namespace {

constexpr uint64_t kLineMax = 1024;

// What the guest kernel has to say: what it refuses, and what it can't go on with.
int64_t log_of_guest(const Call& call, uint64_t severity) {
  static_assert(static_cast<LogLevel>(DBOS_LOG_ERROR) == LogLevel::kError);
  static_assert(static_cast<LogLevel>(DBOS_LOG_DEBUG) == LogLevel::kDebug);
  if (severity > DBOS_LOG_DEBUG) return -EINVAL;
  const uint64_t address = call.arguments[0];
  const uint64_t length = call.arguments[1];
  if (length > kLineMax || !machine().memory().is_plain(address, length)) return -EFAULT;
  write_log_line(static_cast<LogLevel>(severity), {reinterpret_cast<const char*>(address), length});
  return 0;
}

[[noreturn]] void guest_panic(Vcpu& vcpu, const Call& call) {
  log_of_guest(call, DBOS_LOG_ERROR);
  die_with_report(vcpu, "the guest kernel found a bug of its own");
}

// Where the process has the program's limits for a moment (execute_program.h), Linux refuses memory
// by these. That moment is as long as Linux keeps a thread in execve: nobody waits for long.
int64_t grow_arena(const Vcpu& vcpu, uint64_t index) {
  const int64_t result = machine().grow_arena(index);
  LentLimits& lent = vcpu.process->lent_limits;
  const bool is_by_limits = result == -ENOMEM && machine().may_have_chunk(index) &&
                            lent.were_lent.load() && !vcpu.is_adopted();
  if (!is_by_limits) return result;
  const uint64_t end = clock_ns(CLOCK_MONOTONIC) + kThreadMakingPatience_ns;
  while (clock_ns(CLOCK_MONOTONIC) < end) {
    sleep_for(HostLock::kPause_ns);
    const HostLockGuard guard(lent.lock);
    if (lent.users == 0) return machine().grow_arena(index);
  }
  return result;
}

// Frames go back to Linux: only whole pages of the arena, which nothing but the guest uses.
int64_t release_memory(const Call& call) {
  const uint64_t address = call.arguments[0];
  const uint64_t length = call.arguments[1];
  const bool is_arena = address >= kArenaBase && address % kPageSize == 0 &&
                        length % kPageSize == 0 && machine().memory().contains(address, length);
  if (!is_arena) return -EINVAL;
  return raw_call(__NR_madvise, address, length, MADV_DONTNEED);
}

// The kernel region's pages, which the vDSO is mapped from, are always there.
int64_t populate(uint64_t address, uint64_t length, bool write) {
  const bool is_kernel_region = address >= kKernelRegionBase &&
                                address < kKernelRegionBase + kKernelRegionSize &&
                                machine().memory().contains(address, length);
  return is_kernel_region ? 0 : machine().window().populate(address, length, write);
}

int64_t map_into_window(const Call& call) {
  const uint64_t* const a = call.arguments;
  const auto descriptor = static_cast<int>(a[0]);
  if (own_descriptors().is_ours(descriptor)) return -EBADF;
  return machine().window().map(descriptor, a[1], a[2], static_cast<int>(a[3]),
                                static_cast<int>(a[4]));
}

// The memory calls that Linux must see for a window range, and no other operation.
int64_t control_window(const Call& call) {
  const uint64_t address = call.arguments[0];
  const uint64_t length = call.arguments[1];
  const uint64_t number = call.arguments[2];
  const uint64_t argument = call.arguments[3];
  if (!machine().window().contains(address, length)) return -EINVAL;
  switch (number) {
    case __NR_msync:
    case __NR_mlock2:
      return raw_call(static_cast<long>(number), address, length, argument);
    case __NR_munlock:
      return raw_call(__NR_munlock, address, length);
    case __NR_madvise:
      if (argument == MADV_WILLNEED || argument == MADV_SEQUENTIAL || argument == MADV_RANDOM ||
          argument == MADV_NORMAL || argument == MADV_DONTNEED || argument == MADV_REMOVE) {
        return raw_call(__NR_madvise, address, length, argument);
      }
      return -EINVAL;
    case __NR_mincore:
      if (!machine().memory().contains(argument, length / kPageSize)) return -EFAULT;
      return raw_call(__NR_mincore, address, length, argument);
    default:
      return -EINVAL;
  }
}

int64_t park(Vcpu& vcpu, const Call& call) {
  const uint64_t until_ns = call.arguments[0];
  const bool realtime = call.arguments[1] == CLOCK_REALTIME;
  HypercallPage& page = *vcpu.page;
  const __kernel_timespec until = {static_cast<int64_t>(until_ns / 1'000'000'000),
                                   static_cast<int64_t>(until_ns % 1'000'000'000)};
  const uint64_t arguments[6] = {
      reinterpret_cast<uint64_t>(&page.park_word),
      FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG | (realtime ? FUTEX_CLOCK_REALTIME : 0u),
      0,
      until_ns == UINT64_MAX ? 0 : reinterpret_cast<uint64_t>(&until),
      0,
      FUTEX_BITSET_MATCH_ANY};
  int64_t result = 0;
  while (__atomic_load_n(&page.park_word, __ATOMIC_SEQ_CST) == 0) {
    result = host_call(&page.signal.number, __NR_futex, arguments);
    if (result != 0 && result != -EAGAIN) break;
    result = 0;
  }
  const bool woken = __atomic_exchange_n(&page.park_word, 0, __ATOMIC_SEQ_CST) != 0;
  return woken ? 0 : result;
}

int64_t refresh_guest_clock(const Vcpu& vcpu) {
  static std::atomic<bool> is_told{false};
  if (!refresh_clock(machine().has_host_tsc(vcpu))) {
    log_once(is_told, LogLevel::kWarning,
             "Linux finds the time stamp counter unstable by now, or the machine was suspended: "
             "each reading of the time costs a system call from now on");
  }
  return 0;
}

int64_t wake(const Call& call) {
  const uint64_t index = call.arguments[0];
  if (index >= vcpus().count()) return -EINVAL;
  uint32_t& word = vcpus().at(static_cast<uint32_t>(index)).page->park_word;
  __atomic_store_n(&word, 1, __ATOMIC_SEQ_CST);
  const int64_t result = futex_wake(word);
  return result < 0 ? result : 0;
}

// What Service::kDebugStop returns where nobody debugs: a signal is delivered as it is.
int64_t result_without_debugger(const Call& call) {
  const bool is_signal = call.arguments[0] == static_cast<uint64_t>(DebugCause::kSignal);
  return is_signal ? static_cast<int64_t>(call.arguments[1]) : kDebugPassed;
}

[[noreturn]] void exit_thread(Vcpu& vcpu, uint64_t status) {
  block_all_signals();
  give_back_signal(vcpu);
  if (vcpu.has_life()) vcpu.end_life(VcpuState::kIdle);  // not so where it was parked
  for (;;) raw_call(__NR_exit, status);
}

// What watches the program lives in the first process; a program that puts itself in the background
// goes on without.
void warn_of_those_that_go_on(const Vcpu& vcpu) {
  const HostProcess* const other = another_process(*vcpu.process);
  if (other == nullptr) return;
  log_line(LogLevel::kWarning,
           "the first process ended and process {} goes on: --metrics and dbos-dbg end "
           "with it; run the program in the foreground (redis: --daemonize no)",
           other->process_id);
}

// What remains to be done if it is the first. False: that failed.
bool end_first_process(const Vcpu& vcpu) {
  if (vcpu.process->parent != nullptr) return true;
  warn_of_those_that_go_on(vcpu);
  remove_gdb_socket();
  return write_statistics();
}

// One thread ends its process, as under Linux; others that come to it meanwhile (workers that fault
// together) wait for that.
void claim_end(HostProcess& process) {
  if ((process.ended_by_itself.fetch_or(kEnded) & kEnded) == 0) return;
  block_all_signals();
  for (;;) raw_call(__NR_pause);
}

[[noreturn]] void exit_process(Vcpu& vcpu, uint64_t status, bool released) {
  claim_end(*vcpu.process);
  if (released) {
    block_all_signals();
    vcpu.end_life(VcpuState::kIdle);
  }
  log_line(LogLevel::kDebug, "process {} ends with status {}", vcpu.process->process_id,
           status & 0xff);
  tell_process_end(vcpu, {false, static_cast<int>(status & 0xff)});
  const bool is_complete = end_first_process(vcpu);
  if (!is_complete && (status & 0xff) == 0) status = static_cast<uint64_t>(ExitStatus::kFailure);
  stop_thread_making(*vcpu.process);
  for (;;) raw_call(__NR_exit_group, status);
}

[[noreturn]] void end_by_signal(Vcpu& vcpu, int signal) {
  claim_end(*vcpu.process);
  log_line(LogLevel::kDebug, "process {} ends by signal {}", vcpu.process->process_id, signal);
  tell_process_end(vcpu, {true, signal});
  handle_crash(vcpu, signal);
  end_first_process(vcpu);
  stop_thread_making(*vcpu.process);
  die_by_signal(signal);
}

int64_t end_fork(uint32_t process_id) {
  return is_fork_of_ours(process_id) ? raw_call(__NR_kill, process_id, SIGKILL) : -ESRCH;
}

}  // namespace

int64_t execute_service(Vcpu& vcpu, const Call& call) {
  const auto service = static_cast<Service>(call.number);
  const uint64_t* const a = call.arguments;
  switch (service) {
    case Service::kLog:
      return log_of_guest(call, a[2]);
    case Service::kPanic:
      guest_panic(vcpu, call);
    case Service::kArenaGrow:
      return grow_arena(vcpu, a[0]);
    case Service::kMemoryRelease:
      return release_memory(call);
    case Service::kWindowMap:
      return map_into_window(call);
    case Service::kWindowDuplicate:
      return machine().window().duplicate(a[0], a[1]);
    case Service::kWindowAttach:
      return machine().window().attach(static_cast<int>(a[0]), a[1], static_cast<int>(a[2]));
    case Service::kWindowUnmap:
      return machine().window().unmap(a[0], a[1]);
    case Service::kWindowPopulate:
      return populate(a[0], a[1], a[2] != 0);
    case Service::kWindowControl:
      return control_window(call);
    case Service::kThreadCreate:
      return create_thread(vcpu, a[0], a[1]);
    case Service::kThreadExit:
      exit_thread(vcpu, a[0]);
    case Service::kProcessFork:
      return fork_process(vcpu, a[0], a[1], a[2], a[3]);
    case Service::kExecute:
      return execute_program(vcpu, call);
    case Service::kSignalAction:
      return signal_action(vcpu.process->signals, a[0], a[1], a[2]);
    case Service::kSignalMask:
      return signal_mask(vcpu, a[0]);
    case Service::kDie:
      if (a[0] == 0 || a[0] > DBOS_SIGNAL_COUNT) return -EINVAL;
      end_by_signal(vcpu, static_cast<int>(a[0]));
    case Service::kPark:
      return park(vcpu, call);
    case Service::kWake:
      return wake(call);
    case Service::kInterrupt:
      return interrupt_vcpu(vcpu, a[0]);
    case Service::kAttentionRegion:
      return set_attention_region(a[0], a[1], a[2]);
    case Service::kClockRefresh:
      return refresh_guest_clock(vcpu);
    case Service::kHelper:
      return request_helper(vcpu, a[0], a[1]);
    case Service::kYield:
      // Whoever only yields stays runnable, and so takes a processor from the lock's holder
      // (docs/decisions/0021).
      sleep_for(100'000);
      return 0;
    case Service::kTrace:
      print_trace(vcpu.index);
      return 0;
    case Service::kEndFork:
      return end_fork(static_cast<uint32_t>(a[0]));
    case Service::kExit:
      exit_process(vcpu, a[0], a[1] != 0);
    case Service::kDebugStop:
      return is_debugging_enabled() ? hold_for_debugger(vcpu, call) : result_without_debugger(call);
  }
  return -ENOSYS;
}

bool makes_child(const Call& call) {
  return is(call, Service::kThreadCreate) || is(call, Service::kProcessFork);
}

bool ends_thread(const Call& call) {
  return is(call, Service::kThreadExit) || (is(call, Service::kExit) && call.arguments[1] != 0);
}

}  // namespace dbos::vmm
