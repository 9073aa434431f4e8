// Signals' dispositions, masks and stacks: what each flag of sigaction does, what stays pending,
// what a handler may do, errors of the calls.
#include <ucontext.h>

#include <thread>

#include "support.h"

namespace {
volatile int count = 0;
volatile int order[16];
volatile int steps = 0;
void counter(int) {
  count = count + 1;
}
void note(int what) {
  order[steps] = what;
  steps = steps + 1;
}
bool pending(int signal) {
  sigset_t set;
  REQUIRE(sigpending(&set) == 0);
  return sigismember(&set, signal) == 1;
}
bool blocked(int signal) {
  sigset_t set;
  REQUIRE(sigprocmask(SIG_BLOCK, nullptr, &set) == 0);
  return sigismember(&set, signal) == 1;
}
void mask(int how, sigset_t set) {
  REQUIRE(sigprocmask(how, &set, nullptr) == 0);
}
struct Restore {  // puts a signal's disposition back
  int signal;
  struct sigaction old;
  explicit Restore(int number) : signal(number), old() { sigaction(number, nullptr, &old); }
  ~Restore() { sigaction(signal, &old, nullptr); }
};
}  // namespace

CASE(raise_runs_the_handler_before_it_returns) {
  Restore restore(SIGUSR1);
  install(SIGUSR1, counter);
  count = 0;
  for (int i = 1; i <= 100; ++i) {
    REQUIRE(raise(SIGUSR1) == 0);
    REQUIRE(count == i);
  }
  for (int i = 101; i <= 200; ++i) {
    REQUIRE(kill(getpid(), SIGUSR1) == 0);
    REQUIRE(count == i);
  }
}

CASE(every_catchable_signal_can_be_caught) {
  for (int signal = 1; signal < 65; ++signal) {
    if (signal == SIGKILL || signal == SIGSTOP || signal == 32 || signal == 33) continue;
    Restore restore(signal);
    install(signal, [](int number) { count = number; });
    count = 0;
    CHECK_EQ(raise(signal), 0);
    CHECK_EQ(count, signal);
  }
}

CASE(sigaction_gives_back_what_was_set) {
  Restore restore(SIGUSR1);
  struct sigaction action = {}, got = {};
  action.sa_handler = counter;
  action.sa_flags = SA_RESTART | SA_NODEFER;
  action.sa_mask = set_of(SIGUSR2, SIGTERM);
  CHECK_EQ(sigaction(SIGUSR1, &action, nullptr), 0);
  CHECK_EQ(sigaction(SIGUSR1, nullptr, &got), 0);
  CHECK(got.sa_handler == counter);
  CHECK_EQ(got.sa_flags & (SA_RESTART | SA_NODEFER | SA_SIGINFO | SA_ONSTACK),
           SA_RESTART | SA_NODEFER);
  CHECK_EQ(sigismember(&got.sa_mask, SIGUSR2), 1);
  CHECK_EQ(sigismember(&got.sa_mask, SIGHUP), 0);
  CHECK(signal(SIGUSR1, SIG_IGN) == counter);
  CHECK(signal(SIGUSR1, SIG_DFL) == SIG_IGN);
}

CASE(sigaction_refuses_bad_arguments) {
  struct sigaction action = {};
  action.sa_handler = counter;
  CHECK_ERRNO(sigaction(SIGKILL, &action, nullptr), EINVAL);
  CHECK_ERRNO(sigaction(SIGSTOP, &action, nullptr), EINVAL);
  CHECK_EQ(sigaction(SIGKILL, nullptr, &action), 0);
  CHECK_ERRNO(sigaction(0, &action, nullptr), EINVAL);
  CHECK_ERRNO(sigaction(65, &action, nullptr), EINVAL);
  CHECK_ERRNO(syscall(SYS_rt_sigaction, SIGUSR1, 8, nullptr, 8), EFAULT);
  CHECK_ERRNO(syscall(SYS_rt_sigaction, SIGUSR1, nullptr, nullptr, 16), EINVAL);
}

CASE(sigprocmask_refuses_bad_arguments) {
  sigset_t set = set_of(SIGUSR1);
  CHECK_ERRNO(sigprocmask(77, &set, nullptr), EINVAL);
  CHECK_EQ(sigprocmask(77, nullptr, &set), 0);  // how is not looked at without a set
  CHECK_ERRNO(syscall(SYS_rt_sigprocmask, SIG_BLOCK, 8, nullptr, 8), EFAULT);
  CHECK_ERRNO(syscall(SYS_rt_sigprocmask, SIG_BLOCK, nullptr, nullptr, 4), EINVAL);
  CHECK_ERRNO(syscall(SYS_rt_sigpending, &set, 128), EINVAL);
  mask(SIG_BLOCK, set_of(SIGKILL, SIGSTOP));
  CHECK(!blocked(SIGKILL) && !blocked(SIGSTOP));
}

