#include "guest/process/process_table.h"

#include "guest/memory/address_space.h"
#include "guest/memory/heap.h"
#include "guest/memory/trim.h"
#include "guest/process/helper.h"
#include "guest/process/signal.h"

namespace dbos {
namespace {

PhysicalAddress the_kernel_root;

}  // namespace

PhysicalAddress kernel_root() {
  return the_kernel_root;
}
void set_kernel_root(PhysicalAddress root) {
  the_kernel_root = root;
}

namespace {

// Null: no memory.
SpaceUse* use_of(AddressSpace& space, Process* parent) {
  const bool shares = parent != nullptr && parent->space == &space;
  if (!shares) return heap_new<SpaceUse>();
  parent->space_use->processes.fetch_add(1);
  return parent->space_use;
}

}  // namespace

Result<Process*> create_process(AddressSpace& space, Process* parent) {
  Process* const process = heap_new<Process>();
  if (process == nullptr) return Error(ENOMEM);
  process->space_use = use_of(space, parent);
  if (process->space_use == nullptr) {
    heap_delete(process);
    return Error(ENOMEM);
  }
  process->space = &space;
  process->is_first = parent == nullptr;
  process->thread_count = 1;
  if (parent != nullptr) {
    copy_signal_actions(*process, *parent);
    process->address_space_limit = parent->address_space_limit;
    process->data_limit = parent->data_limit;
    process->stack_limit = parent->stack_limit;
  }
  return process;
}

namespace {

void drop_use(SpaceUse* use, AddressSpace* space) {
  if (use->processes.fetch_sub(1) != 1) return;
  AddressSpace::destroy(space);
  heap_delete(use);
  wake_helper(HelperWork::kSnapshotEnded);
}

}  // namespace

void SharedSpace::drop() {
  drop_use(use_, space_);
}

void release_process(Process& process) {
  if (process.is_first) leave_helper(process);
  drop_use(process.space_use, process.space);
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
