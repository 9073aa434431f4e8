#include "guest/process/exit.h"

#include "guest/arch/cpu.h"
#include "guest/arch/hypercall.h"
#include "guest/lib/assert.h"
#include "guest/memory/address_space.h"
#include "guest/process/process_table.h"
#include "guest/process/robust_list.h"
#include "guest/process/signal.h"

namespace dbos {
namespace {

// With the process's lock.
void unlink_thread(Process& process, Thread& thread) {
  Thread** link = &process.threads;
  while (*link != &thread) {
    DBOS_ASSERT(*link != nullptr);
    link = &(*link)->next_in_process;
  }
  *link = thread.next_in_process;
  --process.thread_count;
}

// Takes the thread out of its process, unless it is the last one.
bool unlink_unless_last(Thread& thread) {
  Process& process = *thread.process;
  const LockGuard guard(process.lock);
  if (process.thread_count == 1) return false;
  unlink_thread(process, thread);
  return true;
}

// Answers whether the process has no thread any more.
bool unlink_dead_thread(Thread& thread) {
  Process& process = *thread.process;
  const LockGuard guard(process.lock);
  unlink_thread(process, thread);
  return process.thread_count == 0;
}

// Ends the host's process. The call comes back only when another host thread has adopted the vCPU.
[[noreturn]] void end_process(Service service, u64 argument) {
  hypercall(service, argument);
  DBOS_ASSERT(current_hypercall_page().dying != 0);
  exit_thread_dying();
}

[[noreturn]] void end_thread(i32 status) {
  hypercall(Service::kThreadExit, static_cast<u64>(status));
  DBOS_PANIC("the host came back from the end of a thread");
}

}  // namespace

void exit_thread(i32 status) {
  Thread& thread = current_thread();
  release_futexes(thread);
  if (!unlink_unless_last(thread)) exit_process(status);
  thread.space->unpin(thread.vcpu);
  arch::leave_space(kernel_root());
  end_thread(status);
}

void exit_process(i32 status) { end_process(Service::kExit, static_cast<u64>(status)); }

void die(u32 signal) { end_process(Service::kDie, signal); }

void exit_thread_dying() {
  Thread& thread = current_thread();
  Process& process = *thread.process;
  thread.space->unpin(thread.vcpu);
  const bool was_last = unlink_dead_thread(thread);
  arch::leave_space(kernel_root());
  if (was_last) release_process(process);
  end_thread(0);
}

}  // namespace dbos
