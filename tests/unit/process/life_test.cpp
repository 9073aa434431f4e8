// Threads that fork, make threads, write, exit, are killed and wait, all at once and at random, for
// the thread sanitizer and for luck. LIFE_SEED and LIFE_ROUNDS repeat a run, as far as threads do.
#include <sys/mman.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <cstdlib>
#include <iostream>
#include <random>

#include "guest/memory/address_space.h"
#include "guest/memory/frame_allocator.h"
#include "guest/process/clone.h"
#include "guest/process/copy_limit.h"
#include "guest/process/exit.h"
#include "guest/process/helper.h"
#include "guest/process/process_table.h"
#include "guest/process/signal.h"
#include "guest/process/signal_actions.h"
#include "tests/unit/host_platform.h"
#include "tests/unit/memory/machine.h"
#include "tests/unit/process/life_host.h"

namespace dbos::test {
namespace {

constexpr VirtualAddress kHeap{0x4000'0000};
constexpr u64 kHeapPages = 1024;  // two large pages
constexpr u32 kChangedSignals = 3;
constexpr u64 kThreadFlags = 0x50f00;  // CLONE_VM, FS, FILES, SIGHAND, THREAD

std::atomic<i64> steps_left{0};

u32 pick(u32 count) {
  return life::random_numbers()() % count;
}

void write_pages() {
  AddressSpace& space = *current_thread().space;
  for (u32 i = 0; i < 8; ++i) {
    (void)space.handle_fault(kHeap + pick(kHeapPages) * kPageSize, Access::kWrite);
  }
}

// As a read(2) does, in which the thread may be killed.
void call_with_buffer() {
  AddressSpace& space = *current_thread().space;
  HostSegment segments[4];
  const VirtualAddress at = kHeap + pick(kHeapPages - 4) * kPageSize;
  (void)space.resolve_for_host(at, 2 * kPageSize, Access::kWrite, segments, 4);
  if (life::is_killed()) exit_thread_dying();
  space.unpin();
}

// As prlimit(2) and dbos-dbg look at other processes.
void visit_other() {
  const i32 id = life::any_process();
  visit_process(id, [](Process& process) {
    const u64 value = pick(1000);
    process.address_space_limit = {value, value};
  });
  Thread& own = current_thread();
  SharedSpace shared(*own.process);
  (void)shared.space().statistics();
  shared.drop();
}

void check_inherited() {
  const ResourceLimit& limit = current_process().address_space_limit;
  visit_process(current_process().process_id, [&](Process&) {
    if (limit.soft != limit.hard) throw std::runtime_error("half of a limit was inherited");
  });
}

// As sigaction(2) does.
void change_action() {
  Process& process = current_process();
  const u32 signal = 1 + pick(kChangedSignals);
  SignalAction action{};
  action.handler = pick(3);
  {
    const LockGuard guard(process.signal_lock);
    set_action(process, signal, action);
  }
  tell_linux(process, signal);
}

SignalDisposition disposition_in(const Process& process, u32 signal) {
  const SignalAction& action = process.actions[signal - 1];
  if (is_caught(action)) return SignalDisposition::kCatch;
  return action.handler == kHandlerIgnore ? SignalDisposition::kIgnore
                                          : SignalDisposition::kDefault;
}

// What nobody is about to tell Linux is known to it.
void check_actions() {
  Process& process = current_process();
  const LockGuard guard(process.signal_lock);
  const u64 unknown = process.untold_signals | process.signals_being_told;
  for (u32 signal = 1; signal <= kChangedSignals; ++signal) {
    if ((unknown & signal_bit(signal)) != 0) continue;
    if (life::disposition(signal) != disposition_in(process, signal)) {
      throw std::runtime_error("Linux knows another action");
    }
  }
}

bool end_for_memory() {
  return end_snapshot_for_memory(frame_allocator.counts().free);
}

void limit_copies() {
  if (pick(4) == 0) (void)end_for_memory();
}

void fork_and_perhaps_wait() {
  Thread& thread = current_thread();
  const i64 id =
      pick(4) == 0 ? system_vfork(thread, life::frame()) : system_fork(thread, life::frame());
  if (id > 0 && pick(2) == 0) life::wait_for(static_cast<i32>(id));
}

void step() {
  switch (pick(16)) {
    case 0:
    case 1:
    case 2:
      return fork_and_perhaps_wait();
    case 3:
    case 4:
      (void)system_clone(current_thread(), life::frame(), kThreadFlags, 0, 0, 0, 0);
      return;
    case 5:
      return visit_other();
    case 6:
      if (pick(4) == 0) life::kill(life::any_process());
      return;
    case 7:
      return limit_copies();
    case 8:
      return call_with_buffer();
    case 9:
      if (pick(2) == 0) exit_thread(0);
      return;
    case 10:
      if (pick(16) == 0) exit_process(0);
      return;
    case 11:
    case 12:
      return change_action();
    default:
      return write_pages();
  }
}

void run_program() {
  check_inherited();
  while (true) {
    if (life::is_killed()) exit_thread_dying();
    check_actions();
    if (steps_left.fetch_sub(1) <= 0) exit_thread(0);
    step();
  }
}

u32 number(const char* name, u32 otherwise) {
  const char* const text = std::getenv(name);
  return text == nullptr ? otherwise : static_cast<u32>(std::strtoul(text, nullptr, 0));
}

// One program, from its first thread to the end of its last process.
void run_round(u32 seed, bool ends_snapshots) {
  AddressSpace* const space = AddressSpace::create(kernel_root_for_tests()).value();
  REQUIRE(space
              ->map_anonymous(kHeap, kHeapPages * kPageSize, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED)
              .is_ok());
  BootInformation boot{};
  boot.flags = ends_snapshots ? DBOS_BOOT_COW_KILL : 0;
  boot.cow_limit = 64 * kPageSize;
  boot.ready_copies = seed % 2;
  prepare_copy_limit(boot);
  Process& first = *create_process(*space, nullptr).value();
  prepare_helper(first, boot);
  steps_left.store(2000);
  life::program = run_program;
  life::run(first, seed);
}

}  // namespace

TEST_CASE("processes and threads that come and go at random leave nothing behind") {
  const u32 seed = number("LIFE_SEED", std::random_device{}());
  const u32 rounds = number("LIFE_ROUNDS", 20);
  std::cout << "LIFE_SEED=" << seed << '\n';
  const PhysicalAddress root = kernel_root_for_tests();
  set_kernel_root(root);
  host::on_no_memory = end_for_memory;
  host::on_copy_limit = keep_copy_limit;
  frame_allocator.drain_caches();
  const FrameCounts before = frame_allocator.counts();
  for (u32 round = 0; round < rounds; ++round) {
    run_round(seed + round, round % 2 == 0);
    host::set_vcpu(0);
    frame_allocator.drain_caches();
    check_memory_invariants();
    const FrameCounts after = frame_allocator.counts();
    REQUIRE(after.pages == before.pages);
    REQUIRE(after.nodes == before.nodes);
    REQUIRE(after.retired_pages == 0);
    REQUIRE(line_count() == 0);
  }
  const life::Counts counts = life::counts();
  std::cout << counts.processes << " processes, " << counts.threads << " threads, " << counts.killed
            << " killed, " << counts.killed_while_making << " of them making a child\n";
  set_copy_limit(kUnlimited);
  host::on_no_memory = nullptr;
  host::on_copy_limit = nullptr;
}

}  // namespace dbos::test
