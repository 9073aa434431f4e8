// clone(2) in its three forms: a thread, a process with a copy of the memory, and a process that
// shares the memory (vfork, posix_spawn). Others do not occur in databases; they are refused, and
// the log says so.
//
// What the child needs travels in a ThreadStart: the child takes it over when it begins, and frees
// it.
#include "guest/process/clone.h"

#include <asm/unistd_64.h>
#include <linux/sched.h>

#include <atomic>
#include <new>

#include "guest/arch/cpu.h"
#include "guest/arch/trap.h"
#include "guest/hypercall.h"
#include "guest/lib/log.h"
#include "guest/memory/address_space.h"
#include "guest/memory/frame_allocator.h"
#include "guest/memory/user_copy.h"
#include "guest/process/extended_state.h"
#include "guest/process/helper.h"
#include "guest/process/process_table.h"
#include "guest/process/signal.h"
#include "guest/process/signal_actions.h"

namespace dbos {
namespace {

struct CloneRequest {
  u64 flags;  // CLONE_..., without the exit signal
  u64 exit_signal;
  u64 stack;  // 0: the parent's
  VirtualAddress parent_id;
  VirtualAddress child_id;
  u64 thread_pointer;
  VirtualAddress process_descriptor;  // CLONE_PIDFD
};

// Who stores a new thread's id for CLONE_PARENT_SETTID. Linux stores it before the child runs and
// before the parent goes on, so whoever is first here does it, and the other one waits for that
// moment. Not both: the child may end, and clear the same word, before the parent goes on.
class IdStore {
 public:
  template <typename Store>
  void once(Store store) {
    State expected = State::kNobody;
    if (state_.compare_exchange_strong(expected, State::kStoring)) {
      store();
      state_.store(State::kStored);
      return;
    }
    platform::Wait wait;
    while (state_.load() != State::kStored) wait.turn();
  }

