// Handles that are stale, foreign or nothing, arguments out of range, snapshots that die: an error
// each time, and everything else goes on.
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <set>
#include <string>
#include <thread>
#include <vector>

#include "tests/unit/snapshot_api/support.h"

extern "C" int32_t spoil_cost(const void*, size_t, dbos_result*);  // damage.c

namespace {

int32_t return_three(const void*, size_t, dbos_result*) {
  return 3;
}

// Ways to crash, with all signals blocked, as they are in a run.
int32_t write_to_nowhere(const void*, size_t, dbos_result*) {
  int* volatile nowhere = nullptr;
  *nowhere = 1;
  return 0;
}
int32_t give_up(const void*, size_t, dbos_result*) {
  (void)signal(SIGABRT, SIG_DFL);  // the tests' own handler reports a failure
  abort();
}
int32_t leave(const void*, size_t, dbos_result*) {
  _exit(0);
}
int32_t use_all_stack(const void* argument, size_t size, dbos_result* result) {
  volatile char block[65536];
  block[size % sizeof block] = 1;
  return size == SIZE_MAX ? 0 : use_all_stack(argument, size + 1, result) + block[0];
}

dbos_error wait_for(dbos_run run) {
  return dbos_run_wait(run, -1, nullptr, nullptr, 0, nullptr);
}

dbos_error start(dbos_snapshot snapshot) {
  dbos_run run{};
  return dbos_run_start(snapshot, return_three, nullptr, 0, &run);
}

// What happens to this process's children, by the signals about it.
class ChildSignals {
 public:
  ChildSignals() {
    sigemptyset(&signals_);
    sigaddset(&signals_, SIGCHLD);
    REQUIRE(sigprocmask(SIG_BLOCK, &signals_, &before_) == 0);
  }
  ~ChildSignals() { sigprocmask(SIG_SETMASK, &before_, nullptr); }
  ChildSignals(const ChildSignals&) = delete;
  ChildSignals& operator=(const ChildSignals&) = delete;

  // CLD_EXITED and so on.
  int next() const {
    const timespec limit{10, 0};
    siginfo_t info{};
    REQUIRE(sigtimedwait(&signals_, &info, &limit) == SIGCHLD);
    return info.si_code;
  }

 private:
  sigset_t signals_{}, before_{};
};

int32_t leave_a_thread(const void*, size_t, dbos_result*) {
  std::thread([] { sleep_for_ever(nullptr, 0, nullptr); }).detach();
  return 0;
}
int32_t tell_process(const void*, size_t, dbos_result*) {
  return getpid();
}

size_t open_descriptors() {
  size_t open = 0;
  for (int i = 0; i < 512; ++i) open += fcntl(i, F_GETFD) >= 0;
  return open;
}

}  // namespace

TEST_CASE("null pointers and numbers out of range are refused") {
  const Snapshot snapshot;
  dbos_snapshot other{};
  dbos_run run{};
  const dbos_snapshot_options bad[] = {{0, 1}, {DBOS_RUNS_MAX + 1, 1}, {1, DBOS_RESULT_MAX + 1}};
  CHECK(dbos_snapshot_create(nullptr, nullptr) == DBOS_ERROR_ARGUMENT);
  for (const auto& options : bad) {
    CHECK(dbos_snapshot_create(&options, &other) == DBOS_ERROR_ARGUMENT);
  }
  CHECK(other.handle == 0);
  const dbos_snapshot handle = snapshot.handle;
  CHECK(dbos_run_start(handle, nullptr, nullptr, 0, &run) == DBOS_ERROR_ARGUMENT);
  CHECK(dbos_run_start(handle, return_three, nullptr, 0, nullptr) == DBOS_ERROR_ARGUMENT);
  CHECK(dbos_run_start(handle, return_three, nullptr, 1, &run) == DBOS_ERROR_ARGUMENT);
  const std::vector<char> argument(DBOS_ARGUMENT_MAX + 1);
  CHECK(dbos_run_start(handle, return_three, argument.data(), argument.size(), &run) ==
        DBOS_ERROR_ARGUMENT);
  CHECK(dbos_run_start(handle, return_three, argument.data(), DBOS_ARGUMENT_MAX, &run) == DBOS_OK);
  CHECK(dbos_run_wait(run, -1, nullptr, nullptr, 1, nullptr) == DBOS_ERROR_ARGUMENT);
  CHECK(wait_for_status(run) == 3);
  CHECK(dbos_snapshot_epoch(handle, nullptr) == DBOS_ERROR_ARGUMENT);
  CHECK(dbos_snapshot_cost_now(handle, nullptr) == DBOS_ERROR_ARGUMENT);
}

