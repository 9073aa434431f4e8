#include "guest/process/robust_list.h"

#include <linux/futex.h>

#include <catch2/catch.hpp>
#include <thread>

#include "guest/process/futex.h"
#include "tests/unit/process/fake_kernel.h"

namespace dbos {
namespace {

// A robust mutex: its list entry and its word at a distance.
struct RobustMutex {
  robust_list entry;
  u32 word;
};

Process& process() {
  static Process* const one = [] {
    auto* made = new Process{};
    made->process_id = 50;
    made->space = fake::space(3);
    return made;
  }();
  return *one;
}

struct List {
  robust_list_head head;
  RobustMutex mutexes[3];

  List() {
    head.futex_offset = offsetof(RobustMutex, word);
    head.list_op_pending = nullptr;
    head.list.next = &mutexes[0].entry;
    mutexes[0].entry.next = &mutexes[1].entry;
    mutexes[1].entry.next = &mutexes[2].entry;
    mutexes[2].entry.next = &head.list;
  }
  void give_to(Thread& thread) {
    thread.robust_list_head = VirtualAddress(reinterpret_cast<u64>(&head));
  }
};

VirtualAddress at(const void* pointer) {
  return VirtualAddress(reinterpret_cast<u64>(pointer));
}

}  // namespace

TEST_CASE("the futexes of a thread that ends are marked, those of others are left alone") {
  fake::ProgramThread self(process(), 5);
  List list;
  list.mutexes[0].word = 5;
  list.mutexes[1].word = 6;
  list.mutexes[2].word = 5 | FUTEX_WAITERS;
  list.give_to(self.thread());
  release_futexes(self.thread());
  CHECK(list.mutexes[0].word == FUTEX_OWNER_DIED);
  CHECK(list.mutexes[1].word == 6);
  CHECK(list.mutexes[2].word == (FUTEX_OWNER_DIED | FUTEX_WAITERS));
  CHECK(self.thread().robust_list_head.value() == 0);
}

TEST_CASE("a robust list that is a circle ends") {
  fake::ProgramThread self(process(), 5);
  List list;
  for (RobustMutex& mutex : list.mutexes) mutex.word = 5;
  list.mutexes[2].entry.next = &list.mutexes[0].entry;
  list.give_to(self.thread());
  release_futexes(self.thread());
  CHECK(list.mutexes[2].word == FUTEX_OWNER_DIED);
}

TEST_CASE("the futex that was being unlocked wakes its waiters") {
  fake::ProgramThread self(process(), 5);
  List list;
  for (RobustMutex& mutex : list.mutexes) mutex.word = 0;
  list.head.list.next = &list.head.list;
  list.head.list_op_pending = &list.mutexes[1].entry;
  list.give_to(self.thread());
  i64 result = -1;
  std::thread waiter([&] {
    fake::ProgramThread other(process(), 6);
    result = futex_wait(other.thread(), at(&list.mutexes[1].word), 0, kFutexBitsetAny,
                        FutexDeadline::never());
  });
  const FutexKey key{process().space, at(&list.mutexes[1].word).value()};
  for (bool found = false; !found;) {
    LockGuard guard(futex_bucket(key).lock);
    found = futex_bucket(key).first_of(key) != nullptr;
  }
  release_futexes(self.thread());
  waiter.join();
  CHECK(result == 0);
}

TEST_CASE("a thread's end clears its word and wakes who waits for it") {
  fake::ProgramThread self(process(), 5);
  u32 word = 5;
  self.thread().clear_child_tid = at(&word);
  i64 result = -1;
  std::thread waiter([&] {
    fake::ProgramThread other(process(), 6);
    result = futex_wait(other.thread(), at(&word), 5, kFutexBitsetAny, FutexDeadline::never());
  });
  const FutexKey key{process().space, at(&word).value()};
  for (bool found = false; !found;) {
    LockGuard guard(futex_bucket(key).lock);
    found = futex_bucket(key).first_of(key) != nullptr;
  }
  release_futexes(self.thread());
  waiter.join();
  CHECK(result == 0);
  CHECK(word == 0);
}

TEST_CASE("the end of a process that shares its memory with nobody leaves the word alone") {
  SpaceUse use;
  Process alone{};
  alone.space = process().space;
  alone.space_use = &use;
  alone.thread_count = 1;
  fake::ProgramThread self(alone, 5);
  u32 word = 5;
  self.thread().clear_child_tid = at(&word);
  release_futexes(self.thread());
  CHECK(word == 5);
  use.processes = 2;  // a child of vfork
  self.thread().clear_child_tid = at(&word);
  release_futexes(self.thread());
  CHECK(word == 0);
}

TEST_CASE("a waiter of a priority inheritance futex inherits it from a thread that ends") {
  fake::ProgramThread self(process(), 5);
  u32 word = 5;
  i64 result = -1;
  std::thread waiter([&] {
    fake::ProgramThread other(process(), 6);
    result = futex_lock_pi(other.thread(), at(&word), FutexDeadline::never());
  });
  const FutexKey key{process().space, at(&word).value()};
  for (bool found = false; !found;) {
    LockGuard guard(futex_bucket(key).lock);
    found = futex_bucket(key).first_of(key) != nullptr;
  }
  release_futexes(self.thread());
  waiter.join();
  CHECK(result == 0);
  CHECK(word == (6 | FUTEX_WAITERS | FUTEX_OWNER_DIED));
}

TEST_CASE("a shared priority inheritance futex stays marked for the waiters that Linux has") {
  fake::ProgramThread self(process(), 5);
  u32 word = 5 | FUTEX_WAITERS;
  fake::words_are_shared = true;
  futex_abandon_pi(self.thread(), at(&word));
  fake::words_are_shared = false;
  CHECK(word == (FUTEX_WAITERS | FUTEX_OWNER_DIED));
  word = 5 | FUTEX_WAITERS;
  futex_abandon_pi(self.thread(), at(&word));
  CHECK(word == FUTEX_OWNER_DIED);
}

}  // namespace dbos
