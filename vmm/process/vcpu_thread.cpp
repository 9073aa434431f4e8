#include "vmm/process/vcpu_thread.h"

#include <asm/unistd.h>
#include <linux/sched.h>
#include <sched.h>

#include <algorithm>
#include <cerrno>

#include "vmm/debug/machine_report.h"
#include "vmm/debug/stop.h"
#include "vmm/error.h"
#include "vmm/host/host_call.h"
#include "vmm/host/host_lock.h"
#include "vmm/kvm/kvm_api.h"
#include "vmm/log.h"
#include "vmm/machine/machine.h"
#include "vmm/process/allowed_calls.h"
#include "vmm/process/attention.h"
#include "vmm/process/death_signal.h"
#include "vmm/process/execute_program.h"
#include "vmm/process/exit_watch.h"
#include "vmm/process/handover.h"
#include "vmm/process/host_process.h"
#include "vmm/process/making.h"
#include "vmm/process/refused_instruction.h"
#include "vmm/process/service_thread.h"
#include "vmm/process/services.h"
#include "vmm/process/statistics.h"
#include "vmm/process/steward.h"
#include "vmm/process/thread_block.h"
#include "vmm/process/thread_reuse.h"
#include "vmm/process/tidy_up.h"
#include "vmm/proxy/execute.h"
#include "vmm/proxy/hide_descriptors.h"
#include "vmm/proxy/opened_files.h"

