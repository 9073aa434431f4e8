#include "guest/process/process_table.h"

#include "guest/memory/address_space.h"
#include "guest/memory/heap.h"
#include "guest/memory/trim.h"
#include "guest/process/helper.h"

namespace dbos {
namespace {

PhysicalAddress the_kernel_root;

constinit Spinlock table_lock;  // before all others
Process* newest_process = nullptr;
std::atomic<u64> processes_ending{0};  // off the list, and not released yet
std::atomic<u64> spaces_ended{0};

void inherit_limits(Process& process, const Process& parent) {
  process.address_space_limit = parent.address_space_limit;
  process.data_limit = parent.data_limit;
  process.stack_limit = parent.stack_limit;
  process.lock_limit = parent.lock_limit;
}

void enlist(Process& process, const Process* parent) {
  const LockGuard guard(table_lock);
  if (parent != nullptr) inherit_limits(process, *parent);
  process.previous = nullptr;
  process.next = newest_process;
  if (newest_process != nullptr) newest_process->previous = &process;
  newest_process = &process;
}

// A program that puts itself in the background goes on in a child of the first process.
void make_eldest_main() {
  Process* process = newest_process;
  while (process != nullptr && process->next != nullptr) process = process->next;
  if (process != nullptr) process->is_main.store(true);
}

void delist(Process& process) {
  const LockGuard guard(table_lock);
  (process.previous == nullptr ? newest_process : process.previous->next) = process.next;
  if (process.next != nullptr) process.next->previous = process.previous;
  if (!process.borrows_space) process.space_use->has_owner = false;
  if (process.is_main.load()) make_eldest_main();
}

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
  process->is_main.store(process->is_first);
  process->borrows_space = parent != nullptr && parent->space == &space;
  process->thread_count = 1;
  if (parent != nullptr) process->is_dumpable.store(parent->is_dumpable.load());
  enlist(*process, parent);
  return process;
}

namespace {

void drop_use(SpaceUse* use, AddressSpace* space) {
  if (use->processes.fetch_sub(1) != 1) return;
  AddressSpace::destroy(space);
  heap_delete(use);
  spaces_ended.fetch_add(1);
  wake_helper(HelperWork::kSnapshotEnded);
}

}  // namespace

void SharedSpace::drop() {
  drop_use(use_, space_);
}

void release_process(Process& process) {
  if (process.is_first) leave_helper(process);
  processes_ending.fetch_add(1);
  delist(process);
  drop_use(process.space_use, process.space);  // first: who waits must find it in one of the two
  heap_delete(&process);
  processes_ending.fetch_sub(1);
  trim_free_memory();
}

namespace {

// A process that shares its parent's memory keeps nothing, unless the parent has gone before it.
bool keeps_snapshot(const Process& process) {
  const bool has_it = !process.borrows_space || !process.space_use->has_owner;
  return has_it && !process.is_main.load() && process.space->line().departure() != 0;
}

}  // namespace

Candidate condemn_snapshot(const Line* owner, u64 now_ns, u64 patience_ns) {
  const LockGuard guard(table_lock);
  Process* chosen = nullptr;
  Candidate result = {processes_ending.load() != 0, false, 0, 0};
  for (Process* process = newest_process; process != nullptr; process = process->next) {
    if (!keeps_snapshot(*process)) continue;
    if (process->condemned_at_ns != 0) {
      if (process->condemned_at_ns + patience_ns <= now_ns) continue;
      return {true, true, 0, 0};
    }
    const u64 kept = process->space->line().kept_frames(owner) * kPageSize;
    if (owner != nullptr && kept == 0) continue;
    const bool is_more = chosen == nullptr || kept > result.kept_bytes;
    result.exists = true;
    if (!is_more || process->process_id == 0) continue;
    chosen = process;
    result.process_id = process->process_id;
    result.kept_bytes = kept;
  }
  result.is_condemned = chosen != nullptr;
  if (chosen != nullptr) chosen->condemned_at_ns = now_ns;
  return result;
}

bool visit_process(i32 process_id, ProcessVisitor visitor, void* context) {
  const LockGuard guard(table_lock);
  Process* process = newest_process;
  while (process != nullptr && process->process_id != process_id) process = process->next;
  if (process != nullptr) visitor(context, *process);
  return process != nullptr;
}

u64 ended_spaces() {
  return spaces_ended.load();
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
