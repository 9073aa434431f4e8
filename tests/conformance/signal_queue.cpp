// Signals taken without a handler or made by timers and children: sigwait and its kin, signalfd,
// real time queues and their order, alarm and the timers, SIGCHLD's details, delivery between
// threads.
#include <pthread.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/time.h>

#include <thread>

#include "support.h"

namespace {

volatile int count = 0;
void counter(int) {
  count = count + 1;
}

// Blocks signals for its lifetime.
struct Blocked {
  sigset_t set, before;
  template <typename... Signals>
  explicit Blocked(Signals... signals) : set(set_of(signals...)) {
    REQUIRE(pthread_sigmask(SIG_BLOCK, &set, &before) == 0);
  }
  Blocked(const Blocked&) = delete;
  Blocked& operator=(const Blocked&) = delete;
  ~Blocked() { pthread_sigmask(SIG_SETMASK, &before, nullptr); }
};
void queue(int signal, int value) {
  sigval with = {};
  with.sival_int = value;
  REQUIRE(sigqueue(getpid(), signal, with) == 0);
}
const timespec kNow = {0, 0};
const timespec kLong = {60, 0};

}  // namespace

CASE(sigwait_takes_a_pending_signal) {
  Blocked blocked(SIGUSR1, SIGUSR2);
  raise(SIGUSR2);
  int got = 0;
  CHECK_EQ(sigwait(&blocked.set, &got), 0);
  CHECK_EQ(got, SIGUSR2);
  CHECK_ERRNO(sigtimedwait(&blocked.set, nullptr, &kNow), EAGAIN);
}

CASE(sigwaitinfo_tells_the_sender) {
  Blocked blocked(SIGUSR1);
  siginfo_t info = {};
  pid_t child = start_child([] { kill(getppid(), SIGUSR1); });
  CHECK_EQ(sigwaitinfo(&blocked.set, &info), SIGUSR1);
  CHECK_EQ(info.si_pid, child);
  CHECK_EQ(info.si_code, SI_USER);
  CHECK(exited(status_of(child)));
}

