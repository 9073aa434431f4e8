// Which children are ended for the memory that they keep, and how long main waits for it.

#include "guest/process/copy_limit.h"

#include <asm/unistd_64.h>

#include <catch2/catch.hpp>
#include <functional>
#include <vector>

#include "guest/hypercall.h"
#include "guest/process/clock.h"
#include "guest/process/helper.h"
#include "guest/process/process_table.h"
#include "tests/unit/memory/machine.h"

namespace dbos {
namespace {

constexpr u64 kSecond_ns = 1'000'000'000;

Thread main_thread;
HypercallPage main_page;
u64 now_ns = kSecond_ns;
std::function<void()> on_sleep;  // after each look
std::function<i64(i32)> on_kill;

}  // namespace

// ---- What is below the process table ----

Thread& current_thread() {
  return main_thread;
}
HypercallPage& current_hypercall_page() {
  return main_page;
}
u64 clock_now(u32) {
  return now_ns;
}
void wake_helper(HelperWork) {}
void leave_helper(Process&) {}

i64 hypercall(u32 number, u64 a0, u64, u64, u64, u64, u64) {
  if (is(number, Service::kPark)) {
    now_ns = a0;
    if (on_sleep) on_sleep();
    return -ETIMEDOUT;
  }
  if (is(number, Service::kEndFork)) return on_kill(static_cast<i32>(a0));
  return 0;
}

namespace test {
namespace {

constexpr VirtualAddress kHeap{0x1000'0000};
constexpr u64 kHeapPages = 64;

bool end_for_memory() {
  return end_snapshot_for_memory(frame_allocator.counts().free);
}

u64 ended_for_memory() {
  return platform::counters().events[static_cast<u32>(Counter::kEndedForMemory)];
}

class CopyLimitFixture {
 public:
  CopyLimitFixture() {
    AddressSpace* space = AddressSpace::create(kernel_root_for_tests()).value();
    main = create_process(*space, nullptr).value();
    main_thread.process = main;
    (void)space->map_anonymous(kHeap, kHeapPages * kPageSize, PROT_READ | PROT_WRITE,
                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_STACK);
    write_heap(kHeapPages);
    (void)end_for_memory();  // what has ended before does not count
    on_kill = [this](i32 id) {
      killed.push_back(id);
      return 0;
    };
    began_ns = now_ns;
    main_thread.copies_delayed_ns = 0;
  }
  ~CopyLimitFixture() {
    set_copy_limit(kUnlimited);
    on_sleep = nullptr;
    on_kill = nullptr;
    release_process(*main);
  }

  Process& fork(i32 id) { return fork(*main, id); }
  Process& fork(Process& parent, i32 id) {
    AddressSpace* space = parent.space->snapshot().value();
    Process& child = *create_process(*space, &parent).value();
    child.process_id = id;
    return child;
  }
  void write_heap(u64 pages) { write_heap(*main, pages); }
  void write_heap(Process& process, u64 pages) {
    for (u64 i = 0; i < pages; ++i) {
      (void)process.space->handle_fault(kHeap + i * kPageSize, Access::kWrite);
    }
  }
  u64 waited_ns() const { return now_ns - began_ns; }

  Process* main;
  std::vector<i32> killed;
  u64 began_ns;
};

}  // namespace

TEST_CASE_METHOD(CopyLimitFixture, "where there is no snapshot, none is ended") {
  CHECK(!end_for_memory());
  CHECK(waited_ns() == 0);
}

TEST_CASE_METHOD(CopyLimitFixture, "the snapshot that keeps most is ended, and waited for") {
  Process& first = fork(11);
  write_heap(20);
  Process& second = fork(12);
  write_heap(5);
  on_sleep = [&] {
    if (waited_ns() >= kSecond_ns) release_process(first), on_sleep = nullptr;
  };
  CHECK(end_for_memory());
  CHECK(killed == std::vector<i32>{11});
  CHECK(waited_ns() == kSecond_ns);
  release_process(second);
}

TEST_CASE_METHOD(CopyLimitFixture, "a snapshot whose process has not begun is ended when it has") {
  Process& child = fork(0);
  write_heap(20);
  on_sleep = [&] {
    if (waited_ns() >= kSecond_ns) child.process_id = 11;
    if (!killed.empty()) release_process(child), on_sleep = nullptr;
  };
  CHECK(end_for_memory());
  CHECK(killed == std::vector<i32>{11});
  CHECK(waited_ns() < 2 * kSecond_ns);
}

TEST_CASE_METHOD(CopyLimitFixture,
                 "main does not wait for ever for a process that does not begin") {
  Process& child = fork(0);
  CHECK(!end_for_memory());
  CHECK(waited_ns() == 10 * kSecond_ns);
  release_process(child);
}

TEST_CASE_METHOD(CopyLimitFixture, "where a snapshot can't be ended, the next one is") {
  Process& stuck = fork(11);
  write_heap(20);
  Process& other = fork(12);
  write_heap(5);
  on_sleep = [&] {
    if (killed.size() == 2) release_process(other), on_sleep = nullptr;
  };
  CHECK(end_for_memory());
  CHECK(killed == std::vector<i32>{11, 12});
  CHECK(!end_for_memory());  // nobody is left, and nobody waits for him again
  CHECK(waited_ns() < 11 * kSecond_ns);
  release_process(stuck);
}

TEST_CASE_METHOD(CopyLimitFixture, "when main ends, the eldest of its children is main") {
  Process& eldest = fork(11);
  Process& second = fork(12);
  main_thread.process = &second;
  release_process(*main);
  CHECK(!end_for_memory());
  main = main_thread.process = &eldest;
  release_process(second);
  CHECK(end_for_memory());
  CHECK(killed.empty());
  Process& child = fork(13);
  write_heap(20);
  on_sleep = [&] {
    if (!killed.empty()) release_process(child), on_sleep = nullptr;
  };
  CHECK(end_for_memory());
  CHECK(killed == std::vector<i32>{13});
}

TEST_CASE_METHOD(CopyLimitFixture, "a snapshot that can't be ended delays one copied page only") {
  BootInformation boot{};
  boot.flags = DBOS_BOOT_COW_KILL;
  boot.cow_limit = kPageSize;
  prepare_copy_limit(boot);
  Process& stuck = fork(11);
  write_heap(20);
  keep_copy_limit(20 * kPageSize, 1);
  CHECK(waited_ns() == 10 * kSecond_ns);
  keep_copy_limit(20 * kPageSize, 1);
  CHECK(waited_ns() == 10 * kSecond_ns);
  CHECK(killed == std::vector<i32>{11});
  release_process(stuck);
}

TEST_CASE_METHOD(CopyLimitFixture, "a snapshot that vfork's child uses has not ended before it") {
  Process& parent = fork(11);
  Process& borrower = *create_process(*parent.space, &parent).value();
  borrower.process_id = 12;
  write_heap(20);
  on_sleep = [&] {
    if (killed.size() == 1 && waited_ns() < kSecond_ns)
      release_process(parent), now_ns += kSecond_ns;
    if (killed.size() == 2) release_process(borrower), on_sleep = nullptr;
  };
  CHECK(end_for_memory());
  CHECK(killed == std::vector<i32>{11, 12});
}

TEST_CASE_METHOD(CopyLimitFixture,
                 "what a dead parent keeps counts for the snapshot that is left") {
  Process& middle = fork(11);
  Process& grandchild = fork(middle, 12);
  release_process(middle);
  write_heap(20);
  Process& small = fork(13);
  write_heap(5);
  on_sleep = [&] {
    if (!killed.empty()) release_process(grandchild), on_sleep = nullptr;
  };
  CHECK(end_for_memory());
  CHECK(killed == std::vector<i32>{12});
  release_process(small);
}

TEST_CASE_METHOD(CopyLimitFixture, "the limit ends who keeps most of main's, not of a child's") {
  BootInformation boot{};
  boot.flags = DBOS_BOOT_COW_KILL;
  boot.cow_limit = 10 * kPageSize;
  prepare_copy_limit(boot);
  Process& child = fork(11);
  write_heap(child, 30);
  Process& grandchild = fork(child, 12);
  write_heap(child, 30);  // the grandchild keeps what was the child's
  write_heap(20);
  on_sleep = [&] {
    if (!killed.empty()) release_process(child), on_sleep = nullptr;
  };
  keep_copy_limit(20 * kPageSize, 1);
  CHECK(killed == std::vector<i32>{11});
  release_process(grandchild);
}

TEST_CASE_METHOD(CopyLimitFixture, "a debugger's agent ends no snapshot") {
  Process& child = fork(11);
  write_heap(20);
  main_page.debug = kDebugAgent;
  CHECK(!end_for_memory());
  main_page.debug = 0;
  CHECK(killed.empty());
  on_sleep = [&] { release_process(child), on_sleep = nullptr; };
  CHECK(end_for_memory());
  CHECK(killed == std::vector<i32>{11});
}

TEST_CASE_METHOD(CopyLimitFixture, "a process that has left the guest is waited for") {
  Process& child = fork(11);
  write_heap(20);
  on_kill = [](i32) { return -ESRCH; };
  on_sleep = [&] {
    if (waited_ns() >= kSecond_ns) release_process(child), on_sleep = nullptr;
  };
  const u64 before = ended_for_memory();
  CHECK(end_for_memory());
  CHECK(ended_for_memory() == before);
}

TEST_CASE_METHOD(CopyLimitFixture, "a system call is delayed by two seconds at most") {
  BootInformation boot{};
  boot.cow_limit = 10 * kPageSize;
  prepare_copy_limit(boot);
  for (int i = 0; i < 3; ++i) keep_copy_limit(30 * kPageSize, 8);
  CHECK(waited_ns() == 2 * kSecond_ns);
  main_thread.copies_delayed_ns = 0;  // the next one
  keep_copy_limit(30 * kPageSize, 1);
  CHECK(waited_ns() == 2 * kSecond_ns + kSecond_ns / 5);
}

}  // namespace test
}  // namespace dbos