TEST_CASE("handles that never were one are refused") {
  uint64_t epoch;
  dbos_snapshot_cost cost;
  for (const uint64_t number : {UINT64_C(0), UINT64_C(1), UINT64_C(0xffff), UINT64_MAX}) {
    CHECK(dbos_snapshot_release({number}) == DBOS_ERROR_STALE);
    CHECK(dbos_snapshot_epoch({number}, &epoch) == DBOS_ERROR_STALE);
    CHECK(dbos_snapshot_cost_now({number}, &cost) == DBOS_ERROR_STALE);
    CHECK(start({number}) == DBOS_ERROR_STALE);
    CHECK(wait_for({number}) == DBOS_ERROR_STALE);
  }
  // A run is no snapshot, nor the other way round.
  const Snapshot snapshot;
  const dbos_run run = snapshot.start(return_three, 0);
  CHECK(dbos_snapshot_release({run.handle}) == DBOS_ERROR_STALE);
  CHECK(wait_for({snapshot.handle.handle}) == DBOS_ERROR_STALE);
  CHECK(wait_for_status(run) == 3);
}

TEST_CASE("a released snapshot and its runs are stale, also when another has its place") {
  dbos_snapshot snapshot{};
  dbos_run run{};
  REQUIRE(dbos_snapshot_create(nullptr, &snapshot) == DBOS_OK);
  REQUIRE(dbos_run_start(snapshot, return_three, nullptr, 0, &run) == DBOS_OK);
  CHECK(dbos_snapshot_release(snapshot) == DBOS_OK);
  for (int turn = 0; turn < 2; ++turn) {
    const Snapshot next;
    uint64_t epoch;
    CHECK(dbos_snapshot_release(snapshot) == DBOS_ERROR_STALE);
    CHECK(dbos_snapshot_epoch(snapshot, &epoch) == DBOS_ERROR_STALE);
    CHECK(start(snapshot) == DBOS_ERROR_STALE);
    CHECK(wait_for(run) == DBOS_ERROR_STALE);
    CHECK(start(next.handle) == DBOS_OK);
  }
}

TEST_CASE("a result is taken once") {
  const Snapshot snapshot;
  const dbos_run run = snapshot.start(return_three, 0);
  CHECK(wait_for_status(run) == 3);
  CHECK(wait_for(run) == DBOS_ERROR_STALE);
  const dbos_run next = snapshot.start(return_three, 0);
  CHECK(wait_for(run) == DBOS_ERROR_STALE);
  CHECK(wait_for_status(next) == 3);
}

TEST_CASE("another process than the creator may not use a snapshot") {
  const Snapshot snapshot;
  const dbos_run run = snapshot.start(return_three, 0);
  uint64_t epoch;
  dbos_snapshot_cost cost;
  const dbos_snapshot handle = snapshot.handle;
  CHECK(answer_of_child([=] { return dbos_snapshot_release(handle); }) == DBOS_ERROR_OTHER_PROCESS);
  CHECK(answer_of_child([=] { return start(handle); }) == DBOS_ERROR_OTHER_PROCESS);
  CHECK(answer_of_child([=] { return wait_for(run); }) == DBOS_ERROR_OTHER_PROCESS);
  CHECK(answer_of_child([&] { return dbos_snapshot_epoch(handle, &epoch); }) ==
        DBOS_ERROR_OTHER_PROCESS);
  CHECK(answer_of_child([&] { return dbos_snapshot_cost_now(handle, &cost); }) ==
        DBOS_ERROR_OTHER_PROCESS);
  CHECK(wait_for_status(run) == 3);
}

TEST_CASE("a forked process may create snapshots of its own") {
  const Snapshot snapshot;
  const int answer = answer_of_child([] {
    dbos_snapshot own{};
    dbos_run run{};
    int32_t status = 0;
    if (dbos_snapshot_create(nullptr, &own) != DBOS_OK) return 100;
    if (dbos_run_start(own, return_three, nullptr, 0, &run) != DBOS_OK) return 101;
    if (dbos_run_wait(run, -1, &status, nullptr, 0, nullptr) != DBOS_OK) return 102;
    return dbos_snapshot_release(own) == DBOS_OK ? status : 103;
  });
  CHECK(answer == 3);
  CHECK(start(snapshot.handle) == DBOS_OK);
}

