// Children from their parent's side: statuses, waiting in all its forms, stop and continue,
// orphans, process groups and sessions, usage, the parent's death.
#include <sched.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include <thread>

#include "support.h"

#ifndef P_PIDFD
#define P_PIDFD 3
#endif

namespace {
template <typename Action>
pid_t start_dying(Action action) {
  return start_child([&] {
    rlimit none = {0, 0};
    setrlimit(RLIMIT_CORE, &none);
    action();
  });
}
[[noreturn]] void sleep_for_ever() {
  for (;;) pause();
}
}  // namespace

CASE(all_exit_statuses) {
  for (int i = 0; i < 256; ++i) {
    REQUIRE(exited(run_child([i] { _exit(i); }), i));
  }
  CHECK(exited(run_child([] { _exit(256 + 5); }), 5));
  CHECK(exited(run_child([] { _exit(-1); }), 255));
}

CASE(deaths_by_signal) {
  for (int signal : {SIGHUP,  SIGINT,  SIGQUIT, SIGILL,    SIGTRAP, SIGABRT, SIGBUS,
                     SIGFPE,  SIGKILL, SIGUSR1, SIGSEGV,   SIGUSR2, SIGPIPE, SIGALRM,
                     SIGTERM, SIGXCPU, SIGXFSZ, SIGVTALRM, SIGPROF, SIGSYS,  SIGIO}) {
    CHECK(killed(status_of(start_dying([=] {
                   ::signal(signal, SIG_DFL);
                   raise(signal);
                 })),
                 signal));
  }
  pid_t child = start_dying([] { sleep_for_ever(); });
  kill(child, SIGKILL);
  CHECK(killed(status_of(child), SIGKILL));
}

CASE(signals_that_are_ignored_by_default) {
  CHECK(exited(run_child([] {
    for (int signal : {SIGCHLD, SIGURG, SIGWINCH, SIGCONT}) {
      ::signal(signal, SIG_DFL);
      raise(signal);
    }
  })));
}

CASE(wait_without_children) {
  int status = 0;
  siginfo_t info = {};
  CHECK_ERRNO(wait(&status), ECHILD);
  CHECK_ERRNO(waitpid(-1, &status, WNOHANG), ECHILD);
  CHECK_ERRNO(waitpid(getpid(), &status, 0), ECHILD);
  CHECK_ERRNO(waitid(P_ALL, 0, &info, WEXITED), ECHILD);
  CHECK_ERRNO(waitpid(-1, &status, 0x4000), EINVAL);
  CHECK_ERRNO(waitid(P_ALL, 0, &info, 0), EINVAL);
  CHECK_ERRNO(waitid(static_cast<idtype_t>(77), 0, &info, WEXITED), EINVAL);
}

CASE(nohang_returns_zero_until_the_child_ends) {
  Pipe go;
  pid_t child = start_child([&] {
    go.close_write();
    go.take();
    _exit(4);
  });
  int status = 77;
  CHECK_EQ(waitpid(child, &status, WNOHANG), 0);
  CHECK_EQ(status, 77);
  siginfo_t info;
  memset(&info, 0xff, sizeof info);
  CHECK_EQ(waitid(P_PID, static_cast<id_t>(child), &info, WEXITED | WNOHANG), 0);
  CHECK_EQ(info.si_pid, 0);
  go.close_write();
  CHECK(exited(status_of(child), 4));
  CHECK_ERRNO(waitpid(child, &status, WNOHANG), ECHILD);
}

CASE(nowait_leaves_the_child_waitable) {
  pid_t child = start_child([] { _exit(6); });
  for (int i = 0; i < 3; ++i) {
    siginfo_t info = {};
    CHECK_EQ(waitid(P_PID, static_cast<id_t>(child), &info, WEXITED | WNOWAIT), 0);
    CHECK_EQ(info.si_signo, SIGCHLD);
    CHECK_EQ(info.si_code, CLD_EXITED);
    CHECK_EQ(info.si_pid, child);
    CHECK_EQ(info.si_status, 6);
    CHECK_EQ(info.si_uid, getuid());
  }
  siginfo_t info = {};
  CHECK_EQ(waitid(P_ALL, 0, &info, WEXITED), 0);
  CHECK_EQ(info.si_pid, child);
  CHECK_ERRNO(waitid(P_PID, static_cast<id_t>(child), &info, WEXITED), ECHILD);
}

