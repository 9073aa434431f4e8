// Signals and their handlers while something else happens: another thread sets a handler, the
// process forks, the thread that a signal came to ends.
#include <pthread.h>
#include <sched.h>

#include <thread>

#include "support.h"

namespace {

constexpr int kRounds = 200;
constexpr int kForks = 60;

volatile int handled = 0;
void counter(int) {
  handled = handled + 1;
}
void other_counter(int) {
  handled = handled + 1;
}

void reset() {
  signal(SIGUSR2, SIG_DFL);
  handled = 0;
}

// Two threads go on from meet() at the same time.
class Rendezvous {
 public:
  void meet() {
    const int others = arrived_.fetch_add(1) / 2 * 2 + 2;
    for (int turns = 0; arrived_.load() < others; ++turns) {
      if (turns > 2000) sched_yield();
    }
  }

 private:
  std::atomic<int> arrived_{0};
};

// Runs `here`, in the calling thread, and `there`, again and again, beginning at the same time.
template <typename Before, typename Here, typename There, typename After>
void run_together(Before before, Here here, There there, After after) {
  Rendezvous begin, end;
  std::thread other([&] {
    for (int i = 0; i < kRounds; ++i) {
      begin.meet();
      there();
      end.meet();
    }
  });
  for (int i = 0; i < kRounds; ++i) {
    before();
    begin.meet();
    here();
    end.meet();
    after();
  }
  other.join();
}

}  // namespace

CASE(handler_is_there_when_sigaction_returns) {
  run_together(
      reset,
      [] {
        install(SIGUSR2, counter);
        raise(SIGUSR2);
        REQUIRE(handled == 1);
      },
      [] { install(SIGUSR2, other_counter); }, [] {});
  signal(SIGUSR2, SIG_DFL);
}

CASE(handler_of_another_thread_is_there_when_it_is_seen) {
  run_together(
      reset,
      [] {
        struct sigaction seen = {};
        while (seen.sa_handler != other_counter) sigaction(SIGUSR2, nullptr, &seen);
        raise(SIGUSR2);
        REQUIRE(handled == 1);
      },
      [] { install(SIGUSR2, other_counter); }, [] {});
  signal(SIGUSR2, SIG_DFL);
}

CASE(handler_that_is_set_while_another_is_reset_stays) {
  run_together(
      [] {
        install(SIGUSR2, counter, SA_RESETHAND);
        handled = 0;
      },
      [] { raise(SIGUSR2); }, [] { install(SIGUSR2, other_counter); },
      [] {
        raise(SIGUSR2);
        REQUIRE(handled == 2);
      });
  signal(SIGUSR2, SIG_DFL);
}

CASE(child_handles_what_its_table_says_while_its_parent_changes_it) {
  std::atomic<bool> stop{false};
  signal(SIGUSR2, SIG_IGN);
  std::thread other([&] {
    while (!stop) {
      install(SIGUSR2, counter);
      signal(SIGUSR2, SIG_IGN);
    }
  });
  handled = 0;
  for (int i = 0; i < kForks; ++i) {
    REQUIRE(exited(run_child([] {
      struct sigaction mine = {};
      sigaction(SIGUSR2, nullptr, &mine);
      raise(SIGUSR2);
      CHECK_EQ(handled, mine.sa_handler == counter ? 1 : 0);
    })));
  }
  stop = true;
  other.join();
  signal(SIGUSR2, SIG_DFL);
}

CASE(signal_that_comes_as_its_thread_ends_goes_to_another) {
  const int signal = SIGRTMIN + 1;
  const sigset_t set = set_of(signal);
  const auto old = install(signal, counter);
  REQUIRE(pthread_sigmask(SIG_BLOCK, &set, nullptr) == 0);
  handled = 0;
  for (int i = 0; i < 2 * kRounds; ++i) {
    std::atomic<bool> is_open{false};
    std::thread thread([&] {
      pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
      is_open = true;
      for (int turns = i % 20 * 50; turns > 0; --turns) asm volatile("");
      syscall(SYS_exit, 0);  // the C library blocks all signals first
    });
    while (!is_open) sched_yield();
    for (int turns = i / 20 % 20 * 500; turns > 0; --turns) asm volatile("");
    REQUIRE(sigqueue(getpid(), signal, {}) == 0);
    thread.join();
  }
  pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
  CHECK_EQ(handled, 2 * kRounds);
  sigaction(signal, &old, nullptr);
}

CHECK_MAIN