CASE(kill_refuses_bad_arguments) {
  CHECK_ERRNO(kill(getpid(), 65), EINVAL);
  CHECK_ERRNO(kill(getpid(), -1), EINVAL);
  CHECK_EQ(kill(getpid(), 0), 0);
  CHECK_ERRNO(kill(0x3ffffff, 0), ESRCH);
  CHECK_ERRNO(kill(-0x3ffffff, 0), ESRCH);
  pid_t gone = start_child([] {});
  CHECK_EQ(kill(gone, 0), 0);  // a zombie still is a process
  CHECK(exited(status_of(gone)));
  CHECK_ERRNO(kill(gone, 0), ESRCH);
}

CASE(blocked_signal_stays_pending_once) {
  Restore restore(SIGUSR1);
  install(SIGUSR1, counter);
  count = 0;
  mask(SIG_BLOCK, set_of(SIGUSR1));
  for (int i = 0; i < 5; ++i) raise(SIGUSR1);
  kill(getpid(), SIGUSR1);
  CHECK_EQ(count, 0);
  CHECK(pending(SIGUSR1));
  CHECK(!pending(SIGUSR2));
  mask(SIG_UNBLOCK, set_of(SIGUSR1));
  CHECK_EQ(count, 2);  // one for the thread, one for the process
  CHECK(!pending(SIGUSR1));
}

CASE(ignored_signal_is_dropped_even_when_pending) {
  Restore restore(SIGUSR1);
  install(SIGUSR1, counter);
  mask(SIG_BLOCK, set_of(SIGUSR1));
  raise(SIGUSR1);
  CHECK(pending(SIGUSR1));
  signal(SIGUSR1, SIG_IGN);
  CHECK(!pending(SIGUSR1));
  install(SIGUSR1, counter);
  count = 0;
  mask(SIG_UNBLOCK, set_of(SIGUSR1));
  CHECK_EQ(count, 0);
  signal(SIGUSR1, SIG_IGN);
  CHECK_EQ(raise(SIGUSR1), 0);
}

CASE(signal_is_blocked_in_its_handler_unless_nodefer) {
  Restore restore(SIGUSR1);
  install(SIGUSR1, [](int) {
    int depth = steps;
    note(1);
    if (depth == 0) {
      raise(SIGUSR1);
      CHECK(pending(SIGUSR1));
      note(2);
    }
  });
  steps = 0;
  raise(SIGUSR1);
  CHECK_EQ(steps, 3);
  CHECK(order[0] == 1 && order[1] == 2 && order[2] == 1);
  install(
      SIGUSR1,
      [](int) {
        int depth = steps;
        note(1);
        if (depth == 0) {
          raise(SIGUSR1);
          note(2);
        }
      },
      SA_NODEFER);
  steps = 0;
  raise(SIGUSR1);
  CHECK_EQ(steps, 3);
  CHECK(order[0] == 1 && order[1] == 1 && order[2] == 2);
}

CASE(handler_mask_blocks_others_and_is_undone) {
  Restore one(SIGUSR1), two(SIGUSR2);
  struct sigaction action = {};
  action.sa_mask = set_of(SIGUSR2);
  action.sa_handler = [](int) {
    raise(SIGUSR2);
    note(1);
    CHECK(blocked(SIGUSR1) && blocked(SIGUSR2));
  };
  REQUIRE(sigaction(SIGUSR1, &action, nullptr) == 0);
  install(SIGUSR2, [](int) { note(2); });
  steps = 0;
  raise(SIGUSR1);
  CHECK_EQ(steps, 2);
  CHECK(order[0] == 1 && order[1] == 2);
  CHECK(!blocked(SIGUSR1) && !blocked(SIGUSR2));
}

CASE(nested_handlers_of_different_signals) {
  const int signals[] = {SIGUSR1, SIGUSR2, SIGHUP, SIGTERM, SIGWINCH, SIGURG};
  static int next[65];
  for (int i = 0; i < 6; ++i) next[signals[i]] = i < 5 ? signals[i + 1] : 0;
  for (int signal : signals) {
    install(signal, [](int number) {
      note(number);
      if (next[number] != 0) raise(next[number]);
      note(-number);
    });
  }
  steps = 0;
  raise(SIGUSR1);
  CHECK_EQ(steps, 12);
  for (int i = 0; i < 6; ++i) {
    CHECK_EQ(order[i], signals[i]);
    CHECK_EQ(order[11 - i], -signals[i]);
  }
  for (int number : signals) signal(number, SIG_DFL);
}