// The snapshot holds the pipe open as well.
TEST_CASE("a snapshot ends when its creator is killed") {
  int ends[2];
  REQUIRE(pipe(ends) == 0);
  const pid_t creator = fork();
  if (creator == 0) {
    dbos_snapshot own{};
    dbos_run run{};
    int32_t status = 0;
    const bool is_alive = dbos_snapshot_create(nullptr, &own) == DBOS_OK &&
                          dbos_run_start(own, return_three, nullptr, 0, &run) == DBOS_OK &&
                          dbos_run_wait(run, -1, &status, nullptr, 0, nullptr) == DBOS_OK &&
                          dbos_run_start(own, sleep_for_ever, nullptr, 0, &run) == DBOS_OK;
    if (is_alive && write(ends[1], "s", 1) == 1) raise(SIGKILL);
    _exit(1);
  }
  close(ends[1]);
  int status = 0;
  REQUIRE(waitpid(creator, &status, 0) == creator);
  CHECK(WIFSIGNALED(status));
  char byte;
  CHECK(read(ends[0], &byte, 1) == 1);
  pollfd hung_up{ends[0], 0, 0};
  CHECK(poll(&hung_up, 1, 10'000) == 1);
  close(ends[0]);
}

TEST_CASE("a run that takes long is not waited for longer than asked") {
  const Snapshot snapshot;
  const dbos_run run = snapshot.start(sleep_for_ever, 0);
  CHECK(dbos_run_wait(run, 0, nullptr, nullptr, 0, nullptr) == DBOS_ERROR_TIMEOUT);
  CHECK(dbos_run_wait(run, 20, nullptr, nullptr, 0, nullptr) == DBOS_ERROR_TIMEOUT);
}

TEST_CASE("one thread at a time waits for a run, and release lets it go") {
  dbos_snapshot snapshot{};
  dbos_run run{};
  REQUIRE(dbos_snapshot_create(nullptr, &snapshot) == DBOS_OK);
  REQUIRE(dbos_run_start(snapshot, sleep_for_ever, nullptr, 0, &run) == DBOS_OK);
  dbos_error seen = DBOS_OK;
  std::thread waiter([&] {
    do {
      seen = wait_for(run);
    } while (seen == DBOS_ERROR_BUSY);  // the other one asks now and then
  });
  while (dbos_run_wait(run, 0, nullptr, nullptr, 0, nullptr) != DBOS_ERROR_BUSY) usleep(1000);
  CHECK(dbos_snapshot_release(snapshot) == DBOS_OK);
  waiter.join();
  CHECK(seen == DBOS_ERROR_STALE);
}

TEST_CASE("a crash ends the snapshot, its runs say so, and others go on") {
  const Snapshot other;
  for (const dbos_function crash : {kill_itself, write_to_nowhere, give_up, use_all_stack, leave}) {
    const Snapshot snapshot;
    const dbos_run sleeping = snapshot.start(sleep_for_ever, 0);
    const dbos_run dying = snapshot.start(crash, 0);
    dbos_snapshot_cost cost;
    CHECK(wait_for(sleeping) == DBOS_ERROR_DIED);
    CHECK(wait_for(dying) == DBOS_ERROR_DIED);
    CHECK(start(snapshot.handle) == DBOS_ERROR_DIED);
    CHECK(dbos_snapshot_cost_now(snapshot.handle, &cost) == DBOS_ERROR_DIED);
    CHECK(dbos_snapshot_release(snapshot.handle) == DBOS_OK);
    CHECK(dbos_snapshot_cost_now(snapshot.handle, &cost) == DBOS_ERROR_STALE);
    CHECK(wait_for(other.start(return_three, 0)) == DBOS_OK);
  }
}

TEST_CASE("a released snapshot ends by itself if its runs are done") {
  const ChildSignals signals;
  dbos_snapshot snapshot{};
  dbos_run run{};
  for (const dbos_function function : {return_three, leave_a_thread}) {
    int code = CLD_KILLED;
    // One that gets no processor for too long is killed.
    for (int tries = 0; tries < 20 && code != CLD_EXITED; ++tries) {
      REQUIRE(dbos_snapshot_create(nullptr, &snapshot) == DBOS_OK);
      REQUIRE(dbos_run_start(snapshot, function, nullptr, 0, &run) == DBOS_OK);
      (void)wait_for_status(run);
      CHECK(dbos_snapshot_release(snapshot) == DBOS_OK);
      code = signals.next();
    }
    CHECK(code == CLD_EXITED);
  }
}

TEST_CASE("a released snapshot is killed if a run is under way") {
  const ChildSignals signals;
  dbos_snapshot snapshot{};
  dbos_run run{};
  REQUIRE(dbos_snapshot_create(nullptr, &snapshot) == DBOS_OK);
  REQUIRE(dbos_run_start(snapshot, sleep_for_ever, nullptr, 0, &run) == DBOS_OK);
  CHECK(dbos_snapshot_release(snapshot) == DBOS_OK);
  CHECK(signals.next() == CLD_KILLED);
}

TEST_CASE("a released snapshot that does not answer is killed") {
  const ChildSignals signals;
  dbos_snapshot snapshot{};
  dbos_run run{};
  REQUIRE(dbos_snapshot_create(nullptr, &snapshot) == DBOS_OK);
  REQUIRE(dbos_run_start(snapshot, tell_process, nullptr, 0, &run) == DBOS_OK);
  const pid_t process = wait_for_status(run);
  REQUIRE(kill(process, SIGSTOP) == 0);
  CHECK(signals.next() == CLD_STOPPED);
  CHECK(dbos_snapshot_release(snapshot) == DBOS_OK);
  CHECK(signals.next() == CLD_KILLED);
}

TEST_CASE("a cost that the snapshot has spoiled is refused, and does not keep its place") {
  // Of 16 bytes: none, one too many, more than there is room for.
  for (const size_t claim : {size_t{0}, size_t{17}, SIZE_MAX}) {
    const Snapshot snapshot(1);
    (void)snapshot.start(spoil_cost, claim);
    for (int turn = 0; turn < 2; ++turn) {
      dbos_snapshot_cost cost;
      dbos_error error = DBOS_OK;
      while (error == DBOS_OK) error = dbos_snapshot_cost_now(snapshot.handle, &cost);
      REQUIRE(error == DBOS_ERROR_DIED);
    }
  }
}

TEST_CASE("too many snapshots are refused, and leave nothing behind") {
  const size_t before = open_descriptors();
  std::vector<dbos_snapshot> all;
  dbos_snapshot snapshot{};
  const dbos_snapshot_options options{1, 0};
  dbos_error error = DBOS_OK;
  while ((error = dbos_snapshot_create(&options, &snapshot)) == DBOS_OK) all.push_back(snapshot);
  CHECK(error == DBOS_ERROR_LIMIT);
  CHECK(all.size() == DBOS_SNAPSHOTS_MAX);
  for (const dbos_snapshot one : all) CHECK(dbos_snapshot_release(one) == DBOS_OK);
  CHECK(open_descriptors() == before);
  CHECK(waitpid(-1, nullptr, WNOHANG) == -1);
}

TEST_CASE("no free descriptor is an error that leaves nothing behind") {
  const size_t before = open_descriptors();
  rlimit old{};
  REQUIRE(getrlimit(RLIMIT_NOFILE, &old) == 0);
  const int next = dup(0);
  close(next);
  // Room for the doorbell and a run, but not for the second one's event; then none for the
  // process's.
  for (const rlim_t room : {2, 3}) {
    const rlimit tight{static_cast<rlim_t>(next) + room, old.rlim_max};
    REQUIRE(setrlimit(RLIMIT_NOFILE, &tight) == 0);
    dbos_snapshot snapshot{};
    const dbos_snapshot_options options{1, 0};
    const dbos_error error = dbos_snapshot_create(&options, &snapshot);
    REQUIRE(setrlimit(RLIMIT_NOFILE, &old) == 0);
    CHECK(error == DBOS_ERROR_LIMIT);
    CHECK(open_descriptors() == before);
    CHECK(waitpid(-1, nullptr, WNOHANG) == -1);
  }
}

TEST_CASE("every error has a text of its own") {
  std::set<std::string> texts;
  for (int error = DBOS_OK; error <= DBOS_ERROR_SYSTEM; ++error) {
    const std::string text = dbos_error_text(static_cast<dbos_error>(error));
    CHECK(!text.empty());
    CHECK(texts.insert(text).second);
  }
  CHECK(strcmp(dbos_error_text(static_cast<dbos_error>(99)), "no such error") == 0);
}
