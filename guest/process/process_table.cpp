#include "guest/process/process_table.h"

#include "guest/memory/address_space.h"
#include "guest/memory/heap.h"
#include "guest/memory/trim.h"
#include "guest/process/signal.h"

namespace dbos {
namespace {

PhysicalAddress the_kernel_root;

}  // namespace

PhysicalAddress kernel_root() { return the_kernel_root; }
void set_kernel_root(PhysicalAddress root) { the_kernel_root = root; }

Result<Process*> create_process(AddressSpace& space, bool shares_space, Process* parent) {
  Process* const process = heap_new<Process>();
  if (process == nullptr) return Error(ENOMEM);
  process->space = &space;
  process->is_first = parent == nullptr;
  process->thread_count = 1;
  process->shares_space = shares_space;
  if (parent != nullptr) {
    copy_signal_actions(*process, *parent);
    process->address_space_limit = parent->address_space_limit;
    process->data_limit = parent->data_limit;
    process->stack_limit = parent->stack_limit;
  }
  return process;
}

void release_process(Process& process) {
  if (!process.shares_space) AddressSpace::destroy(process.space);
  heap_delete(&process);
  trim_free_memory();
}

void count_thread(Process& process) {
  const LockGuard guard(process.lock);
  ++process.thread_count;
}

void discount_thread(Process& process) {
  const LockGuard guard(process.lock);
  --process.thread_count;
}

void link_thread(Process& process, Thread& thread) {
  const LockGuard guard(process.lock);
  thread.next_in_process = process.threads;
  process.threads = &thread;
}

}  // namespace dbos