CASE(resethand_is_for_one_time) {
  Restore restore(SIGURG);  // whose default is to be ignored
  install(SIGURG, counter, static_cast<int>(SA_RESETHAND));
  count = 0;
  raise(SIGURG);
  raise(SIGURG);
  CHECK_EQ(count, 1);
  struct sigaction got = {};
  sigaction(SIGURG, nullptr, &got);
  CHECK(got.sa_handler == SIG_DFL);
}

CASE(siginfo_tells_who_and_how) {
  Restore restore(SIGUSR1);
  static siginfo_t info;
  install(SIGUSR1, [](int, siginfo_t* got, void*) { info = *got; });
  kill(getpid(), SIGUSR1);
  CHECK_EQ(info.si_signo, SIGUSR1);
  CHECK_EQ(info.si_code, SI_USER);
  CHECK_EQ(info.si_pid, getpid());
  CHECK_EQ(info.si_uid, getuid());
  raise(SIGUSR1);
  CHECK_EQ(info.si_code, SI_TKILL);
  CHECK_EQ(info.si_pid, getpid());
  sigval value = {};
  value.sival_int = 4711;
  CHECK_EQ(sigqueue(getpid(), SIGUSR1, value), 0);
  CHECK_EQ(info.si_code, SI_QUEUE);
  CHECK_EQ(info.si_value.sival_int, 4711);
  pid_t child = start_child([] { kill(getppid(), SIGUSR1); });
  CHECK(exited(status_of(child)));
  CHECK_EQ(info.si_code, SI_USER);
  CHECK_EQ(info.si_pid, child);
}

CASE(handler_runs_on_the_alternate_stack) {
  Restore restore(SIGUSR1);
  void* at = map_anonymous(64 * kKiB);
  stack_t stack = {}, got = {}, before = {};
  stack.ss_sp = at;
  stack.ss_size = 64 * kKiB;
  REQUIRE(sigaltstack(&stack, &before) == 0);
  static volatile uintptr_t where;
  static int flags_inside;
  auto handler = [](int) {
    volatile char here = 0;
    where = reinterpret_cast<uintptr_t>(&here);
    stack_t inside = {};
    sigaltstack(nullptr, &inside);
    flags_inside = inside.ss_flags;
    stack_t off = {};
    off.ss_flags = SS_DISABLE;
    if (flags_inside == SS_ONSTACK) CHECK_ERRNO(sigaltstack(&off, nullptr), EPERM);
  };
  uintptr_t low = reinterpret_cast<uintptr_t>(at);
  install(SIGUSR1, handler, SA_ONSTACK);
  raise(SIGUSR1);
  CHECK(where >= low && where < low + 64 * kKiB);
  CHECK_EQ(flags_inside, SS_ONSTACK);
  install(SIGUSR1, handler);
  raise(SIGUSR1);
  CHECK(where < low || where >= low + 64 * kKiB);
  CHECK_EQ(flags_inside, 0);
  CHECK_EQ(sigaltstack(nullptr, &got), 0);
  CHECK(got.ss_sp == at && got.ss_size == 64 * kKiB && got.ss_flags == 0);
  stack.ss_size = 100;
  CHECK_ERRNO(sigaltstack(&stack, nullptr), ENOMEM);
  stack.ss_flags = 0x40;
  CHECK_ERRNO(sigaltstack(&stack, nullptr), EINVAL);
  CHECK_EQ(sigaltstack(&before, nullptr), 0);
  munmap(at, 64 * kKiB);
}

CASE(alternate_stack_belongs_to_the_thread) {
  void* at = map_anonymous(64 * kKiB);
  stack_t stack = {}, before = {};
  stack.ss_sp = at;
  stack.ss_size = 64 * kKiB;
  REQUIRE(sigaltstack(&stack, &before) == 0);
  std::thread([] {
    stack_t mine = {};
    CHECK_EQ(sigaltstack(nullptr, &mine), 0);
    CHECK_EQ(mine.ss_flags, SS_DISABLE);
  }).join();
  CHECK(exited(run_child([&] {
    stack_t mine = {};
    CHECK_EQ(sigaltstack(nullptr, &mine), 0);
    CHECK(mine.ss_sp == at && mine.ss_flags == 0);  // a forked child keeps it
  })));
  REQUIRE(sigaltstack(&before, nullptr) == 0);
  munmap(at, 64 * kKiB);
}

CASE(mask_is_each_threads_own_and_inherited) {
  mask(SIG_BLOCK, set_of(SIGUSR1));
  std::thread([] {
    CHECK(blocked(SIGUSR1));
    mask(SIG_UNBLOCK, set_of(SIGUSR1));
    mask(SIG_BLOCK, set_of(SIGUSR2));
  }).join();
  CHECK(blocked(SIGUSR1) && !blocked(SIGUSR2));
  CHECK(exited(run_child([] {
    CHECK(blocked(SIGUSR1));
    raise(SIGUSR1);
    CHECK(pending(SIGUSR1));
    CHECK(exited(run_child([] { CHECK(!pending(SIGUSR1)); })));  // pending ones are not inherited
  })));
  mask(SIG_UNBLOCK, set_of(SIGUSR1));
}

