// System calls, signals, and two threads or processes that answer each other.
#include <linux/futex.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <csignal>
#include <cstdint>
#include <stdexcept>
#include <thread>

#include "tools/bench/measures.h"
#include "tools/bench/pipe.h"

namespace dbos::bench {
namespace {

constexpr std::array<Measure, 19> kMeasures = {{
    {"getpid", measure_getpid},
    {"getppid", measure_getppid},
    {"signal", measure_signal},
    {"futex", measure_futex},
    {"pipe", measure_pipe},
    {"thread", measure_thread},
    {"fork", measure_fork},
    {"process-stall", measure_process_stall},
    {"fork-stall-64m", measure_fork_stall_64m},
    {"fork-stall-256m", measure_fork_stall_256m},
    {"fork-stall-1g", measure_fork_stall_1g},
    {"fork-stall-2g", measure_fork_stall_2g},
    {"fork-next-call", measure_fork_next_call},
    {"write-fault-snapshot", measure_write_fault_snapshot},
    {"write-fault-random", measure_write_fault_random},
    {"snapshot-idle", measure_snapshot_idle, "bytes"},
    {"first-write-4k", measure_first_write_4k},
    {"first-write-2m", measure_first_write_2m},
    {"watch", measure_watch},
}};

std::atomic<uint64_t> signals_handled = 0;

void count_signal(int) {
  signals_handled.fetch_add(1, std::memory_order_relaxed);
}

// A word that two threads hand to each other; each sleeps in futex while it is the other's turn.
class Turn {
 public:
  void wait_for(uint32_t turn) {
    for (;;) {
      const uint32_t seen = word_.load();
      if (seen == turn || seen == kEnd) return;
      futex(FUTEX_WAIT_PRIVATE, seen);
    }
  }

  void give(uint32_t turn) {
    word_.store(turn);
    futex(FUTEX_WAKE_PRIVATE, 1);
  }

  void end() { give(kEnd); }
  bool is_ended() const { return word_.load() == kEnd; }

 private:
  static constexpr uint32_t kEnd = 2;

  void futex(int operation, uint32_t value) {
    syscall(SYS_futex, &word_, operation, value, nullptr, nullptr, 0);
  }

  std::atomic<uint32_t> word_ = 0;
};

[[noreturn]] void echo_until_end(const Pipe& questions, const Pipe& answers) {
  close(questions.ends[1]);
  while (questions.receive() && answers.send()) {
  }
  _exit(0);
}

}  // namespace

std::span<const Measure> measures() {
  return kMeasures;
}

Measured measure_getpid(Seconds budget) {
  return {time_batches(budget,
                       [](uint64_t count) {
                         for (uint64_t i = 0; i < count; ++i) syscall(SYS_getpid);
                       }),
          {}};
}

Measured measure_getppid(Seconds budget) {
  return {time_batches(budget,
                       [](uint64_t count) {
                         for (uint64_t i = 0; i < count; ++i) syscall(SYS_getppid);
                       }),
          {}};
}

Measured measure_signal(Seconds budget) {
  struct sigaction action = {};
  action.sa_handler = count_signal;
  sigaction(SIGUSR1, &action, nullptr);
  const pid_t self = getpid();
  uint64_t sent = 0;
  const Samples samples = time_batches(budget, [&](uint64_t count) {
    for (uint64_t i = 0; i < count; ++i) kill(self, SIGUSR1);
    sent += count;
  });
  if (signals_handled.load() != sent) throw std::runtime_error("signals were lost");
  return {samples, {}};
}

Measured measure_futex(Seconds budget) {
  Turn turn;
  std::thread answerer([&] {
    for (;;) {
      turn.wait_for(1);
      if (turn.is_ended()) return;
      turn.give(0);
    }
  });
  const Samples round_trips = time_batches(budget, [&](uint64_t count) {
    for (uint64_t i = 0; i < count; ++i) {
      turn.give(1);
      turn.wait_for(0);
    }
  });
  turn.end();
  answerer.join();
  return {round_trips.scaled(0.5), {}};  // a round trip is two wake-ups
}

Measured measure_pipe(Seconds budget) {
  const Pipe questions;
  const Pipe answers;
  const pid_t child = fork();
  if (child < 0) throw std::runtime_error("fork failed");
  if (child == 0) echo_until_end(questions, answers);
  const Samples samples = time_batches(budget, [&](uint64_t count) {
    for (uint64_t i = 0; i < count; ++i) {
      if (!questions.send() || !answers.receive()) throw std::runtime_error("the child is gone");
    }
  });
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  return {samples, {}};
}

}  // namespace dbos::bench