CASE(stop_and_continue_are_seen) {
  pid_t child = start_child([] { sleep_for_ever(); });
  int status = 0;
  kill(child, SIGSTOP);
  CHECK_EQ(waitpid(child, &status, WUNTRACED), child);
  CHECK(WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP);
  CHECK_EQ(waitpid(child, &status, WUNTRACED | WNOHANG), 0);  // told once
  kill(child, SIGCONT);
  CHECK_EQ(waitpid(child, &status, WCONTINUED), child);
  CHECK(WIFCONTINUED(status));
  kill(child, SIGTSTP);
  siginfo_t info = {};
  CHECK_EQ(waitid(P_PID, static_cast<id_t>(child), &info, WSTOPPED), 0);
  CHECK_EQ(info.si_code, CLD_STOPPED);
  CHECK_EQ(info.si_status, SIGTSTP);
  kill(child, SIGCONT);
  CHECK_EQ(waitid(P_PID, static_cast<id_t>(child), &info, WCONTINUED), 0);
  CHECK_EQ(info.si_code, CLD_CONTINUED);
  kill(child, SIGSTOP);
  CHECK_EQ(waitpid(child, &status, WUNTRACED), child);
  kill(child, SIGKILL);  // needs no SIGCONT
  CHECK(killed(status_of(child), SIGKILL));
}

