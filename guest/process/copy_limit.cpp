#include "guest/process/copy_limit.h"

#include <time.h>

#include <atomic>

#include "guest/hypercall.h"
#include "guest/lib/log.h"
#include "guest/memory/address_space.h"
#include "guest/memory/frame_allocator.h"
#include "guest/process/clock.h"
#include "guest/process/process_table.h"

namespace dbos {
namespace {

constexpr u64 kLook_ns = 1'000'000;           // between two looks whether a snapshot is gone
constexpr u64 kPatience_ns = 10'000'000'000;  // until another one is ended
// What one fault may need, and more: with so many more the program goes on.
constexpr u64 kEnoughFrames = 64;

bool ends_snapshots = false;
constinit std::atomic<u64> seen_ended{0};

// A debugger's agent, which writes to main's memory, can't end anybody.
bool may_limit() {
  const bool is_agent = (current_hypercall_page().debug & kDebugAgent) != 0;
  return current_process().is_main.load() && !platform::is_dying() && !is_agent;
}

// A signal ends it early; then others get a chance to run.
void sleep_for(u64 time_ns) {
  const i64 result =
      hypercall(Service::kPark, clock_now(CLOCK_MONOTONIC) + time_ns, CLOCK_MONOTONIC);
  if (is_interrupted(result)) hypercall(Service::kYield);
}

// The clock is read again: a signal may have ended the sleep. A system call may copy in many steps.
void delay_copy(u64 wanted_ns) {
  u64& delayed_ns = current_thread().copies_delayed_ns;
  const u64 left_ns = kCopyDelayMost_ns - delayed_ns;
  const u64 time_ns = wanted_ns < left_ns ? wanted_ns : left_ns;
  if (time_ns == 0) return;
  delayed_ns += time_ns;
  const u64 begin_ns = clock_now(CLOCK_MONOTONIC);
  sleep_for(time_ns);
  platform::counters().add(Counter::kCopyDelayed_ns, clock_now(CLOCK_MONOTONIC) - begin_ns);
}

// ESRCH: it has executed a program, or ended, and its memory comes back by itself.
bool end_process_of(const Candidate& snapshot, const char* why) {
  const i64 result = hypercall(Service::kEndFork, static_cast<u64>(snapshot.process_id));
  if (result != 0) return false;
  LogLine()
      .text("process ")
      .number(snapshot.process_id)
      .text(", a snapshot, is ended: ")
      .text(why)
      .text("; it kept ")
      .number(static_cast<i64>(snapshot.kept_bytes / kMiB))
      .text(" MiB")
      .send();
  return true;
}

// Ends the snapshot that keeps most, or waits for one that is ending, until `is_enough()`. Returns
// whether it is, or one is gone. A snapshot whose process has not begun yet is ended when it has;
// where one can't be ended, the next one is.
// `owner`: of those that keep something that was this line's, if it is not null.
template <typename Enough>
bool end_snapshot(const Line* owner, const char* why, Counter counter, Enough is_enough) {
  const u64 before = ended_spaces();
  const auto is_over = [&] { return ended_spaces() != before || is_enough(); };
  const u64 until_ns = clock_now(CLOCK_MONOTONIC) + kPatience_ns;
  while (!is_over() && may_limit()) {
    const u64 now_ns = clock_now(CLOCK_MONOTONIC);
    const Candidate snapshot = condemn_snapshot(owner, now_ns, kPatience_ns);
    if (!snapshot.exists || (!snapshot.is_condemned && now_ns >= until_ns)) break;
    if (snapshot.process_id != 0 && end_process_of(snapshot, why)) {
      platform::counters().count(counter);
    }
    sleep_for(kLook_ns);
  }
  return is_over();
}

}  // namespace

void prepare_copy_limit(const BootInformation& boot) {
  if (boot.cow_limit != 0) set_copy_limit(boot.cow_limit);
  ends_snapshots = (boot.flags & DBOS_BOOT_COW_KILL) != 0;
}

void keep_copy_limit(u64 kept, u32 copied_pages) {
  if (!may_limit()) return;
  platform::counters().count(Counter::kCopyLimited);
  if (ends_snapshots) {
    AddressSpace& space = *current_process().space;
    (void)end_snapshot(&space.line(), "more is kept for snapshots than --cow-limit allows",
                       Counter::kEndedForLimit,
                       [&] { return space.left_for_snapshots() <= copy_limit(); });
  } else {
    delay_copy(copy_delay_ns(kept, copy_limit(), copied_pages));
  }
}

bool end_snapshot_for_memory(u64 free_before) {
  if (!may_limit()) return false;
  const bool is_better = end_snapshot(
      nullptr, "there is no memory left for the program itself", Counter::kEndedForMemory,
      [&] { return frame_allocator.counts().free >= free_before + kEnoughFrames; });
  // Or one has ended by itself after the caller had found no memory.
  const u64 ended = ended_spaces();
  return seen_ended.exchange(ended) != ended || is_better;
}

}  // namespace dbos