 private:
  enum class State : u32 { kNobody, kStoring, kStored };
  std::atomic<State> state_{State::kNobody};
};

struct ThreadStart {
  ExtendedStateBuffer extended_state;
  std::atomic<u32> users;  // the parent and the child; the last one frees it
  IdStore parent_id;
  TrapFrame frame;
  CloneRequest request;
  Process* process;
  InheritedActions actions;  // of a new process
  u64 fs_base;
  u64 gs_base;
  Thread parent;  // a copy, for what is inherited
};
constexpr u32 kThreadStartOrder = 1;
static_assert(sizeof(ThreadStart) <= kPageSize << kThreadStartOrder);

enum class CloneKind { kThread, kProcess, kSharingProcess, kRefused };

constexpr u64 kThreadFlags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD;
constexpr u64 kIdFlags = CLONE_PARENT_SETTID | CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID;
// Without an effect for us: what they ask for is so anyway, or nobody asks any more.
constexpr u64 kHarmlessFlags = kIdFlags | CLONE_SETTLS | CLONE_SYSVSEM | CLONE_DETACHED |
                               CLONE_PTRACE | CLONE_UNTRACED | CLONE_IO;

CloneKind kind_of(u64 flags) {
  const u64 rest = flags & ~kHarmlessFlags;
  if ((rest & CLONE_THREAD) != 0) {
    return rest == kThreadFlags ? CloneKind::kThread : CloneKind::kRefused;
  }
  const u64 process_flags = CLONE_CLEAR_SIGHAND | CLONE_VFORK | CLONE_PIDFD | CLONE_VM;
  if ((rest & ~process_flags) == 0) {
    return (rest & CLONE_VM) != 0 ? CloneKind::kSharingProcess : CloneKind::kProcess;
  }
  return CloneKind::kRefused;
}

// Linux's own checks of flags that contradict one another (kernel/fork.c, copy_process).
bool are_contradictory(u64 flags) {
  if ((flags & CLONE_THREAD) != 0 && (flags & CLONE_SIGHAND) == 0) return true;
  if ((flags & CLONE_SIGHAND) != 0 && (flags & CLONE_VM) == 0) return true;
  if ((flags & CLONE_SIGHAND) != 0 && (flags & CLONE_CLEAR_SIGHAND) != 0) return true;
  if ((flags & CLONE_NEWNS) != 0 && (flags & CLONE_FS) != 0) return true;
  if ((flags & CLONE_PIDFD) != 0 && (flags & (CLONE_THREAD | CLONE_DETACHED)) != 0) return true;
  return false;
}

Result<ThreadStart*> make_start(Thread& thread, const TrapFrame& frame,
                                const CloneRequest& request) {
  const PhysicalAddress memory = DBOS_TRY(frame_allocator.allocate_kernel(kThreadStartOrder));
  auto* const start = ::new (platform::direct_map(memory)) ThreadStart;
  start->users.store(2);
  start->frame = frame;
  start->frame.rax = 0;
  if (request.stack != 0) start->frame.rsp = request.stack;
  start->request = request;
  start->process = thread.process;
  start->fs_base = (request.flags & CLONE_SETTLS) != 0 ? request.thread_pointer
                                                       : arch::read_msr(arch::kMsrFsBase);
  start->gs_base = arch::read_msr(arch::kMsrGsBase);
  __builtin_memcpy(static_cast<void*>(&start->parent), &thread, sizeof thread);
  save_extended_state(start->extended_state);
  return start;
}

void drop_start(ThreadStart* start) {
  if (start->users.fetch_sub(1) == 2) return;
  frame_allocator.free_kernel(platform::physical_of(start), kThreadStartOrder);
}

u64 argument_of(const ThreadStart* start) {
  return reinterpret_cast<u64>(start);
}

void store_parent_id(const CloneRequest& request, i64 id) {
  if ((request.flags & CLONE_PARENT_SETTID) == 0) return;
  (void)write_program(request.parent_id, static_cast<u32>(id));
}

// The child can't be reaped before its parent goes on, so its id is still its own.
void store_process_descriptor(const CloneRequest& request, i64 id) {
  if ((request.flags & CLONE_PIDFD) == 0) return;
  const i64 descriptor = hypercall(__NR_pidfd_open, static_cast<u64>(id), 0);
  (void)write_program(request.process_descriptor, static_cast<i32>(descriptor));
}

// The child never began.
void abandon_start(ThreadStart* start) {
  start->users.store(1);
  drop_start(start);
}

// Who is killed in such a call has no answer yet when another host thread adopts the vCPU. It must
// know whether the child exists: asked again, the host tells.
i64 make_child(Service service, const ThreadStart* start, u64 exit_signal = 0, u64 flags = 0) {
  i64 id = kInterrupted;
  while (id == kInterrupted) id = hypercall(service, argument_of(start), exit_signal, flags);
  return id;
}

i64 clone_thread(Thread& thread, TrapFrame& frame, const CloneRequest& request) {
  const auto start = make_start(thread, frame, request);
  if (start.is_error()) return -EAGAIN;
  count_thread(*thread.process);
  const i64 id = make_child(Service::kThreadCreate, start.value());
  if (id < 0) {
    discount_thread(*thread.process);
    abandon_start(start.value());
    return id;
  }
  start.value()->parent_id.once([&] { store_parent_id(request, id); });
  drop_start(start.value());
  return id;
}

// Undoes what was prepared for a child that never came to be.
i64 abandon(ThreadStart* start, Process* child, i64 error) {
  abandon_start(start);
  if (child != nullptr) release_process(*child);
  return error;
}

Result<Process*> copy_process(Thread& thread, CloneKind kind) {
  Process& parent = *thread.process;
  if (kind == CloneKind::kSharingProcess) return create_process(*parent.space, &parent);
  AddressSpace* const space = DBOS_TRY(parent.space->snapshot());
  const auto child = create_process(*space, &parent);
  if (child.is_error()) AddressSpace::destroy(space);
  return child;
}

i64 clone_process(Thread& thread, TrapFrame& frame, const CloneRequest& request, CloneKind kind) {
  const auto start = make_start(thread, frame, request);
  if (start.is_error()) return -ENOMEM;
  const auto child = copy_process(thread, kind);
  if (child.is_error()) return abandon(start.value(), nullptr, negative(child.error()));
  start.value()->process = child.value();
  const bool waits = (request.flags & CLONE_VFORK) != 0;
  begin_inheritance(*child.value(), *thread.process, start.value()->actions);
  const i64 id = make_child(Service::kProcessFork, start.value(), request.exit_signal,
                            waits ? kForkWaitForExec : 0);
  end_inheritance(*thread.process, start.value()->actions);
  if (id < 0) return abandon(start.value(), child.value(), id);
  store_parent_id(request, id);  // in the parent's own memory
  store_process_descriptor(request, id);
  drop_start(start.value());
  return id;
}

i64 perform(Thread& thread, TrapFrame& frame, const CloneRequest& request) {
  if (are_contradictory(request.flags)) return -EINVAL;
  if ((request.flags & CLONE_SETTLS) != 0 && request.thread_pointer >= kProgramEnd) return -EPERM;
  const CloneKind kind = kind_of(request.flags);
  if (kind == CloneKind::kRefused) {
    LogLine().text("clone with flags ").hex(request.flags).text(" is not supported: EINVAL").send();
    return -EINVAL;
  }
  return kind == CloneKind::kThread ? clone_thread(thread, frame, request)
                                    : clone_process(thread, frame, request, kind);
}

void take_over(Thread& thread, const ThreadStart& start) {
  const HypercallPage& page = current_hypercall_page();
  Process& process = *start.process;
  thread.process = &process;
  thread.space = process.space;
  thread.thread_id = static_cast<i32>(page.thread_id);
  thread.clear_child_tid = VirtualAddress(0);
  thread.robust_list_head = VirtualAddress(0);
  thread.futex_queued.store(false);
  thread.releases_futexes.store(false);
  const bool keeps_stack = (start.request.flags & (CLONE_VM | CLONE_VFORK)) != CLONE_VM;
  inherit_signal_state(thread, start.parent, keeps_stack);
  if (process.process_id == 0) process.process_id = static_cast<i32>(page.process_id);
  link_thread(process, thread);
  arch::activate_space(*process.space);
}

void store_ids(Thread& thread, ThreadStart& start) {
  const CloneRequest& request = start.request;
  const auto id = static_cast<u32>(thread.thread_id);
  const bool is_thread = (request.flags & CLONE_THREAD) != 0;
  if (is_thread) start.parent_id.once([&] { store_parent_id(request, id); });
  if ((request.flags & CLONE_CHILD_SETTID) != 0) (void)write_program(request.child_id, id);
  if ((request.flags & CLONE_CHILD_CLEARTID) != 0) thread.clear_child_tid = request.child_id;
}

}  // namespace

void start_thread(u64 start_argument) {
  auto* const start = reinterpret_cast<ThreadStart*>(start_argument);
  Thread& thread = current_thread();
  take_over(thread, *start);
  arch::write_msr(arch::kMsrFsBase, start->fs_base);
  arch::write_msr(arch::kMsrGsBase, start->gs_base);
  (void)restore_extended_state(start->extended_state);
  TrapFrame& frame = arch::top_frame();
  frame = start->frame;
  thread.frame = &frame;
  store_ids(thread, *start);
  if ((start->request.flags & CLONE_CLEAR_SIGHAND) != 0) clear_handlers(*thread.process);
  if ((start->request.flags & CLONE_THREAD) == 0) tell_uncertain(*thread.process, start->actions);
  if ((start->request.flags & CLONE_VM) == 0) wake_helper(HelperWork::kSnapshotTaken);
  drop_start(start);
  arch::return_to_program(frame);
  arch::resume_program(&frame);
}

i64 system_clone(Thread& thread, TrapFrame& frame, u64 flags, u64 stack, u64 parent_id_address,
                 u64 child_id_address, u64 thread_pointer) {
  const CloneRequest request{flags & 0xffffff00,
                             flags & 0xff,
                             stack,
                             VirtualAddress(parent_id_address),
                             VirtualAddress(child_id_address),
                             thread_pointer,
                             VirtualAddress(parent_id_address)};
  // clone(2) has one address for both.
  if ((flags & CLONE_PIDFD) != 0 && (flags & CLONE_PARENT_SETTID) != 0) return -EINVAL;
  return perform(thread, frame, request);
}

i64 system_clone3(Thread& thread, TrapFrame& frame, VirtualAddress address, u64 size) {
  if (size < CLONE_ARGS_SIZE_VER0) return -EINVAL;
  if (size > kPageSize) return -E2BIG;
  clone_args arguments = {};
  const u64 known = size < sizeof arguments ? size : sizeof arguments;
  if (copy_from_program(&arguments, address, known).is_error()) return -EFAULT;
  for (u64 i = known; i < size; ++i) {
    const auto rest = read_program<u8>(address + i);
    if (rest.is_error()) return -EFAULT;
    if (rest.value() != 0) return -E2BIG;
  }
  if ((arguments.flags & 0xff) != 0 || (arguments.flags & CLONE_DETACHED) != 0) return -EINVAL;
  if (arguments.exit_signal > kSignalCount || arguments.set_tid_size != 0) return -EINVAL;
  if ((arguments.stack == 0) != (arguments.stack_size == 0)) return -EINVAL;
  const bool has_exit_signal_for_nobody =
      (arguments.flags & (CLONE_THREAD | CLONE_PARENT)) != 0 && arguments.exit_signal != 0;
  if (has_exit_signal_for_nobody) return -EINVAL;
  const CloneRequest request{arguments.flags,
                             arguments.exit_signal,
                             arguments.stack + arguments.stack_size,
                             VirtualAddress(arguments.parent_tid),
                             VirtualAddress(arguments.child_tid),
                             arguments.tls,
                             VirtualAddress(arguments.pidfd)};
  return perform(thread, frame, request);
}

i64 system_fork(Thread& thread, TrapFrame& frame) {
  return perform(thread, frame, CloneRequest{0, signal_number::kChild, 0, {}, {}, 0, {}});
}

i64 system_vfork(Thread& thread, TrapFrame& frame) {
  return perform(thread, frame,
                 CloneRequest{CLONE_VM | CLONE_VFORK, signal_number::kChild, 0, {}, {}, 0, {}});
}

}  // namespace dbos