CASE(stopped_child_makes_no_progress) {
  auto* counter = static_cast<std::atomic<long>*>(
      mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  REQUIRE(counter != MAP_FAILED);
  pid_t child = start_child([=] {
    for (;;) counter->fetch_add(1);
  });
  while (counter->load() < 1000) sched_yield();
  int status = 0;
  kill(child, SIGSTOP);
  REQUIRE(waitpid(child, &status, WUNTRACED) == child);
  long before = counter->load();
  sleep_ms(5);
  CHECK_EQ(counter->load(), before);
  kill(child, SIGCONT);
  while (counter->load() == before) sched_yield();
  kill(child, SIGKILL);
  CHECK(killed(status_of(child), SIGKILL));
  munmap(counter, kPage);
}

CASE(stop_reaches_every_thread) {
  auto* counters = static_cast<std::atomic<long>*>(
      mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  REQUIRE(counters != MAP_FAILED);
  pid_t child = start_child([=] {
    std::thread([=] {
      for (;;) counters[1].fetch_add(1);
    }).detach();
    for (;;) counters[0].fetch_add(1);
  });
  while (counters[0] < 1000 || counters[1] < 1000) sched_yield();
  int status = 0;
  kill(child, SIGSTOP);
  REQUIRE(waitpid(child, &status, WUNTRACED) == child);
  long first = counters[0], second = counters[1];
  sleep_ms(5);
  CHECK_EQ(counters[0].load(), first);
  CHECK_EQ(counters[1].load(), second);
  kill(child, SIGCONT);
  while (counters[0] == first || counters[1] == second) sched_yield();
  kill(child, SIGTERM);
  CHECK(killed(status_of(child), SIGTERM));
  munmap(counters, kPage);
}

CASE(any_child_by_group_and_by_number) {
  pid_t first = start_child([] {
    setpgid(0, 0);
    _exit(1);
  });
  CHECK(exited(status_of(first), 1));
  pid_t second = start_child([] { sleep_for_ever(); });
  REQUIRE(setpgid(second, second) == 0);
  pid_t third = start_child([] { _exit(3); });
  int status = 0;
  CHECK_EQ(waitpid(0, &status, 0), third);  // of our own group
  CHECK(exited(status, 3));
  CHECK_EQ(waitpid(-second, &status, WNOHANG), 0);
  kill(-second, SIGTERM);
  CHECK_EQ(waitpid(-second, &status, 0), second);
  CHECK(killed(status, SIGTERM));
  CHECK_ERRNO(waitpid(-second, &status, 0), ECHILD);
}

CASE(wait_takes_whichever_ends_first) {
  Pipe go[3];
  pid_t children[3];
  for (int i = 0; i < 3; ++i) {
    children[i] = start_child([&, i] {
      for (Pipe& pipe : go) pipe.close_write();
      go[i].take();
      _exit(i);
    });
  }
  for (int i : {2, 0, 1}) {
    // A later sibling holds a copy of the write end only until it has closed it; a byte is sure.
    go[i].post();
    int status = 0;
    CHECK_EQ(wait(&status), children[i]);
    CHECK(exited(status, i));
  }
}

CASE(a_thread_can_wait_for_another_threads_child) {
  static pid_t child;
  std::thread([] { child = start_child([] { _exit(8); }); }).join();
  CHECK(exited(status_of(child), 8));
  child = start_child([] { _exit(9); });
  std::thread([] { CHECK(exited(status_of(child), 9)); }).join();
}

CASE(parent_and_orphan) {
  Pipe tell, go;
  pid_t self = getpid();
  REQUIRE(prctl(PR_SET_CHILD_SUBREAPER, 1) == 0);
  pid_t child = start_child([&] {
    CHECK_EQ(getppid(), self);
    static pid_t middle;
    middle = getpid();
    start_child([&] {
      go.close_write();
      go.take();  // until the one in the middle is gone
      CHECK(getppid() != middle);
      CHECK_EQ(getppid(), self);
      tell.post(check::failures == 0 ? 'y' : 'n');
      _exit(12);
    });
  });
  CHECK(exited(status_of(child)));
  go.close_write();
  CHECK_EQ(tell.take(), 'y');
  int status = 0;
  CHECK(wait(&status) > 0);  // the orphan came to us
  CHECK(exited(status, 12));
  REQUIRE(prctl(PR_SET_CHILD_SUBREAPER, 0) == 0);
}

CASE(death_signal_of_the_parent) {
  Pipe tell;
  REQUIRE(prctl(PR_SET_CHILD_SUBREAPER, 1) == 0);
  pid_t child = start_child([&] {
    pid_t middle = getpid();
    Pipe ready;
    start_child([&] {
      sigset_t set = set_of(SIGUSR2);
      sigprocmask(SIG_BLOCK, &set, nullptr);
      REQUIRE(prctl(PR_SET_PDEATHSIG, SIGUSR2) == 0);
      if (getppid() != middle) _exit(3);
      ready.post();
      int got = 0;
      sigwait(&set, &got);
      tell.post(got == SIGUSR2 ? 'y' : 'n');
    });
    ready.take();
  });
  CHECK(exited(status_of(child)));
  CHECK_EQ(tell.take(), 'y');
  int status = 0;
  CHECK(wait(&status) > 0);
  CHECK(exited(status));
  REQUIRE(prctl(PR_SET_CHILD_SUBREAPER, 0) == 0);
}

CASE(death_signal_of_the_thread_that_forked) {
  Pipe ready;
  pid_t child = 0;
  std::thread([&] {
    child = start_child([&] {
      const sigset_t set = set_of(SIGUSR2);
      sigprocmask(SIG_BLOCK, &set, nullptr);
      REQUIRE(prctl(PR_SET_PDEATHSIG, SIGUSR2) == 0);
      ready.post();
      const timespec wait = {20, 0};
      CHECK_EQ(sigtimedwait(&set, nullptr, &wait), SIGUSR2);
    });
    ready.take();
  }).join();
  CHECK(exited(status_of(child)));
}

// Linux tells an orphan of the end of each process that adopts it.
CASE(orphan_of_several) {
  Pipe tell, go;
  const pid_t first = start_child([&] {
    REQUIRE(prctl(PR_SET_CHILD_SUBREAPER, 1) == 0);
    const pid_t second = start_child([&] {
      start_child([&] {
        sigset_t set = set_of(SIGUSR2);
        sigprocmask(SIG_BLOCK, &set, nullptr);
        REQUIRE(prctl(PR_SET_PDEATHSIG, SIGUSR2) == 0);
        tell.post('r');
        int got = 0;
        for (int i = 0; i < 2; ++i) {
          sigwait(&set, &got);
          tell.post(got == SIGUSR2 ? 'y' : 'n');
        }
        go.close_write();
        go.take();
        tell.post('e');
      });
      CHECK_EQ(tell.take(), 'r');
    });
    CHECK(exited(status_of(second)));
    CHECK_EQ(tell.take(), 'y');
  });
  CHECK(exited(status_of(first)));
  CHECK_EQ(tell.take(), 'y');
  go.close_write();
  CHECK_EQ(tell.take(), 'e');
}

CASE(orphan_of_several_at_once) {
  for (int i = 0; i < 20; ++i) {
    Pipe tell, go;
    const pid_t first = start_child([&] {
      REQUIRE(prctl(PR_SET_CHILD_SUBREAPER, 1) == 0);
      const pid_t second = start_child([&] {
        start_child([&] {
          go.close_write();
          tell.post('r');
          go.take();
          tell.post('e');
        });
        CHECK_EQ(tell.take(), 'r');
      });
      CHECK(exited(status_of(second)));
    });
    CHECK(exited(status_of(first)));
    go.close_write();
    CHECK_EQ(tell.take(), 'e');
  }
}

// dbos-run has a use of its own for SIGRTMAX.
CASE(highest_signal_from_the_parent) {
  Pipe ready;
  pid_t child = start_child([&] {
    sigset_t set = set_of(SIGRTMAX);
    sigprocmask(SIG_BLOCK, &set, nullptr);
    ready.post();
    siginfo_t info = {};
    const timespec patience = {60, 0};
    CHECK_EQ(sigtimedwait(&set, &info, &patience), SIGRTMAX);
    CHECK_EQ(info.si_code, SI_QUEUE);
    CHECK_EQ(info.si_pid, getppid());
    CHECK_EQ(info.si_value.sival_int, 42);
    ready.post();
    CHECK_EQ(sigtimedwait(&set, &info, &patience), SIGRTMAX);
    CHECK_EQ(info.si_pid, getppid());
  });
  ready.take();
  sigval value = {};
  value.sival_int = 42;
  CHECK_EQ(sigqueue(child, SIGRTMAX, value), 0);
  ready.take();
  CHECK_EQ(syscall(SYS_tgkill, child, child, SIGRTMAX), 0);
  CHECK(exited(status_of(child)));
}

CASE(groups_and_sessions) {
  CHECK(exited(run_child([] {
    pid_t group = getpgrp();
    CHECK_EQ(getpgid(0), group);
    CHECK_EQ(getpgid(getppid()), group);
    CHECK_EQ(setpgid(0, 0), 0);
    CHECK_EQ(getpgrp(), getpid());
    CHECK_ERRNO(setsid(), EPERM);  // a group leader may not
    CHECK_EQ(getsid(0), getsid(getppid()));
    CHECK_ERRNO(setpgid(0, -1), EINVAL);
    CHECK_ERRNO(getpgid(0x3ffffff), ESRCH);
    CHECK_ERRNO(getsid(0x3ffffff), ESRCH);
    CHECK_ERRNO(setpgid(0x3ffffff, 0), ESRCH);
    CHECK(exited(run_child([] {
      pid_t session = setsid();
      CHECK_EQ(session, getpid());
      CHECK_EQ(getsid(0), getpid());
      CHECK_EQ(getpgrp(), getpid());
      CHECK_ERRNO(setpgid(0, 0), EPERM);
    })));
  })));
}

CASE(usage_of_children_adds_up) {
  rusage before = {}, one = {}, after = {};
  REQUIRE(getrusage(RUSAGE_CHILDREN, &before) == 0);
  pid_t child = start_child([] {
    while (clock() < CLOCKS_PER_SEC / 50) {
    }
    void* at = map_anonymous(4 * kMiB);
    memset(at, 1, 4 * kMiB);
  });
  int status = 0;
  CHECK_EQ(wait4(child, &status, 0, &one), child);
  CHECK(exited(status));
  auto used = [](const rusage& usage) {
    return static_cast<double>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           static_cast<double>(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1e-6;
  };
  CHECK(used(one) >= 0.005);
  REQUIRE(getrusage(RUSAGE_CHILDREN, &after) == 0);
  CHECK(used(after) >= used(before) + 0.005);
  CHECK(one.ru_maxrss > 0);
}

CASE(exit_runs_handlers_and_underscore_exit_does_not) {
  for (bool clean : {true, false}) {
    CHECK(exited(run_child([=] {
                   atexit([] { check::print("at exit, in the child\n"); });
                   if (clean) exit(2);
                   _exit(2);
                 }),
                 2));
  }
}

CASE(process_descriptor_waits_and_signals) {
  pid_t child = start_child([] { sleep_for_ever(); });
  int descriptor = static_cast<int>(syscall(SYS_pidfd_open, child, 0));
  REQUIRE(descriptor >= 0);
  pollfd one = {descriptor, POLLIN, 0};
  CHECK_EQ(poll(&one, 1, 0), 0);
  CHECK_EQ(syscall(SYS_pidfd_send_signal, descriptor, SIGTERM, nullptr, 0), 0);
  CHECK_EQ(poll(&one, 1, -1), 1);
  siginfo_t info = {};
  CHECK_EQ(waitid(static_cast<idtype_t>(P_PIDFD), static_cast<id_t>(descriptor), &info, WEXITED),
           0);
  CHECK_EQ(info.si_status, SIGTERM);
  CHECK_ERRNO(syscall(SYS_pidfd_send_signal, descriptor, SIGTERM, nullptr, 0), ESRCH);
  close(descriptor);
  CHECK_ERRNO(syscall(SYS_pidfd_open, child, 0), ESRCH);
  CHECK_ERRNO(syscall(SYS_pidfd_open, -1, 0), EINVAL);
}

CASE(wait_writes_where_it_is_told) {
  pid_t child = start_child([] { _exit(5); });
  void* none = map_anonymous(kPage, PROT_NONE);
  siginfo_t info = {};
  REQUIRE(waitid(P_PID, static_cast<id_t>(child), &info, WEXITED | WNOWAIT) == 0);
  CHECK_ERRNO(syscall(SYS_waitid, P_PID, child, none, WEXITED | WNOWAIT, nullptr), EFAULT);
  CHECK_EQ(waitpid(child, nullptr, 0), child);
  munmap(none, kPage);
}

CHECK_MAIN