namespace dbos::vmm {
namespace {

constexpr int kMemoryAttemptsMax = 1000;  // a millisecond each

constexpr uint64_t kThreadFlags =
    CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM;

// What a turn of the run loop ends with; the last two only for an adopted vCPU.
enum class Next { kRun, kPause, kLeave };

// The guest may change the call while we check it. What is checked is what is made: the compiler
// may not read it again.
Call copy_of(const Call& call) {
  const Call copy = call;
  asm volatile("" ::: "memory");
  return copy;
}

int64_t perform(Vcpu& vcpu, const Call& call) {
  if (call.number >= kServiceBase && call.number - kServiceBase < kServiceCount) {
    ++vcpu.statistics->services[call.number - kServiceBase];
  } else {
    ++vcpu.statistics->system_calls;
  }
  if (call.flags != 0) return -EINVAL;
  const bool is_adopted = vcpu.is_adopted();
  if (is_adopted && makes_child(call)) return result_of_making(vcpu);
  if (!is_allowed(vcpu, call, machine().window())) return is_adopted ? -EINTR : -EPERM;
  if (call.number >= kServiceBase) return execute_service(vcpu, call);
  if (is_death_signal_call(vcpu, call)) return perform_death_signal_call(vcpu, call);
  note_thread_attributes(vcpu, call);
  const int64_t result = execute_call(machine().memory(), call, &vcpu.page->signal.number);
  keep_death_signal(*vcpu.process, call.number);
  return hide_own_descriptors(machine().memory(), call, refuse_opened_file(call, result));
}

Next make_calls(Vcpu& vcpu) {
  HypercallPage& page = *vcpu.page;
  const bool is_programs = vcpu.role.load() == Role::kProgram;
  if (is_programs) keep_steward(*vcpu.process);
  if (is_programs && vcpu.process->after_fork.load() != AfterFork::kNothing)
    tidy_up_after_fork(vcpu, copy_of(page.calls[0]));
  const uint32_t count =
      std::min<uint32_t>(__atomic_load_n(&page.call_count, __ATOMIC_RELAXED), kCallBatchMax);
  page.calls_done = 0;
  for (uint32_t i = 0; i < count; ++i) {
    const Call call = copy_of(page.calls[i]);
    if (vcpu.is_adopted() && ends_thread(call)) return Next::kLeave;
    if (is(call, Service::kThreadExit) && park_thread(vcpu)) return Next::kRun;
    vcpu.current_call.store(call.number, std::memory_order_relaxed);
    const int64_t result = perform(vcpu, call);
    vcpu.current_call.store(kNoCall, std::memory_order_relaxed);
    page.calls[i].result = result;
    page.calls_done = i + 1;
    end_making(vcpu);
    if (is_interrupted(result)) break;
    if (vcpu.is_adopted() && is(call, Service::kYield)) return Next::kPause;
  }
  return Next::kRun;
}

// A dead process's vCPU that can't run on, because its own crash ended the process: what it held is
// lost, and nobody else ends for it.
bool give_up_adopted(Vcpu& vcpu) {
  if (!vcpu.is_adopted()) return false;
  vcpu.state.store(VcpuState::kLost);
  return true;
}

ExitKind kind_of_exit(const Vcpu& vcpu, int64_t result) {
  if (result == -EFAULT) return ExitKind::kLostPage;
  if (result != 0 || vcpu.run->exit_reason == KVM_EXIT_INTR) return ExitKind::kInterrupted;
  if (vcpu.run->exit_reason != KVM_EXIT_IO) return ExitKind::kOther;
  const uint32_t number = vcpu.page->calls[0].number;
  if (number < kServiceBase) return ExitKind::kSystemCall;
  return is(number, Service::kPark) ? ExitKind::kPark : ExitKind::kService;
}

void handle_interrupted_run(Vcpu& vcpu) {
  vcpu.run->immediate_exit = 0;
  bring_into_kernel(vcpu);
}

Next handle_exit(Vcpu& vcpu) {
  switch (vcpu.run->exit_reason) {
    case KVM_EXIT_IO:
      if (vcpu.run->io.port == kHypercallPort) {
        leave_guest(vcpu);
        const Next next = make_calls(vcpu);
        enter_guest(vcpu);
        return next;
      }
      if (refuse_port(vcpu)) return Next::kRun;
      break;
    case KVM_EXIT_HLT:
      if (refuse_halt(vcpu)) return Next::kRun;
      break;
    case KVM_EXIT_INTR:
      handle_interrupted_run(vcpu);
      return Next::kRun;
    case KVM_EXIT_DEBUG:
      note_debug_exit(vcpu);
      return Next::kRun;
    default:
      break;
  }
  if (give_up_adopted(vcpu)) return Next::kLeave;
  die_with_report(vcpu, "the guest stopped in a way that the VMM does not know");
}

void start_thread(void* argument) {
  Vcpu& vcpu = *static_cast<Vcpu*>(argument);
  set_own_descriptors(*vcpu.process->descriptors);
  const uint32_t id = own_thread_id();
  vcpu.host_thread.store(id);
  if (vcpu.role.load() == Role::kHelper) begin_service_thread("dbos-helper");
  if (set_first_registers(vcpu) < 0) {
    die_with_report(vcpu, "KVM refused a virtual CPU's registers");
  }
  vcpu.page->thread_id = id;
  vcpu.page->process_id = own_process_id();
  if (vcpu.role.load() == Role::kProgram) begin_debugging(vcpu);
  set_signal_context(&vcpu);
  signal_mask(vcpu, vcpu.program_mask.load());
  run_vcpu(vcpu);
}

void start_process(void* argument) {
  Vcpu& vcpu = *static_cast<Vcpu*>(argument);
  vcpu.process->process_id = own_process_id();
  set_own_limits(*vcpu.process);
  inherit_descriptors(*vcpu.process);
  set_own_descriptors(*vcpu.process->descriptors);
  const bool is_of_the_first = vcpu.process->parent->parent == nullptr;
  if (is_of_the_first) {  // in others the numbers are free for other descriptors
    give_up_log_descriptor();
    give_up_statistics();
  }
  watch_parent(*vcpu.process);
  ring_steward();
  start_thread(argument);
}

// What a new thread has from its creator.
void prepare_start(Vcpu& vcpu, const Vcpu& creator, uint64_t start_argument, Birth birth) {
  prepare_debugging(vcpu, creator, birth);
  vcpu.program_mask.store(creator.program_mask.load());
  vcpu.page->start_argument = start_argument;
  vcpu.is_unset.store(1);
}

// A vCPU for a new thread of `process`; the creator's process has its descriptor.
Vcpu* acquire_vcpu(const Vcpu& creator, HostProcess& process, uint64_t start_argument, Birth birth,
                   Role role = Role::kProgram) {
  Vcpu* const vcpu = vcpus().acquire(*creator.process, &creator);
  if (vcpu == nullptr) return nullptr;
  begin_use(*vcpu, process, role);
  vcpu->page->process_id = 0;  // until it begins: the last user's is nobody's any more
  prepare_start(*vcpu, creator, start_argument, birth);
  return vcpu;
}

// Where the guest wants the new vCPU's index, if it does.
bool is_index_address(uint64_t address) {
  return address == 0 || (address % sizeof(uint32_t) == 0 &&
                          machine().memory().is_plain(address, sizeof(uint32_t)));
}

void store_index(const Vcpu& vcpu, uint64_t result_address) {
  if (result_address != 0) *reinterpret_cast<uint32_t*>(result_address) = vcpu.index;
}

// clone(2) for a prepared vCPU. Signals are blocked.
int64_t start_host_thread(Vcpu& creator, Vcpu& vcpu, uint64_t flags, ThreadEntry entry,
                          uint64_t result_address) {
  store_index(vcpu, result_address);
  begin_making(creator, vcpu, Making::Way::kClone);
  // Both before the thread is there: it may be gone again, and its vCPU another's, when clone comes
  // back. It replaces the first by its id.
  vcpu.host_thread.store(kThreadBeingMade);
  vcpu.begin_life();
  const int64_t result =
      clone_with_block(flags, *vcpu.block, creator.making.id, vcpu.host_thread, entry, &vcpu);
  if (result >= 0) return result;
  take_back(creator, vcpu);
  return result;
}

// A child that executes a program closes what it has too much.
int64_t start_host_process(Vcpu& creator, Vcpu& vcpu, uint64_t exit_signal, bool waits_for_exec,
                           uint64_t result_address) {
  const uint64_t flags = CLONE_VM | (exit_signal & 0xff);
  if (waits_for_exec) {
    return start_host_thread(creator, vcpu, flags | CLONE_VFORK, start_process, result_address);
  }
  const HostLockGuard guard(creator.process->moves);
  return start_host_thread(creator, vcpu, flags, start_process, result_address);
}

void pause_for_memory() {
  sleep_for(1'000'000);
}

// `result`: KVM_RUN's.
Next handle_run(Vcpu& vcpu, int64_t result) {
  if (result == 0) return handle_exit(vcpu);
  if (result == -EINTR || result == -EAGAIN) {
    handle_interrupted_run(vcpu);
    return Next::kRun;
  }
  if (result == -EFAULT) {
    // A page of a file mapping is no more: the guest kernel makes it SIGBUS. Or Linux has no memory
    // for a page of the guest's own, and may have some in a moment.
    pause_for_memory();
    machine().inject_exception(vcpu, kMachineCheckVector);
    return Next::kRun;
  }
  if (result == -ENOMEM && vcpu.is_adopted()) {
    pause_for_memory();
    return Next::kPause;
  }
  if (give_up_adopted(vcpu)) return Next::kLeave;
  die_with_report(vcpu, "KVM refused to run the guest", result);
}

// For getcpu, whose answer may be out of date when it comes in any case.
void note_processor(const Vcpu& vcpu) {
  unsigned processor = 0;
  unsigned node = 0;
  getcpu(&processor, &node);  // of the vDSO: no system call
  vcpu.page->processor = processor;
  vcpu.page->node = node;
}

// Where a cgroup refuses KVM memory for its tables, a page fault of Linux's own would wait for it.
// Whoever runs adopted vCPUs has others to run.
int64_t run_guest(const Vcpu& vcpu) {
  const int attempts_max = vcpu.is_adopted() ? 1 : kMemoryAttemptsMax;
  for (int attempt = 1;; ++attempt) {
    const int64_t result = kvm_call(vcpu.descriptor, KVM_RUN);
    if (result != -ENOMEM || attempt == attempts_max) return result;
    pause_for_memory();
  }
}

Next run_once(Vcpu& vcpu) {
  note_processor(vcpu);
  const int64_t result = run_guest(vcpu);
  ExitWatch watch(*vcpu.statistics, kind_of_exit(vcpu, result));
  const Next next = handle_run(vcpu, result);
  watch.finish();
  return next;
}

// A host thread of this process that waits for a new program thread. Result: its id; 0: none.
int64_t restart_parked_thread(Vcpu& creator, uint64_t start_argument, uint64_t result_address) {
  Vcpu* const vcpu = take_parked_thread(creator);
  if (vcpu == nullptr) return 0;
  begin_making(creator, *vcpu, Making::Way::kRestart);
  begin_use(*vcpu, *creator.process, Role::kProgram);
  prepare_start(*vcpu, creator, start_argument, Birth::kThread);
  store_index(*vcpu, result_address);
  const int64_t id = vcpu->host_thread.load();
  vcpu->begin_life();
  wake_parked_thread(*vcpu);
  return id;
}

int64_t make_process(Vcpu& creator, uint64_t start_argument, uint64_t exit_signal,
                     bool waits_for_exec, uint64_t result_address) {
  const AllSignalsBlocked blocked;
  HostProcess* const process = acquire_process(&creator);
  if (process == nullptr) return -EAGAIN;
  const Birth birth = waits_for_exec ? Birth::kSharingProcess : Birth::kProcess;
  Vcpu* const vcpu = acquire_vcpu(creator, *process, start_argument, birth);
  if (vcpu == nullptr) {
    process->record.store(RecordState::kFree);
    return -EAGAIN;
  }
  process->record.store(RecordState::kLive);
  process->fork_sequence = vcpus().next_sequence();
  return start_host_process(creator, *vcpu, exit_signal, waits_for_exec, result_address);
}

}  // namespace

void begin_use(Vcpu& vcpu, HostProcess& process, Role role) {
  vcpu.process = &process;
  vcpu.dispositions = &process.signals;
  vcpu.was_run = true;
  vcpu.role.store(role);
  // No thread of the program's is to have the rights of another.
  vcpu.keeps_thread.store(role == Role::kProgram ? 1 : 0);
  vcpu.has_forked.store(0);
  vcpu.current_call.store(kNoCall);
  vcpu.making.child.store(nullptr);
  vcpu.page->dying = 0;
  vcpu.page->park_word = 0;
  vcpu.page->signal.number = 0;
  vcpu.page->attention = 0;
  vcpu.run->immediate_exit = 0;
  reset_signal_64(vcpu);
}

int64_t set_first_registers(Vcpu& vcpu) {
  const int64_t result = machine().reset_vcpu(vcpu, vcpu.page->start_argument);
  if (result >= 0) vcpu.is_unset.store(0);
  return result;
}

void run_vcpu(Vcpu& vcpu) {
  enter_guest(vcpu);
  for (;;) run_once(vcpu);
}

Adopted run_adopted(Vcpu& vcpu) {
  enter_guest(vcpu);
  for (;;) {
    const Next next = run_once(vcpu);
    if (next != Next::kRun) return next == Next::kLeave ? Adopted::kReleased : Adopted::kWaits;
  }
}

int64_t create_thread(Vcpu& creator, uint64_t start_argument, uint64_t result_address) {
  if (start_argument == 0) return -EINVAL;
  if (!is_index_address(result_address)) return -EFAULT;
  const int64_t restarted = restart_parked_thread(creator, start_argument, result_address);
  if (restarted != 0) return restarted;
  const AllSignalsBlocked blocked;
  Vcpu* const vcpu = acquire_vcpu(creator, *creator.process, start_argument, Birth::kThread);
  if (vcpu == nullptr) return -EAGAIN;
  return start_host_thread(creator, *vcpu, kThreadFlags, start_thread, result_address);
}

int64_t create_helper_thread(Vcpu& creator, uint64_t start_argument) {
  const AllSignalsBlocked blocked;
  Vcpu* const vcpu =
      acquire_vcpu(creator, *creator.process, start_argument, Birth::kThread, Role::kHelper);
  if (vcpu == nullptr) return -EAGAIN;
  vcpu->program_mask.store(~uint64_t{0});
  const int64_t result = start_host_thread(creator, *vcpu, kThreadFlags, start_thread, 0);
  end_making(creator);
  return result < 0 ? result : 0;
}

int64_t fork_process(Vcpu& creator, uint64_t start_argument, uint64_t exit_signal, uint64_t flags,
                     uint64_t result_address) {
  if (start_argument == 0 || (flags & ~kForkWaitForExec) != 0) return -EINVAL;
  if (!is_index_address(result_address)) return -EFAULT;
  const bool waits_for_exec = (flags & kForkWaitForExec) != 0;
  const int64_t result =
      make_process(creator, start_argument, exit_signal, waits_for_exec, result_address);
  if (result < 0) return result;
  creator.has_forked.store(1);
  log_line(LogLevel::kDebug, "process {} made process {}{}", creator.process->process_id, result,
           waits_for_exec ? ", which shares its memory" : "");
  if (waits_for_exec) {
    reap_ended_threads(*creator.process);
  } else {
    creator.process->after_fork.store(AfterFork::kForked);
  }
  return result;
}

Vcpu& adopt_first_thread() {
  make_vcpu_pool();
  // Under a seccomp profile that forbids this, every holder of a HostLock would look dead.
  if (!shares_our_memory(own_thread_id())) {
    throw StartError(
        "the system call process_vm_readv is refused here, probably by a container's seccomp "
        "profile (Podman's and CRI-O's want --cap-add SYS_PTRACE): dbos-run needs it to tell which "
        "of its processes live");
  }
  HostProcess* const process = acquire_process(nullptr);
  process->process_id = own_process_id();
  if (const int64_t result = open_handover(); result < 0) {
    throw StartError::with_code(static_cast<int>(-result),
                                "Linux gives no socket for virtual CPUs");
  }
  Vcpu* const vcpu = vcpus().acquire(*process, nullptr);
  if (vcpu == nullptr) {
    throw StartError::with_code(static_cast<int>(-vcpus().failure()), "can't make a virtual CPU");
  }
  if (const int64_t result = machine().reset_vcpu(*vcpu, 0); result < 0) {
    throw StartError::with_code(static_cast<int>(-result), "KVM can't set up a virtual CPU");
  }
  vcpus().prepare(*process, kReadyAtStart, nullptr);
  vcpu->state.store(VcpuState::kBusy);
  begin_use(*vcpu, *process, Role::kProgram);
  process->record.store(RecordState::kLive);
  vcpu->page->process_id = process->process_id;
  vcpu->page->thread_id = process->process_id;
  vcpu->host_thread.store(process->process_id);
  vcpu->begin_life();
  raw_call(__NR_set_tid_address, reinterpret_cast<uint64_t>(&vcpu->host_thread));
  set_signal_context(vcpu);
  return *vcpu;
}

}  // namespace dbos::vmm
