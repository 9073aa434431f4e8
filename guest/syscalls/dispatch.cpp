// Every system call of the program comes through here: what the guest does itself, and for the rest
// the proxy (hypercall/syscalls.def says which is which).
#include <asm/unistd_64.h>
#include <linux/fcntl.h>

#include "guest/arch/cpu.h"
#include "guest/arch/trap.h"
#include "guest/lib/log.h"
#include "guest/memory/address_space.h"
#include "guest/memory/frame_allocator.h"
#include "guest/process/clone.h"
#include "guest/process/exit.h"
#include "guest/process/signal.h"
#include "guest/syscalls/clock_calls.h"
#include "guest/syscalls/execute_calls.h"
#include "guest/syscalls/filtered_calls.h"
#include "guest/syscalls/futex_calls.h"
#include "guest/syscalls/memory_calls.h"
#include "guest/syscalls/proc_files.h"
#include "guest/syscalls/proxy.h"
#include "guest/syscalls/signal_calls.h"
#include "guest/syscalls/thread_calls.h"
#include "guest/syscalls/trace.h"

namespace dbos {
namespace {

struct Arguments {
  u64 value[6];
  u64 operator[](u32 i) const { return value[i]; }
  int integer(u32 i) const { return static_cast<int>(value[i]); }
  VirtualAddress address(u32 i) const { return VirtualAddress(value[i]); }
};

// Memory calls. False: not one of them.
bool dispatch_memory(Thread& thread, u64 number, const Arguments& a, i64& result) {
  AddressSpace& space = *thread.space;
  switch (number) {
    case __NR_mmap:
      result = system_mmap(thread, a[0], a[1], a.integer(2), a.integer(3), a.integer(4), a[5]);
      return true;
    case __NR_munmap:
      result = system_munmap(thread, a[0], a[1]);
      return true;
    case __NR_mprotect:
      result = result_of(space.protect(a.address(0), a[1], a.integer(2)));
      return true;
    case __NR_pkey_mprotect:
      result =
          a.integer(3) != -1 ? -EINVAL : result_of(space.protect(a.address(0), a[1], a.integer(2)));
      return true;
    case __NR_mremap:
      result = system_mremap(thread, a[0], a[1], a[2], a.integer(3), a[4]);
      return true;
    case __NR_madvise:
      result = system_madvise(thread, a[0], a[1], a.integer(2));
      return true;
    case __NR_brk:
      result = system_brk(thread, a[0]);
      return true;
    case __NR_msync:
      result = system_msync(thread, a[0], a[1], a.integer(2));
      return true;
    case __NR_mincore:
      result = system_mincore(thread, a[0], a[1], a.address(2));
      return true;
    case __NR_shmat:
      result = system_shmat(thread, a.integer(0), a[1], a.integer(2));
      return true;
    case __NR_shmdt:
      result = result_of(space.detach_segment(a.address(0)));
      return true;
    case __NR_mlock:
      result = system_mlock(thread, a[0], a[1], 0);
      return true;
    case __NR_mlock2:
      result = system_mlock(thread, a[0], a[1], a.integer(2));
      return true;
    case __NR_munlock:
      result = result_of(space.unlock_memory(a.address(0), a[1]));
      return true;
    case __NR_mlockall:
      result = system_mlockall(thread, a.integer(0));
      return true;
    case __NR_munlockall:
      result = result_of(space.unlock_all());
      return true;
    default:
      return false;
  }
}

bool dispatch_signal(Thread& thread, TrapFrame& frame, u64 number, const Arguments& a,
                     i64& result) {
  switch (number) {
    case __NR_rt_sigaction:
      result = system_rt_sigaction(thread, a[0], a.address(1), a.address(2), a[3]);
      return true;
    case __NR_rt_sigprocmask:
      result = system_rt_sigprocmask(thread, a[0], a.address(1), a.address(2), a[3]);
      return true;
    case __NR_rt_sigreturn:
      result = system_rt_sigreturn(thread, frame);
      return true;
    case __NR_sigaltstack:
      result = system_sigaltstack(thread, frame, a.address(0), a.address(1));
      return true;
    case __NR_rt_sigpending:
      result = system_rt_sigpending(a.address(0), a[1]);
      return true;
    case __NR_rt_sigtimedwait:
      result = system_rt_sigtimedwait(a.address(0), a.address(1), a.address(2), a[3]);
      return true;
    case __NR_rt_sigsuspend:
      result = system_rt_sigsuspend(thread, a.address(0), a[1]);
      return true;
    default:
      return false;
  }
}

bool dispatch_process(Thread& thread, TrapFrame& frame, u64 number, const Arguments& a,
                      i64& result) {
  switch (number) {
    case __NR_getpid:
      result = thread.process->process_id;
      return true;
    case __NR_gettid:
      result = thread.thread_id;
      return true;
    case __NR_clone:
      result = system_clone(thread, frame, a[0], a[1], a[2], a[3], a[4]);
      return true;
    case __NR_clone3:
      result = system_clone3(thread, frame, a.address(0), a[1]);
      return true;
    case __NR_fork:
      result = system_fork(thread, frame);
      return true;
    case __NR_vfork:
      result = system_vfork(thread, frame);
      return true;
    case __NR_execve:
      result = system_execveat(thread, AT_FDCWD, a.address(0), a.address(1), a.address(2), 0);
      return true;
    case __NR_execveat:
      result =
          system_execveat(thread, a.integer(0), a.address(1), a.address(2), a.address(3), a[4]);
      return true;
    case __NR_exit:
      exit_thread(a.integer(0));
    case __NR_exit_group:
      exit_process(a.integer(0));
    case __NR_arch_prctl:
      result = system_arch_prctl(a[0], a[1]);
      return true;
    case __NR_set_tid_address:
      result = system_set_tid_address(thread, a.address(0));
      return true;
    case __NR_set_robust_list:
      result = system_set_robust_list(thread, a.address(0), a[1]);
      return true;
    case __NR_get_robust_list:
      result = system_get_robust_list(thread, a.integer(0), a.address(1), a.address(2));
      return true;
    case __NR_rseq:
      result = -ENOSYS;
      return true;  // libc goes on without, as on older kernels
    case __NR_getcpu:
      result = system_getcpu(a.address(0), a.address(1));
      return true;
    case __NR_membarrier:
      result = system_membarrier(a[0], a[1]);
      return true;
    default:
      return false;
  }
}

bool dispatch_time(Thread& thread, u64 number, const Arguments& a, i64& result) {
  switch (number) {
    case __NR_futex:
      result = system_futex(thread, a.address(0), static_cast<u32>(a[1]), static_cast<u32>(a[2]),
                            a[3], a.address(4), static_cast<u32>(a[5]));
      return true;
    case __NR_clock_gettime:
      result = system_clock_gettime(a[0], a.address(1));
      return true;
    case __NR_gettimeofday:
      result = system_gettimeofday(a.address(0), a.address(1));
      return true;
    case __NR_time:
      result = system_time(a.address(0));
      return true;
    default:
      return false;
  }
}

// Memory that is kept for snapshots is not refused to the program: they go first. `refusals`: the
// allocator's before the call.
bool finds_room(Thread& thread, i64 result, u64 refusals) {
  const bool is_out_of_frames = result == -ENOMEM && frame_allocator.refusals() != refusals;
  return is_out_of_frames && !frame_allocator.ensure_frames() && thread.space->make_room();
}

i64 dispatch(Thread& thread, TrapFrame& frame) {
  const auto number = static_cast<u32>(frame.error_code);
  const Arguments a{{frame.rdi, frame.rsi, frame.rdx, frame.r10, frame.r8, frame.r9}};
  i64 result = 0;
  if (dispatch_process(thread, frame, number, a, result)) return result;
  u64 refusals = frame_allocator.refusals();
  while (dispatch_memory(thread, number, a, result)) {
    if (!finds_room(thread, result, refusals)) return result;
    refusals = frame_allocator.refusals();
  }
  if (dispatch_time(thread, number, a, result)) return result;
  if (dispatch_signal(thread, frame, number, a, result)) return result;
  if (dispatch_proc_file(thread, number, a.value, result)) return result;
  if (dispatch_filtered(thread, number, a.value, result)) return result;
  return proxy_system_call(number > 0xffff ? 0xffff : number, a.value);
}

}  // namespace

// Returns whether the program may be returned to the short way, without restoring rcx and r11.
extern "C" bool handle_system_call(TrapFrame* frame) {
  Thread& thread = current_thread();
  thread.frame = frame;
  const CallWatch watch(*frame);
  const i64 result = dispatch(thread, *frame);
  frame->rax = static_cast<u64>(result);
  watch.finish(result);
  arch::return_to_program(*frame);
  return frame->vector == kSystemCallVector && (frame->rflags & kFlagTrap) == 0;
}

}  // namespace dbos