CASE(sigtimedwait_times_out) {
  Blocked blocked(SIGUSR1);
  timespec little = {0, 5'000'000};
  double start = seconds();
  CHECK_ERRNO(sigtimedwait(&blocked.set, nullptr, &little), EAGAIN);
  CHECK(seconds() - start >= 0.0049);
  timespec bad = {0, 1'000'000'000};
  CHECK_ERRNO(sigtimedwait(&blocked.set, nullptr, &bad), EINVAL);
}

CASE(realtime_signals_queue_in_order_with_their_values) {
  Blocked blocked(SIGRTMIN, SIGRTMIN + 1, SIGRTMIN + 2);
  for (int i = 0; i < 20; ++i) queue(SIGRTMIN + 2 - i % 3, i);
  // The lowest number first, and within a number the oldest first.
  siginfo_t info = {};
  for (int remainder : {2, 1, 0}) {
    for (int i = remainder; i < 20; i += 3) {
      REQUIRE(sigtimedwait(&blocked.set, &info, &kNow) == SIGRTMIN + 2 - remainder);
      REQUIRE(info.si_value.sival_int == i);
      REQUIRE(info.si_code == SI_QUEUE && info.si_pid == getpid());
    }
  }
  CHECK_ERRNO(sigtimedwait(&blocked.set, &info, &kNow), EAGAIN);
}

CASE(realtime_handlers_run_in_order) {
  static int seen[16];
  static int at;
  at = 0;
  for (int signal : {SIGRTMIN, SIGRTMIN + 1}) {
    struct sigaction action = {};
    action.sa_flags = SA_SIGINFO;
    action.sa_mask = set_of(SIGRTMIN, SIGRTMIN + 1);
    action.sa_sigaction = [](int, siginfo_t* info, void*) {
      seen[at++] = info->si_value.sival_int;
    };
    REQUIRE(sigaction(signal, &action, nullptr) == 0);
  }
  {
    Blocked blocked(SIGRTMIN, SIGRTMIN + 1);
    for (int i = 0; i < 10; ++i) queue(i % 2 == 0 ? SIGRTMIN + 1 : SIGRTMIN, i);
    CHECK_EQ(at, 0);
  }
  const int expected[] = {1, 3, 5, 7, 9, 0, 2, 4, 6, 8};
  CHECK_EQ(at, 10);
  for (int i = 0; i < 10; ++i) CHECK_EQ(seen[i], expected[i]);
  signal(SIGRTMIN, SIG_DFL);
  signal(SIGRTMIN + 1, SIG_DFL);
}

CASE(queue_has_a_limit) {
  CHECK(exited(run_child([] {
    Blocked blocked(SIGRTMIN);
    rlimit limit = {0, 0};
    REQUIRE(setrlimit(RLIMIT_SIGPENDING, &limit) == 0);
    sigval value = {};
    CHECK_ERRNO(sigqueue(getpid(), SIGRTMIN, value), EAGAIN);
    CHECK_EQ(kill(getpid(), SIGRTMIN), 0);  // kill is never refused for that
    CHECK_EQ(sigtimedwait(&blocked.set, nullptr, &kNow), SIGRTMIN);
  })));
}

CASE(sigqueue_refuses_bad_arguments) {
  sigval value = {};
  CHECK_ERRNO(sigqueue(getpid(), 65, value), EINVAL);
  CHECK_ERRNO(sigqueue(0x3ffffff, 0, value), ESRCH);
  CHECK_EQ(sigqueue(getpid(), 0, value), 0);
}

CASE(thread_directed_queue) {
  Blocked blocked(SIGUSR1);
  static siginfo_t info;
  std::thread thread([&] { CHECK_EQ(sigwaitinfo(&blocked.set, &info), SIGUSR1); });
  sigval value = {};
  value.sival_int = 12;
  CHECK_EQ(pthread_sigqueue(thread.native_handle(), SIGUSR1, value), 0);
  thread.join();
  CHECK_EQ(info.si_value.sival_int, 12);
  CHECK_EQ(info.si_code, SI_QUEUE);
}

CASE(process_signal_goes_to_a_thread_that_does_not_block_it) {
  auto old = install(SIGUSR1, [](int) { count = gettid(); });
  Blocked blocked(SIGUSR1);
  static std::atomic<int> id;
  static std::atomic<bool> stop;
  id = 0;
  stop = false;
  count = 0;
  std::thread thread([&] {
    sigset_t set = set_of(SIGUSR1);
    pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
    id = gettid();
    while (!stop) sched_yield();
  });
  while (id == 0) sched_yield();
  CHECK_EQ(kill(getpid(), SIGUSR1), 0);
  while (count == 0) sched_yield();
  CHECK_EQ(count, id.load());
  stop = true;
  thread.join();
  sigaction(SIGUSR1, &old, nullptr);
}

CASE(one_thread_waits_for_all_signals) {
  Blocked blocked(SIGUSR1, SIGUSR2, SIGTERM, SIGHUP);
  std::thread thread([&] {
    const int expected[] = {SIGUSR1, SIGTERM, SIGHUP, SIGUSR2};
    for (int signal : expected) {
      CHECK_EQ(kill(getpid(), signal), 0);
      int got = 0;
      CHECK_EQ(sigwait(&blocked.set, &got), 0);
      CHECK_EQ(got, signal);
    }
  });
  thread.join();
}

CASE(signalfd_reads_signals) {
  Blocked blocked(SIGUSR1, SIGRTMIN);
  int descriptor = signalfd(-1, &blocked.set, SFD_CLOEXEC | SFD_NONBLOCK);
  REQUIRE(descriptor != -1);
  signalfd_siginfo info[4] = {};
  CHECK_ERRNO(read(descriptor, info, sizeof info), EAGAIN);
  pollfd one = {descriptor, POLLIN, 0};
  CHECK_EQ(poll(&one, 1, 0), 0);
  queue(SIGRTMIN, 5);
  queue(SIGRTMIN, 6);
  kill(getpid(), SIGUSR1);
  CHECK_EQ(poll(&one, 1, -1), 1);
  CHECK_EQ(read(descriptor, info, sizeof info), 3 * sizeof info[0]);
  CHECK_EQ(info[0].ssi_signo, SIGUSR1);
  CHECK_EQ(info[0].ssi_pid, getpid());
  CHECK_EQ(info[1].ssi_signo, SIGRTMIN);
  CHECK_EQ(info[1].ssi_int, 5);
  CHECK_EQ(info[2].ssi_int, 6);
  CHECK_ERRNO(read(descriptor, info, 10), EINVAL);
  sigset_t other = set_of(SIGUSR2);
  CHECK_EQ(signalfd(descriptor, &other, 0), descriptor);
  kill(getpid(), SIGUSR1);
  CHECK_EQ(poll(&one, 1, 0), 0);
  CHECK_EQ(sigtimedwait(&blocked.set, nullptr, &kNow), SIGUSR1);
  CHECK_ERRNO(signalfd(-1, &other, 0x1234567), EINVAL);
  CHECK_ERRNO(signalfd(STDIN_FILENO + 5000, &other, 0), EBADF);
  close(descriptor);
}

CASE(blocking_signalfd_waits) {
  Blocked blocked(SIGUSR1);
  int descriptor = signalfd(-1, &blocked.set, SFD_CLOEXEC);
  pid_t child = start_child([] { kill(getppid(), SIGUSR1); });
  signalfd_siginfo info = {};
  CHECK_EQ(read(descriptor, &info, sizeof info), sizeof info);
  CHECK_EQ(info.ssi_pid, child);
  CHECK(exited(status_of(child)));
  close(descriptor);
}

CASE(alarm_and_interval_timers_fire) {
  auto old = install(SIGALRM, counter);
  count = 0;
  itimerval soon = {{0, 0}, {0, 5000}}, left = {};
  CHECK_EQ(setitimer(ITIMER_REAL, &soon, nullptr), 0);
  while (count == 0) sched_yield();
  CHECK_EQ(getitimer(ITIMER_REAL, &left), 0);
  CHECK(left.it_value.tv_sec == 0 && left.it_value.tv_usec == 0);
  itimerval often = {{0, 2000}, {0, 1000}}, off = {};
  CHECK_EQ(setitimer(ITIMER_REAL, &often, nullptr), 0);
  while (count < 4) sched_yield();
  CHECK_EQ(setitimer(ITIMER_REAL, &off, &left), 0);
  CHECK_EQ(left.it_interval.tv_usec, 2000);
  CHECK_EQ(alarm(1000), 0);
  unsigned before = alarm(0);
  CHECK(before >= 999 && before <= 1000);
  CHECK_EQ(alarm(0), 0);
  itimerval bad = {{0, 0}, {0, 1000000}};
  CHECK_ERRNO(setitimer(ITIMER_REAL, &bad, nullptr), EINVAL);
  CHECK_ERRNO(setitimer(static_cast<__itimer_which>(9), &off, nullptr), EINVAL);
  sigaction(SIGALRM, &old, nullptr);
}

CASE(cpu_time_timers_fire) {
  for (auto [which, signal] :
       {std::pair{ITIMER_VIRTUAL, SIGVTALRM}, std::pair{ITIMER_PROF, SIGPROF}}) {
    auto old = install(signal, counter);
    count = 0;
    itimerval soon = {{0, 0}, {0, 2000}};
    CHECK_EQ(setitimer(which, &soon, nullptr), 0);
    while (count == 0) asm volatile("");
    CHECK_EQ(count, 1);
    sigaction(signal, &old, nullptr);
  }
}

CASE(posix_timers_signal_with_a_value) {
  Blocked blocked(SIGRTMIN);
  sigevent event = {};
  event.sigev_notify = SIGEV_SIGNAL;
  event.sigev_signo = SIGRTMIN;
  event.sigev_value.sival_int = 31;
  timer_t timer;
  REQUIRE(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0);
  itimerspec soon = {{0, 0}, {0, 3'000'000}}, left = {};
  CHECK_EQ(timer_settime(timer, 0, &soon, nullptr), 0);
  siginfo_t info = {};
  CHECK_EQ(sigtimedwait(&blocked.set, &info, &kLong), SIGRTMIN);
  CHECK_EQ(info.si_code, SI_TIMER);
  CHECK_EQ(info.si_value.sival_int, 31);
  CHECK_EQ(info.si_overrun, 0);
  CHECK_EQ(timer_gettime(timer, &left), 0);
  CHECK(left.it_value.tv_sec == 0 && left.it_value.tv_nsec == 0);
  // An interval that is not fetched counts its overruns.
  itimerspec often = {{0, 1'000'000}, {0, 1'000'000}}, off = {};
  CHECK_EQ(timer_settime(timer, 0, &often, nullptr), 0);
  sleep_ms(20);
  CHECK_EQ(sigtimedwait(&blocked.set, &info, &kLong), SIGRTMIN);
  CHECK(info.si_overrun > 0);
  CHECK(timer_getoverrun(timer) > 0);
  CHECK_EQ(timer_settime(timer, 0, &off, nullptr), 0);
  while (sigtimedwait(&blocked.set, &info, &kNow) != -1) {
  }
  timespec past = {1, 0};
  itimerspec at = {{0, 0}, past};
  CHECK_EQ(timer_settime(timer, TIMER_ABSTIME, &at, nullptr), 0);
  CHECK_EQ(sigtimedwait(&blocked.set, &info, &kLong), SIGRTMIN);
  CHECK_EQ(timer_delete(timer), 0);
  CHECK_ERRNO(timer_create(static_cast<clockid_t>(999), &event, &timer), EINVAL);
  event.sigev_signo = 99;
  CHECK_ERRNO(timer_create(CLOCK_MONOTONIC, &event, &timer), EINVAL);
}

CASE(posix_timer_for_a_thread_and_a_callback) {
  Blocked blocked(SIGUSR2);
  sigevent event = {};
  event.sigev_notify = SIGEV_THREAD_ID;
  event.sigev_signo = SIGUSR2;
  event._sigev_un._tid = gettid();
  timer_t timer;
  REQUIRE(timer_create(CLOCK_REALTIME, &event, &timer) == 0);
  itimerspec soon = {{0, 0}, {0, 2'000'000}};
  CHECK_EQ(timer_settime(timer, 0, &soon, nullptr), 0);
  CHECK_EQ(sigtimedwait(&blocked.set, nullptr, &kLong), SIGUSR2);
  CHECK_EQ(timer_delete(timer), 0);
  static std::atomic<int> called;
  called = 0;
  event = {};
  event.sigev_notify = SIGEV_THREAD;
  event.sigev_value.sival_int = 8;
  event.sigev_notify_function = [](sigval value) { called = value.sival_int; };
  REQUIRE(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0);
  CHECK_EQ(timer_settime(timer, 0, &soon, nullptr), 0);
  while (called == 0) sched_yield();
  CHECK_EQ(called.load(), 8);
  CHECK_EQ(timer_delete(timer), 0);
}

CASE(timers_are_not_inherited) {
  Blocked blocked(SIGALRM);
  alarm(1000);
  CHECK(exited(run_child([] { CHECK_EQ(alarm(0), 0); })));
  CHECK(alarm(0) > 0);
}

CASE(child_signal_tells_of_exit_kill_stop_and_continue) {
  Blocked blocked(SIGCHLD);
  auto old = install(SIGCHLD, counter);
  siginfo_t info = {};
  auto next = [&] {
    info = {};
    return sigtimedwait(&blocked.set, &info, &kLong) == SIGCHLD;
  };
  pid_t child = start_child([] { _exit(9); });
  CHECK(next());
  CHECK_EQ(info.si_pid, child);
  CHECK_EQ(info.si_code, CLD_EXITED);
  CHECK_EQ(info.si_status, 9);
  CHECK_EQ(info.si_uid, getuid());
  CHECK(exited(status_of(child), 9));
  child = start_child([] {
    for (;;) pause();
  });
  kill(child, SIGSTOP);
  CHECK(next());
  CHECK_EQ(info.si_code, CLD_STOPPED);
  CHECK_EQ(info.si_status, SIGSTOP);
  CHECK_EQ(info.si_pid, child);
  kill(child, SIGCONT);
  CHECK(next());
  CHECK_EQ(info.si_code, CLD_CONTINUED);
  CHECK_EQ(info.si_status, SIGCONT);
  kill(child, SIGTERM);
  CHECK(next());
  CHECK_EQ(info.si_code, CLD_KILLED);
  CHECK_EQ(info.si_status, SIGTERM);
  CHECK(killed(status_of(child), SIGTERM));
  sigaction(SIGCHLD, &old, nullptr);
}

CASE(nocldstop_and_nocldwait) {
  Blocked blocked(SIGCHLD);
  auto old = install(SIGCHLD, counter, SA_NOCLDSTOP);
  pid_t child = start_child([] {
    for (;;) pause();
  });
  kill(child, SIGSTOP);
  int status = 0;
  CHECK_EQ(waitpid(child, &status, WUNTRACED), child);
  CHECK_ERRNO(sigtimedwait(&blocked.set, nullptr, &kNow), EAGAIN);
  kill(child, SIGKILL);
  CHECK_EQ(sigtimedwait(&blocked.set, nullptr, &kLong), SIGCHLD);
  CHECK(killed(status_of(child), SIGKILL));
  install(SIGCHLD, counter, SA_NOCLDWAIT);
  child = start_child([] {});
  CHECK_ERRNO(waitpid(child, &status, 0), ECHILD);
  signal(SIGCHLD, SIG_IGN);
  child = start_child([] {});
  CHECK_ERRNO(waitpid(child, &status, 0), ECHILD);
  while (sigtimedwait(&blocked.set, nullptr, &kNow) == SIGCHLD) {
  }
  sigaction(SIGCHLD, &old, nullptr);
}

CASE(handler_of_child_signals_reaps_all) {
  static std::atomic<int> reaped;
  reaped = 0;
  auto old = install(
      SIGCHLD,
      [](int) {
        int saved = errno;
        while (waitpid(-1, nullptr, WNOHANG) > 0) ++reaped;
        errno = saved;
      },
      SA_RESTART);
  for (int i = 0; i < 20; ++i) start_child([] {});
  while (reaped < 20) sched_yield();
  CHECK_ERRNO(waitpid(-1, nullptr, WNOHANG), ECHILD);
  sigaction(SIGCHLD, &old, nullptr);
}

CASE(cpu_limit_signals) {
  CHECK(killed(run_child([] {
                 rlimit limit = {0, 2};
                 REQUIRE(setrlimit(RLIMIT_CPU, &limit) == 0);
                 setrlimit(RLIMIT_CORE, &limit);
                 for (;;) asm volatile("");
               }),
               SIGXCPU));
}

CASE(signal_that_a_thread_never_took_ends_with_it) {
  auto old = install(SIGUSR1, counter);
  count = 0;
  for (int i = 0; i < 3; ++i) {
    std::thread([] {
      Blocked blocked(SIGUSR1);
      CHECK_EQ(syscall(SYS_tgkill, getpid(), gettid(), SIGUSR1), 0);
      syscall(SYS_exit, 0);  // with the signal still blocked
    }).join();
    sleep_ms(10);
    std::thread([] { sleep_ms(10); }).join();
    CHECK_EQ(count, 0);
  }
  sigaction(SIGUSR1, &old, nullptr);
}

CASE(file_size_limit_signals) {
  CHECK(exited(run_child([] {
    auto old = install(SIGXFSZ, counter);
    count = 0;
    rlimit limit = {1000, 1000};
    REQUIRE(setrlimit(RLIMIT_FSIZE, &limit) == 0);
    int file = open("limited", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    REQUIRE(file != -1);
    char block[600] = {};
    CHECK_EQ(write(file, block, 600), 600);
    CHECK_EQ(write(file, block, 600), 400);
    CHECK_ERRNO(write(file, block, 600), EFBIG);
    CHECK_EQ(count, 1);
    close(file);
    unlink("limited");
    sigaction(SIGXFSZ, &old, nullptr);
  })));
}

CHECK_MAIN
