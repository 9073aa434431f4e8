#include "guest/process/helper.h"

#include <time.h>

#include <atomic>

#include "guest/arch/cpu.h"
#include "guest/hypercall.h"
#include "guest/lib/log.h"
#include "guest/memory/address_space.h"
#include "guest/process/clock.h"
#include "guest/process/process_table.h"

namespace dbos {
namespace {

// The address space's lock is held for that many page tables: some microseconds.
constexpr u32 kTablesAtOnce = 16;
// How often copies that nobody asks for are brought in step.
constexpr u64 kFollowPeriod_ns = 20'000'000;
// Between two steps of putting pages together, each of which may copy 2 MiB: so it takes a part of
// a processor only.
constexpr u64 kReassemblePause_ns = 1'000'000;

struct Helper {
  Spinlock lock;         // guards `first`
  Process* first;        // null: released
  bool keeps_ready;      // fixed at boot
  std::atomic<u32> cpu;  // its vCPU's index + 1; 0: it does not run
  std::atomic<bool> sleeps;
  std::atomic<bool> is_awaited;      // something is to be done
  std::atomic<u64> snapshots_ended;  // after each, pages may be whole again
  // The helper's own: after how many of these it looks for such pages now, and has looked.
  u64 looks_after;
  u64 has_looked_after;
};
constinit Helper helper = {};

// Sleeps until `until` (CLOCK_MONOTONIC, ns; kUnlimited: for good) or until there is work.
void sleep_until(u64 until) {
  helper.sleeps.store(true);
  if (!helper.is_awaited.load() && !platform::is_dying()) {
    hypercall(Service::kPark, until, CLOCK_MONOTONIC);
  }
  helper.sleeps.store(false);
}

// A part of a pass over the whole address space. One that ends while a pass is under way gets a
// pass of its own. Returns whether there is more to do.
bool reassemble(AddressSpace& space) {
  if (helper.looks_after == helper.has_looked_after) {
    helper.looks_after = helper.snapshots_ended.load();
    if (helper.looks_after == helper.has_looked_after) return false;
  }
  if (!space.reassemble(kTablesAtOnce)) helper.has_looked_after = helper.looks_after;
  return helper.has_looked_after != helper.snapshots_ended.load();
}

// One turn. The result is the time at which the next one is due.
u64 work_on(AddressSpace& space) {
  helper.is_awaited.store(false);
  while (helper.keeps_ready && !platform::is_dying() && space.refill(kTablesAtOnce))
    platform::pause();
  if (reassemble(space)) return clock_now(CLOCK_MONOTONIC) + kReassemblePause_ns;
  return helper.keeps_ready ? clock_now(CLOCK_MONOTONIC) + kFollowPeriod_ns : kUnlimited;
}

void work(Process& first) {
  SharedSpace shared(first);
  helper.lock.unlock();
  helper.cpu.store(current_thread().vcpu + 1);
  while (!platform::is_dying()) sleep_until(work_on(shared.space()));
  helper.cpu.store(0);
  shared.drop();
}

}  // namespace

void prepare_helper(Process& first, const BootInformation& boot) {
  const auto copies = static_cast<u32>(boot.ready_copies);
  helper.keeps_ready = copies != 0 && first.space->keep_ready(copies).is_ok();
  if (copies != 0 && !helper.keeps_ready) {
    LogLine().text("no memory for --snapshot=ready: forks share page tables").send();
  }
  if (!helper.keeps_ready && !memory_options().large_pages) return;
  helper.first = &first;
  // Where there can't be one the VMM says so, perhaps at a fork only.
  hypercall(Service::kHelper, kHelperStart, helper.keeps_ready ? 0 : DBOS_HELPER_AFTER_FORK);
}

void run_helper() {
  helper.lock.lock();
  if (helper.first != nullptr) {
    work(*helper.first);
  } else {
    helper.lock.unlock();
  }
  // Repeated when the host thread was killed before the host had seen the call (exit.cpp).
  for (;;) hypercall(Service::kThreadExit, 0);
}

void wake_helper(HelperWork work) {
  if (work == HelperWork::kSnapshotTaken && !helper.keeps_ready) return;
  if (work == HelperWork::kSnapshotEnded) {
    if (!memory_options().large_pages) return;
    helper.snapshots_ended.fetch_add(1);
  }
  helper.is_awaited.store(true);
  const u32 cpu = helper.cpu.load();
  if (cpu != 0 && helper.sleeps.load()) repeat_hypercall(Service::kWake, cpu - 1);
}

void leave_helper(Process& first) {
  const LockGuard guard(helper.lock);
  if (helper.first == &first) helper.first = nullptr;
}

}  // namespace dbos
