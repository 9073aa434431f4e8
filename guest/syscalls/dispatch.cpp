// Every system call of the program comes through here: what the guest does itself, and for the rest
// the proxy (hypercall/syscalls.def says which is which).
#include <asm/unistd_64.h>
#include <linux/fcntl.h>

#include "guest/arch/cpu.h"
#include "guest/arch/trap.h"
#include "guest/lib/log.h"
#include "guest/memory/address_space.h"
#include "guest/memory/frame_allocator.h"
#include "guest/memory/shortage.h"
#include "guest/process/clone.h"
#include "guest/process/exit.h"
#include "guest/process/signal.h"
#include "guest/process/trace.h"
#include "guest/syscalls/answer.h"
#include "guest/syscalls/clock_calls.h"
#include "guest/syscalls/execute_calls.h"
#include "guest/syscalls/filtered_calls.h"
#include "guest/syscalls/futex_calls.h"
#include "guest/syscalls/memory_calls.h"
#include "guest/syscalls/proc_files.h"
#include "guest/syscalls/proxy.h"
#include "guest/syscalls/signal_calls.h"
#include "guest/syscalls/thread_calls.h"

namespace dbos {
namespace {

struct Arguments {
  u64 value[6];
  u64 operator[](u32 i) const { return value[i]; }
  int integer(u32 i) const { return static_cast<int>(value[i]); }
  VirtualAddress address(u32 i) const { return VirtualAddress(value[i]); }
};

Answer dispatch_memory(Thread& thread, u64 number, const Arguments& a) {
  AddressSpace& space = *thread.space;
  switch (number) {
    case __NR_mmap:
      return system_mmap(thread, a[0], a[1], a.integer(2), a.integer(3), a.integer(4), a[5]);
    case __NR_munmap:
      return system_munmap(thread, a[0], a[1]);
    case __NR_mprotect:
      return result_of(space.protect(a.address(0), a[1], a.integer(2)));
    case __NR_pkey_mprotect:
      return a.integer(3) != -1 ? -EINVAL
                                : result_of(space.protect(a.address(0), a[1], a.integer(2)));
    case __NR_mremap:
      return system_mremap(thread, a[0], a[1], a[2], a.integer(3), a[4]);
    case __NR_madvise:
      return system_madvise(thread, a[0], a[1], a.integer(2));
    case __NR_brk:
      return system_brk(thread, a[0]);
    case __NR_msync:
      return system_msync(thread, a[0], a[1], a.integer(2));
    case __NR_mincore:
      return system_mincore(thread, a[0], a[1], a.address(2));
    case __NR_shmat:
      return system_shmat(thread, a.integer(0), a[1], a.integer(2));
    case __NR_shmdt:
      return result_of(space.detach_segment(a.address(0)));
    case __NR_mlock:
      return system_mlock(thread, a[0], a[1], 0);
    case __NR_mlock2:
      return system_mlock(thread, a[0], a[1], a.integer(2));
    case __NR_munlock:
      return result_of(space.unlock_memory(a.address(0), a[1]));
    case __NR_mlockall:
      return system_mlockall(thread, a.integer(0));
    case __NR_munlockall:
      return result_of(space.unlock_all());
    default:
      return {};
  }
}

Answer dispatch_signal(Thread& thread, TrapFrame& frame, u64 number, const Arguments& a) {
  switch (number) {
    case __NR_rt_sigaction:
      return system_rt_sigaction(thread, a[0], a.address(1), a.address(2), a[3]);
    case __NR_rt_sigprocmask:
      return system_rt_sigprocmask(thread, a[0], a.address(1), a.address(2), a[3]);
    case __NR_rt_sigreturn:
      return system_rt_sigreturn(thread, frame);
    case __NR_sigaltstack:
      return system_sigaltstack(thread, frame, a.address(0), a.address(1));
    case __NR_rt_sigpending:
      return system_rt_sigpending(a.address(0), a[1]);
    case __NR_rt_sigtimedwait:
      return system_rt_sigtimedwait(a.address(0), a.address(1), a.address(2), a[3]);
    case __NR_rt_sigsuspend:
      return system_rt_sigsuspend(thread, a.address(0), a[1]);
    default:
      return {};
  }
}

Answer dispatch_process(Thread& thread, TrapFrame& frame, u64 number, const Arguments& a) {
  switch (number) {
    case __NR_getpid:
      return thread.process->process_id;
    case __NR_gettid:
      return thread.thread_id;
    case __NR_clone:
      return system_clone(thread, frame, a[0], a[1], a[2], a[3], a[4]);
    case __NR_clone3:
      return system_clone3(thread, frame, a.address(0), a[1]);
    case __NR_fork:
      return system_fork(thread, frame);
    case __NR_vfork:
      return system_vfork(thread, frame);
    case __NR_execve:
      return system_execveat(thread, AT_FDCWD, a.address(0), a.address(1), a.address(2), 0);
    case __NR_execveat:
      return system_execveat(thread, a.integer(0), a.address(1), a.address(2), a.address(3), a[4]);
    case __NR_exit:
      exit_thread(a.integer(0));
    case __NR_exit_group:
      exit_process(a.integer(0));
    case __NR_arch_prctl:
      return system_arch_prctl(a[0], a[1]);
    case __NR_set_tid_address:
      return system_set_tid_address(thread, a.address(0));
    case __NR_set_robust_list:
      return system_set_robust_list(thread, a.address(0), a[1]);
    case __NR_get_robust_list:
      return system_get_robust_list(thread, a.integer(0), a.address(1), a.address(2));
    case __NR_rseq:
      return -ENOSYS;  // libc goes on without, as on older kernels
    case __NR_getcpu:
      return system_getcpu(a.address(0), a.address(1));
    case __NR_membarrier:
      return system_membarrier(a[0], a[1]);
    default:
      return {};
  }
}

Answer dispatch_time(Thread& thread, u64 number, const Arguments& a) {
  switch (number) {
    case __NR_futex:
      return system_futex(thread, a.address(0), static_cast<u32>(a[1]), static_cast<u32>(a[2]),
                          a[3], a.address(4), static_cast<u32>(a[5]));
    case __NR_clock_gettime:
      return system_clock_gettime(a[0], a.address(1));
    case __NR_gettimeofday:
      return system_gettimeofday(a.address(0), a.address(1));
    case __NR_time:
      return system_time(a.address(0));
    default:
      return {};
  }
}

// Memory that is kept for snapshots is not refused to the program: they go first.
Answer dispatch_memory_with_room(Thread& thread, u64 number, const Arguments& a) {
  Shortage shortage(*thread.space);
  for (;;) {
    const u64 refusals = frame_allocator.refusals();
    const Answer answer = dispatch_memory(thread, number, a);
    const bool is_out_of_frames = answer == -ENOMEM && frame_allocator.refusals() != refusals;
    if (!is_out_of_frames || !shortage.try_again()) return answer;
  }
}

i64 dispatch(Thread& thread, TrapFrame& frame) {
  const auto number = static_cast<u32>(frame.error_code);
  const Arguments a{{frame.rdi, frame.rsi, frame.rdx, frame.r10, frame.r8, frame.r9}};
  if (const Answer answer = dispatch_process(thread, frame, number, a)) return *answer;
  if (const Answer answer = dispatch_memory_with_room(thread, number, a)) return *answer;
  if (const Answer answer = dispatch_time(thread, number, a)) return *answer;
  if (const Answer answer = dispatch_signal(thread, frame, number, a)) return *answer;
  if (const Answer answer = dispatch_proc_file(thread, number, a.value)) return *answer;
  if (const Answer answer = dispatch_filtered(thread, number, a.value)) return *answer;
  return proxy_system_call(number > 0xffff ? 0xffff : number, a.value);
}

}  // namespace

// Returns whether the program may be returned to the short way, without restoring rcx and r11.
extern "C" bool handle_system_call(TrapFrame* frame) {
  Thread& thread = current_thread();
  thread.frame = frame;
  thread.copies_delayed_ns = 0;
  const CallWatch watch(*frame);
  const i64 result = dispatch(thread, *frame);
  frame->rax = static_cast<u64>(result);
  watch.finish(result);
  arch::return_to_program(*frame);
  return frame->vector == kSystemCallVector && (frame->rflags & kFlagTrap) == 0;
}

}  // namespace dbos
