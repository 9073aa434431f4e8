#include "guest/process/robust_list.h"

#include <asm/unistd_64.h>
#include <linux/futex.h>

#include "guest/hypercall.h"
#include "guest/memory/user_copy.h"
#include "guest/memory/window_object.h"
#include "guest/process/futex.h"
#include "guest/process/futex_memory.h"
#include "guest/process/process.h"

namespace dbos {

namespace {

struct RobustListHead {  // struct robust_list_head
  u64 first;
  i64 futex_offset;
  u64 pending;
};

// A pointer of the list; bit 0 marks a priority inheritance futex.
struct Entry {
  u64 address = 0;
  bool is_pi = false;
};
Entry entry_of(u64 pointer) {
  return {pointer & ~u64{1}, (pointer & 1) != 0};
}

enum class Place { kInList, kPending };

// Wakes a waiter of a word that may be shared with other processes through the window.
void wake_one(Thread& thread, VirtualAddress address) {
  WindowReference window;
  const Result<PhysicalAddress> shared =
      shared_futex_address(*thread.space, address, Access::kRead, window);
  if (shared.is_error()) return;
  if (shared.value().is_null()) {
    futex_wake(thread.space, address, 1, kFutexBitsetAny);
  } else {
    hypercall(__NR_futex, shared.value().value(), FUTEX_WAKE, 1);
  }
}

// Linux's handle_futex_death. Error: the list can't be trusted any further.
Result<void> release(Thread& thread, u64 value_address, bool is_pi, Place place) {
  const VirtualAddress address(value_address);
  if (!is_aligned(value_address, sizeof(u32))) return Error(EINVAL);
  u32 value = DBOS_TRY(read_program<u32>(address));
  for (;;) {
    const u32 owner = value & FUTEX_TID_MASK;
    // The thread ended between unlocking and waking: the waiters must not wait for ever.
    if (place == Place::kPending && !is_pi && owner == 0) {
      wake_one(thread, address);
      return {};
    }
    if (owner != static_cast<u32>(thread.thread_id)) return {};
    if (is_pi && (value & FUTEX_WAITERS) != 0) {
      futex_abandon_pi(thread, address);
      return {};
    }
    const u32 wanted = (value & FUTEX_WAITERS) | FUTEX_OWNER_DIED;
    const u32 found = DBOS_TRY(compare_exchange_program(address, value, wanted));
    if (found == value) break;
    value = found;
  }
  if (!is_pi && (value & FUTEX_WAITERS) != 0) wake_one(thread, address);
  return {};
}

}  // namespace

void release_robust_futexes(Thread& thread) {
  const VirtualAddress head_address = thread.robust_list_head;
  thread.robust_list_head = VirtualAddress();
  if (head_address.value() == 0) return;
  const Result<RobustListHead> read = read_program<RobustListHead>(head_address);
  if (read.is_error()) return;
  const RobustListHead head = read.value();
  const u64 offset = static_cast<u64>(head.futex_offset);
  const Entry pending = entry_of(head.pending);
  Entry entry = entry_of(head.first);
  // The list is the program's and may be a circle.
  for (u32 left = ROBUST_LIST_LIMIT; entry.address != head_address.value() && left > 0; --left) {
    // The next one first: once released, the futex and its entry may be freed.
    const Result<u64> next = read_program<u64>(VirtualAddress(entry.address));
    if (entry.address != pending.address &&
        release(thread, entry.address + offset, entry.is_pi, Place::kInList).is_error())
      return;
    if (next.is_error()) return;
    entry = entry_of(next.value());
  }
  if (pending.address != 0)
    static_cast<void>(
        release(thread, pending.address + offset, pending.is_pi, Place::kPending).is_ok());
}

// Linux's mm_release() leaves the word alone then: a forked child need not copy its page to end.
static bool is_alone_in_memory(Process& process) {
  return count_threads(process) == 1 && process.space_use->processes.load() == 1;
}

void release_futexes(Thread& thread) {
  thread.releases_futexes.store(true);
  release_robust_futexes(thread);
  futex_abandon_all_pi(thread);
  const VirtualAddress word = thread.clear_child_tid;
  thread.clear_child_tid = VirtualAddress();
  if (word.value() == 0 || is_alone_in_memory(*thread.process)) return;
  if (write_program<u32>(word, 0).is_ok()) wake_one(thread, word);
}

}  // namespace dbos