CASE(sigsuspend_waits_with_another_mask) {
  Restore restore(SIGUSR1);
  install(SIGUSR1, counter);
  mask(SIG_BLOCK, set_of(SIGUSR1, SIGUSR2));
  raise(SIGUSR1);
  count = 0;
  sigset_t none = set_of();
  CHECK_ERRNO(sigsuspend(&none), EINTR);
  CHECK_EQ(count, 1);
  CHECK(blocked(SIGUSR1) && blocked(SIGUSR2));
  mask(SIG_UNBLOCK, set_of(SIGUSR1, SIGUSR2));
}

CASE(handler_sees_the_mask_to_be_restored) {
  Restore restore(SIGUSR1);
  mask(SIG_BLOCK, set_of(SIGUSR2));
  install(SIGUSR1, [](int, siginfo_t*, void* context) {
    sigset_t* saved = &static_cast<ucontext_t*>(context)->uc_sigmask;
    CHECK_EQ(sigismember(saved, SIGUSR2), 1);
    CHECK_EQ(sigismember(saved, SIGUSR1), 0);
    sigaddset(saved, SIGHUP);
    sigdelset(saved, SIGUSR2);
  });
  raise(SIGUSR1);
  CHECK(blocked(SIGHUP) && !blocked(SIGUSR2));
  mask(SIG_UNBLOCK, set_of(SIGHUP));
}

CASE(siglongjmp_restores_the_mask_and_longjmp_does_not) {
  Restore restore(SIGUSR1);
  static sigjmp_buf back;
  install(SIGUSR1, [](int) { siglongjmp(back, 1); });
  if (sigsetjmp(back, 1) == 0) raise(SIGUSR1);
  CHECK(!blocked(SIGUSR1));
  if (sigsetjmp(back, 0) == 0) raise(SIGUSR1);
  CHECK(blocked(SIGUSR1));
  mask(SIG_UNBLOCK, set_of(SIGUSR1));
}

CASE(contexts_can_be_made_and_swapped) {
  static ucontext_t main_context, other;
  static char stack[64 * kKiB];
  REQUIRE(getcontext(&other) == 0);
  other.uc_stack.ss_sp = stack;
  other.uc_stack.ss_size = sizeof stack;
  other.uc_link = &main_context;
  steps = 0;
  makecontext(
      &other,
      [] {
        note(1);
        swapcontext(&other, &main_context);
        note(3);
      },
      0);
  swapcontext(&main_context, &other);
  note(2);
  swapcontext(&main_context, &other);
  note(4);
  for (int i = 0; i < 4; ++i) CHECK_EQ(order[i], i + 1);
}

CASE(sigpipe_or_epipe) {
  Restore restore(SIGPIPE);
  Pipe pipe;
  pipe.close_read();
  install(SIGPIPE, counter);
  count = 0;
  CHECK_ERRNO(write(pipe.out(), "x", 1), EPIPE);
  CHECK_EQ(count, 1);
  signal(SIGPIPE, SIG_IGN);
  CHECK_ERRNO(write(pipe.out(), "x", 1), EPIPE);
  CHECK(killed(run_child([&] {
                 signal(SIGPIPE, SIG_DFL);
                 static_cast<void>(!write(pipe.out(), "x", 1));
               }),
               SIGPIPE));
}

CASE(handlers_survive_fork_and_act_in_the_child) {
  Restore restore(SIGUSR1);
  install(SIGUSR1, counter);
  count = 0;
  CHECK(exited(run_child([] {
    raise(SIGUSR1);
    CHECK_EQ(count, 1);
  })));
  CHECK_EQ(count, 0);
}

CASE(process_group_signal_reaches_every_member) {
  CHECK(exited(run_child([] {
    REQUIRE(setpgid(0, 0) == 0);
    install(SIGUSR1, counter);
    Pipe ready;
    pid_t children[3];
    for (pid_t& child : children) {
      child = start_child([&] {
        sigset_t set = set_of(SIGUSR1);
        sigprocmask(SIG_BLOCK, &set, nullptr);
        ready.post();
        int got = 0;
        sigwait(&set, &got);
        _exit(got == SIGUSR1 ? 0 : 1);
      });
    }
    for (int i = 0; i < 3; ++i) ready.take();
    count = 0;
    CHECK_EQ(kill(0, SIGUSR1), 0);
    CHECK_EQ(count, 1);
    for (pid_t child : children) CHECK(exited(status_of(child)));
  })));
}

CHECK_MAIN
