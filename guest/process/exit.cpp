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

[[noreturn]] void leave(Service service, u64 argument) {
  hypercall(service, argument);
  DBOS_PANIC("the host came back from a call that ends the thread");
}

// Takes the thread out of its process. True: it was the last one.
bool unlink_thread(Thread& thread) {
  Process& process = *thread.process;
  const LockGuard guard(process.lock);
  Thread** link = &process.threads;
  while (*link != &thread) {
    DBOS_ASSERT(*link != nullptr);
    link = &(*link)->next_in_process;
  }
  *link = thread.next_in_process;
  return --process.thread_count == 0;
}

bool is_last_thread(Process& process) {
  const LockGuard guard(process.lock);
  return process.thread_count == 1;
}

}  // namespace

void exit_thread(i32 status) {
  Thread& thread = current_thread();
  Process& process = *thread.process;
  release_futexes(thread);
  if (is_last_thread(process)) exit_process(status);
  thread.space->unpin(thread.vcpu);
  const bool was_last = unlink_thread(thread);
  arch::leave_space(kernel_root());
  if (was_last) {  // the others ended at the same time
    release_process(process);
    leave(Service::kExit, static_cast<u64>(status));
  }
  leave(Service::kThreadExit, static_cast<u64>(status));
}

void exit_process(i32 status) { leave(Service::kExit, static_cast<u64>(status)); }

void die(u32 signal) { leave(Service::kDie, signal); }

void exit_thread_dying() {
  Thread& thread = current_thread();
  Process& process = *thread.process;
  thread.space->unpin(thread.vcpu);
  const bool was_last = unlink_thread(thread);
  arch::leave_space(kernel_root());
  if (was_last) release_process(process);
  leave(Service::kThreadExit, 0);
}

}  // namespace dbos
