// The library in a program that forks by itself, cancels threads and gives up rights. What goes
// wrong here mostly waits for ever: each case has a time limit.
#include <fcntl.h>
#include <pthread.h>

#include <atomic>
#include <mutex>
#include <thread>

#include "tests/unit/skipped.h"
#include "tests/unit/snapshot_api/support.h"

namespace {

class TimeLimit {
 public:
  TimeLimit() { alarm(60); }
  ~TimeLimit() { alarm(0); }
  TimeLimit(const TimeLimit&) = delete;
  TimeLimit& operator=(const TimeLimit&) = delete;
};

// A program's own fork handlers, registered before any snapshot is there.
std::mutex programs_lock;
thread_local void (*before_fork)() = nullptr;

[[maybe_unused]] const int registered = pthread_atfork(
    [] {
      programs_lock.lock();
      if (before_fork != nullptr) before_fork();
    },
    [] { programs_lock.unlock(); },
    [] {
      (void)dbos_snapshot_release({0});
      programs_lock.unlock();
    });

constexpr size_t kResult = 96U << 20;
Wanted results() {
  return {0, UINT64_MAX, 2 * kResult};
}

void await_creation() {
  Wanted wanted = results();
  while (!find_shared_mapping(wanted)) usleep(100);
}

struct Cancelled {
  dbos_snapshot snapshot;
  dbos_run run;
  dbos_error started, waited;
};

// Cancelled as soon as it may be.
void* call_cancelled(void* argument) {
  auto* const shared = static_cast<Cancelled*>(argument);
  dbos_run other{};
  pthread_cancel(pthread_self());
  shared->started = dbos_run_start(shared->snapshot, sleep_for_ever, nullptr, 0, &other);
  shared->waited = dbos_run_wait(shared->run, 20, nullptr, nullptr, 0, nullptr);
  pthread_testcancel();
  return nullptr;
}

// The library's are the only ones; then the descriptor that the argument says.
int32_t close_events_and_sleep(const void* argument, size_t, dbos_result*) {
  char name[32];
  for (int i = 0; i < 512; ++i) {
    const ssize_t length =
        readlink(("/proc/self/fd/" + std::to_string(i)).c_str(), name, sizeof name);
    if (length > 0 && std::string(name, length).find("eventfd") != std::string::npos) close(i);
  }
  for (int i = 0; i < 8; ++i) (void)open("/dev/null", O_RDONLY);
  int last;
  memcpy(&last, argument, sizeof last);
  close(last);
  return sleep_for_ever(nullptr, 0, nullptr);
}

int32_t return_size(const void*, size_t size, dbos_result*) {
  return static_cast<int32_t>(size);
}

}  // namespace

TEST_CASE("fork handlers of the program may take a lock under which it uses snapshots",
          "[threads-fork]") {
  const TimeLimit limit;
  REQUIRE(registered == 0);
  const Snapshot snapshot;
  std::atomic<bool> is_over{false};
  std::thread user([&] {
    uint64_t epoch;
    while (!is_over) {
      const std::lock_guard guard(programs_lock);
      (void)dbos_snapshot_epoch(snapshot.handle, &epoch);
    }
  });
  for (int turn = 0; turn < 50; ++turn) CHECK(answer_of_child([] { return 0; }) == 0);
  is_over = true;
  user.join();
}

TEST_CASE("a child that is forked while a snapshot is made does not inherit its results",
          "[threads-fork]") {
  const TimeLimit limit;
  std::thread creator([] { const Snapshot snapshot(1, kResult); });
  before_fork = await_creation;
  Wanted wanted = results();
  CHECK(answer_of_child([&] { return find_shared_mapping(wanted) ? 1 : 0; }) == 0);
  before_fork = nullptr;
  creator.join();
}

TEST_CASE("a thread is cancelled behind a call, not in it") {
  const TimeLimit limit;
  const Snapshot snapshot;
  Cancelled shared{snapshot.handle, snapshot.start(sleep_for_ever, 0), DBOS_ERROR_SYSTEM,
                   DBOS_ERROR_SYSTEM};
  pthread_t thread;
  void* result = nullptr;
  REQUIRE(pthread_create(&thread, nullptr, call_cancelled, &shared) == 0);
  REQUIRE(pthread_join(thread, &result) == 0);
  CHECK(result == PTHREAD_CANCELED);
  CHECK(shared.started == DBOS_OK);
  CHECK(shared.waited == DBOS_ERROR_TIMEOUT);
  CHECK(answer_of_child([] { return 0; }) == 0);
  CHECK(dbos_run_wait(shared.run, 0, nullptr, nullptr, 0, nullptr) == DBOS_ERROR_TIMEOUT);
}

// Its end is asked for while it looks for what the run's ring was about, or before, or after.
TEST_CASE("a snapshot that this process may not kill any more ends all the same") {
  if (geteuid() != 0) return skip_case("only root can become another user");
  const int answer = answer_of_child([] {
    const TimeLimit limit;
    for (int turn = 0; turn < 100; ++turn) {
      dbos_snapshot own{};
      dbos_run run{};
      if (dbos_snapshot_create(nullptr, &own) != DBOS_OK) return 1;
      usleep(500);  // it waits now
      if (dbos_run_start(own, sleep_for_ever, nullptr, 0, &run) != DBOS_OK) return 2;
      if (setresuid(65534, 65534, 0) != 0) return 3;
      for (volatile int wait = turn * 50; wait > 0;) wait = wait - 1;
      if (dbos_snapshot_release(own) != DBOS_OK) return 4;
      if (setresuid(0, 0, 0) != 0) return 5;
    }
    return 0;
  });
  CHECK(answer == 0);
}

TEST_CASE("a snapshot ends if a function has closed its doorbell") {
  const TimeLimit limit;
  int ends[2];
  char byte;
  REQUIRE(pipe(ends) == 0);
  const Snapshot snapshot;
  close(ends[1]);
  const dbos_run closing = snapshot.start(close_events_and_sleep, ends[1]);
  CHECK(read(ends[0], &byte, 1) == 0);
  close(ends[0]);
  // Its doorbell's number may be another file's.
  dbos_run next{};
  dbos_error error = dbos_run_start(snapshot.handle, return_size, nullptr, 0, &next);
  if (error == DBOS_OK) error = dbos_run_wait(next, -1, nullptr, nullptr, 0, nullptr);
  CHECK(error == DBOS_ERROR_DIED);
  CHECK(dbos_run_wait(closing, -1, nullptr, nullptr, 0, nullptr) == DBOS_ERROR_DIED);
}
