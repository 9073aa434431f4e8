#include "guest/process/exit.h"

#include "guest/arch/cpu.h"
#include "guest/hypercall.h"
#include "guest/lib/assert.h"
#include "guest/lib/log.h"
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

// Takes the thread out of its process, unless it is the last one. A thread leaves the address space
// before it stops counting: whoever is the last to count destroys the space.
bool leave_unless_last(Thread& thread) {
  Process& process = *thread.process;
  DBOS_ASSERT(!pin_slot(thread.vcpu).is_active);  // unpin() may call the host
  const LockGuard guard(process.lock);
  if (process.thread_count == 1) return false;
  arch::leave_space(kernel_root());
  unlink_thread(process, thread);
  return true;
}

// Returns whether the process has no thread any more. The thread may have been killed in a call.
bool leave_as_dead(Thread& thread) {
  Process& process = *thread.process;
  thread.space->unpin(thread.vcpu);
  arch::leave_space(kernel_root());
  const LockGuard guard(process.lock);
  unlink_thread(process, thread);
  return process.thread_count == 0;
}

enum class Released : u64 { kNo, kYes };

// Ends the host's process. Comes back only if this thread has not released what it held, and
// another host thread has adopted the vCPU. If it has released it, and was killed before the host
// had seen the call, it is adopted as well: it repeats the call, and the adopter takes that as its
// end.
void end_process(Service service, u64 argument, Released released) {
  do {
    hypercall(service, argument, static_cast<u64>(released));
    DBOS_ASSERT(platform::is_dying());
  } while (released == Released::kYes);
}

// Repeated for the same reason.
[[noreturn]] void end_thread(i32 status) {
  do {
    hypercall(Service::kThreadExit, static_cast<u64>(status));
  } while (platform::is_dying());
  DBOS_PANIC("the host came back from the end of a thread");
}

// ... and of the process, if it was its last thread.
void release_thread(Thread& thread) {
  Process& process = *thread.process;
  if (leave_as_dead(thread)) release_process(process);
}

}  // namespace

void exit_thread(i32 status) {
  Thread& thread = current_thread();
  release_futexes(thread);
  if (!leave_unless_last(thread)) exit_process(status);
  end_thread(status);
}

// A child that is alone releases its memory itself. The first process's memory goes with the
// machine, and what several threads use is released after the last of them, by the one who adopts
// its vCPU.
void exit_process(i32 status) {
  Thread& thread = current_thread();
  Process& process = *thread.process;
  release_futexes(thread);
  const bool is_alone = !process.is_first && count_threads(process) == 1;
  if (is_alone) release_thread(thread);
  end_process(Service::kExit, static_cast<u64>(status), is_alone ? Released::kYes : Released::kNo);
  exit_thread_dying();
}

void die(u32 signal) {
  end_process(Service::kDie, signal, Released::kNo);
  exit_thread_dying();
}

void kill_for_memory() {
  if (platform::is_dying()) return;  // what a dead thread can't write is lost
  platform::counters().count(Counter::kFaultOutOfMemory);
  LogLine()
      .text("out of guest memory (--memory): process ")
      .number(current_process().process_id.load())
      .text(current_process().is_main.load() ? "" : ", a snapshot,")
      .text(" is killed")
      .send(LogSeverity::kError);
  end_process(Service::kDie, signal_number::kKill, Released::kNo);
}

void exit_thread_dying() {
  release_futexes(current_thread());
  release_thread(current_thread());
  end_thread(0);
}

}  // namespace dbos
