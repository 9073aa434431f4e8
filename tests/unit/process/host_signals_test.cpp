// The VMM's signal handler and host calls, with real signals.
#include "vmm/process/signals.h"

#include <asm/unistd.h>
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <ctime>

#include <catch2/catch.hpp>
#include <thread>

#include "vmm/host/host_call.h"
#include "vmm/host/signal_mask.h"
#include "vmm/log.h"

namespace dbos::vmm {

// The real one is in another test, log_test.cpp.
void write_to_log(std::string_view /*text*/) {}

namespace {

constexpr uint64_t bit(int signal) {
  return uint64_t{1} << (signal - 1);
}

uint64_t real_mask() {
  uint64_t mask = 0;
  raw_call(__NR_rt_sigprocmask, SIG_BLOCK, 0, reinterpret_cast<uint64_t>(&mask), 8);
  return mask;
}

int64_t disposition(SignalDisposition wanted) {
  return static_cast<int64_t>(wanted);
}

// The calling thread as a vCPU's host thread.
struct Fixture {
  HypercallPage page{};
  uint8_t immediate_exit = 0;
  ProcessSignals process{};
  SignalContext context;
  uint64_t mask_before = real_mask();

  Fixture() {
    context.page = &page;
    context.immediate_exit = &immediate_exit;
    context.dispositions = &process;
    install_handlers(process, 0);
    set_signal_context(&context);
    choose(SIGUSR1, SignalDisposition::kCatch);
  }
  ~Fixture() {
    page.signal.number = 0;
    choose(SIGUSR1, SignalDisposition::kIgnore);
    set_own_mask(mask_before);
    set_parent_death_hook(nullptr);
    set_signal_context(nullptr);
  }
  int64_t choose(int signal, SignalDisposition wanted, uint64_t flags = 0) {
    return signal_action(process, static_cast<uint64_t>(signal),
                         static_cast<uint64_t>(disposition(wanted)), flags);
  }
  int64_t call(uint64_t number, uint64_t a0 = 0, uint64_t a1 = 0, uint64_t a2 = 0) {
    const uint64_t arguments[6] = {a0, a1, a2, 0, 0, 0};
    return dbos_host_call(&page.signal.number, number, arguments);
  }
  // What the guest does with a signal.
  uint32_t take() {
    const uint32_t number = page.signal.number;
    page.signal.number = 0;
    immediate_exit = 0;
    signal_mask(context, 0);
    return number;
  }
};

// Sends the signal again and again, so that it comes in the middle of a call too; once it was taken
// it only stays pending.
class Sender {
 public:
  explicit Sender(int signal)
      : thread_([target = pthread_self(), signal, this] {
          block_all_signals();
          timespec pause{0, 5'000'000};
          while (!stop_) {
            nanosleep(&pause, nullptr);
            pthread_kill(target, signal);
          }
        }) {}
  ~Sender() {
    stop_ = true;
    thread_.join();
  }

 private:
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

int status_of(void (*body)()) {
  const pid_t child = fork();
  if (child == 0) {
    body();
    _exit(1);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return status;
}

bool consume(const siginfo_t&) {
  return true;
}

}  // namespace

TEST_CASE("a host call is made when nothing is pending, and answers as Linux") {
  Fixture f;
  CHECK(f.call(__NR_getpid) == getpid());
  CHECK(f.call(__NR_close, 12345) == -EBADF);
}

TEST_CASE("a stored signal blocks the others and keeps host calls from starting") {
  Fixture f;
  raise(SIGUSR1);
  CHECK(f.page.signal.number == SIGUSR1);
  CHECK(reinterpret_cast<const siginfo_t*>(f.page.signal.info)->si_pid == getpid());
  CHECK(f.immediate_exit == 1);
  CHECK(real_mask() == ~(bit(SIGKILL) | bit(SIGSTOP) | bit(64)));
  CHECK(f.call(__NR_getpid) == kNotStarted);
  CHECK(signal_mask(f.context, 0) == kNotStarted);
  CHECK(f.take() == SIGUSR1);
  CHECK(real_mask() == 0);
}

TEST_CASE("a read that a signal interrupts can be made again, a sleep can't") {
  Fixture f;
  int ends[2];
  REQUIRE(pipe(ends) == 0);
  Sender sender(SIGUSR1);
  bool interrupted = false;
  for (int i = 0; i < 20 && !interrupted; ++i) {
    char byte;
    const int64_t result =
        f.call(__NR_read, static_cast<uint64_t>(ends[0]), reinterpret_cast<uint64_t>(&byte), 1);
    CHECK(is_interrupted(result));
    interrupted = result == kInterrupted;
    CHECK(f.take() == SIGUSR1);
  }
  CHECK(interrupted);
  bool ended = false;
  for (int i = 0; i < 20 && !ended; ++i) {
    const timespec time{100, 0};
    const int64_t result = f.call(__NR_nanosleep, reinterpret_cast<uint64_t>(&time), 0);
    CHECK((result == -EINTR || result == kNotStarted));
    ended = result == -EINTR;
    f.take();
  }
  CHECK(ended);
  close(ends[0]);
  close(ends[1]);
}

TEST_CASE("no signal is overlooked between the check and the call") {
  Fixture f;
  int ends[2];
  REQUIRE(pipe(ends) == 0);
  std::atomic<bool> stop{false};
  std::thread sender([target = pthread_self(), &stop] {
    block_all_signals();
    while (!stop) pthread_kill(target, SIGUSR1);
  });
  // Each of these would sleep for ever if its signal were lost and no other came.
  for (int i = 0; i < 20000; ++i) {
    char byte;
    const int64_t result =
        f.call(__NR_read, static_cast<uint64_t>(ends[0]), reinterpret_cast<uint64_t>(&byte), 1);
    if (!is_interrupted(result)) FAIL("read answered " << result);
    f.take();
  }
  stop = true;
  sender.join();
  close(ends[0]);
  close(ends[1]);
}

TEST_CASE("signals that the program ignores or leaves alone are Linux's") {
  Fixture f;
  CHECK(f.choose(SIGUSR1, SignalDisposition::kIgnore) == 0);
  raise(SIGUSR1);
  CHECK(f.page.signal.number == 0);
  CHECK(f.choose(SIGKILL, SignalDisposition::kIgnore) == -EINVAL);
  CHECK(f.choose(65, SignalDisposition::kIgnore) == -EINVAL);
  const int status = status_of([] {
    Fixture child;
    child.choose(SIGUSR1, SignalDisposition::kDefault);
    raise(SIGUSR1);
  });
  CHECK(WIFSIGNALED(status));
  CHECK(WTERMSIG(status) == SIGUSR1);
}

TEST_CASE("the VMM's own fault ends it, one that was sent is the program's") {
  int status = status_of([] {
    Fixture child;
    child.choose(SIGSEGV, SignalDisposition::kCatch);
    volatile uint64_t address = 16;
    *reinterpret_cast<volatile int*>(address) = 1;
  });
  CHECK(WIFSIGNALED(status));
  CHECK(WTERMSIG(status) == SIGSEGV);
  Fixture f;
  f.choose(SIGSEGV, SignalDisposition::kCatch);
  raise(SIGSEGV);
  CHECK(f.page.signal.number == SIGSEGV);
  f.take();
  status = status_of([] {
    Fixture child;
    child.choose(SIGSEGV, SignalDisposition::kDefault);
    raise(SIGSEGV);
  });
  CHECK(WTERMSIG(status) == SIGSEGV);
  f.choose(SIGSEGV, SignalDisposition::kDefault);
}

TEST_CASE("a fault that the program queues for itself is no fault of the VMM's") {
  static const auto queue = [](int code) {
    siginfo_t info = {};
    info.si_signo = SIGSEGV;
    info.si_code = code;
    info.si_addr = reinterpret_cast<void*>(uintptr_t{16});
    const uint32_t thread = own_thread_id();
    return raw_call(__NR_rt_tgsigqueueinfo, static_cast<uint64_t>(getpid()), thread, SIGSEGV,
                    reinterpret_cast<uint64_t>(&info));
  };
  Fixture f;
  for (const int code : {int{SEGV_MAPERR}, int{SEGV_ACCERR}, int{SI_KERNEL}}) {
    f.choose(SIGSEGV, SignalDisposition::kCatch);
    CHECK(queue(code) == 0);
    CHECK(f.page.signal.number == SIGSEGV);
    CHECK(reinterpret_cast<const siginfo_t*>(f.page.signal.info)->si_code == code);
    f.take();
  }
  const int status = status_of([] {
    Fixture child;
    child.choose(SIGSEGV, SignalDisposition::kDefault);
    queue(SEGV_MAPERR);
  });
  CHECK(WIFSIGNALED(status));
  CHECK(WTERMSIG(status) == SIGSEGV);
  f.choose(SIGSEGV, SignalDisposition::kDefault);
}

TEST_CASE("a signal that is the VMM's alone ends no call for the program") {
  Fixture f;
  set_parent_death_hook(consume);
  Sender sender(64);
  const timespec time{100, 0};
  CHECK(f.call(__NR_nanosleep, reinterpret_cast<uint64_t>(&time), 0) == kMakeAgain);
  CHECK(f.page.signal.number == 0);
}

TEST_CASE("signal 64 is the VMM's if the hook says so, and waits while the slot is taken") {
  Fixture f;
  f.choose(64, SignalDisposition::kCatch);
  set_parent_death_hook(consume);
  raise(64);
  CHECK(f.page.signal.number == 0);
  set_parent_death_hook(nullptr);
  raise(SIGUSR1);
  raise(64);
  CHECK(f.take() == SIGUSR1);
  CHECK(f.page.signal.number == 64);
  f.take();
  CHECK(f.page.signal.number == 0);
}

TEST_CASE("signal 64 waits while the program blocks it") {
  Fixture f;
  f.choose(64, SignalDisposition::kCatch);
  CHECK(signal_mask(f.context, bit(64)) == 0);
  raise(64);
  CHECK(f.page.signal.number == 0);
  CHECK(signal_mask(f.context, 0) == 0);
  CHECK(f.take() == 64);
}

TEST_CASE("a thread that blocks signal 64 is kicked out of the guest while one is pending") {
  Fixture f;
  f.choose(64, SignalDisposition::kCatch);
  CHECK(signal_mask(f.context, bit(64)) == 0);
  f.context.runs_guest = 1;
  raise(64);
  CHECK(f.page.signal.number == 0);
  CHECK((real_mask() & bit(64)) == 0);
  f.context.kicks_sent.fetch_add(1);
  CHECK(send_kick(static_cast<uint32_t>(getpid()), own_thread_id()) == 0);
  CHECK(f.context.kicks_received == 1);
  CHECK(f.immediate_exit == 1);

  // Host calls find it, and the next run of the guest can be interrupted again.
  f.context.runs_guest = 0;
  take_last_kicks(f.context);
  CHECK((pending_signals() & bit(64)) != 0);
  f.context.runs_guest = 1;
  listen_to_kicks(f.context);
  CHECK((real_mask() & bit(64)) == 0);
  CHECK(pending_signals() == 0);
  f.context.runs_guest = 0;
  take_last_kicks(f.context);
  CHECK(signal_mask(f.context, 0) == 0);
  CHECK(f.take() == 64);
  CHECK(f.page.signal.number == 0);
}

TEST_CASE("a blocked signal 64 waits, whatever it will do") {
  const int status = status_of([] {
    Fixture child;
    child.choose(64, SignalDisposition::kDefault);
    signal_mask(child.context, bit(64));
    raise(64);
    _exit((pending_signals() & bit(64)) != 0 ? 0 : 2);
  });
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
}

TEST_CASE("a signal that its ending thread has not taken goes to another, but for tgkill's") {
  Fixture f;
  block_all_signals();
  siginfo_t given = {};
  given.si_signo = SIGUSR1;
  given.si_pid = 4711;
  const auto store = [&](int code) {
    given.si_code = code;
    memcpy(f.page.signal.info, &given, sizeof given);
    f.page.signal.number = SIGUSR1;
  };
  const auto take_pending = [] {
    const uint64_t set = bit(SIGUSR1);
    const timespec none{0, 0};
    siginfo_t info = {};
    raw_call(__NR_rt_sigtimedwait, reinterpret_cast<uint64_t>(&set),
             reinterpret_cast<uint64_t>(&info), reinterpret_cast<uint64_t>(&none), 8);
    return info;
  };
  store(SI_TKILL);
  give_back_signal(f.context);
  CHECK(take_pending().si_signo == 0);
  store(SI_USER);
  give_back_signal(f.context);
  CHECK(f.page.signal.number == 0);
  siginfo_t taken = take_pending();
  CHECK(taken.si_signo == SIGUSR1);
  CHECK(taken.si_code == SI_USER);
  CHECK(taken.si_pid == 4711);
  give_back_signal(f.context);
  CHECK(take_pending().si_signo == 0);

  // By another thread than the first.
  store(SI_USER);
  std::thread([&f] { give_back_signal(f.context); }).join();
  taken = take_pending();
  CHECK(taken.si_signo == SIGUSR1);
  CHECK(taken.si_code == SI_QUEUE);
  CHECK(taken.si_pid == 4711);
}

TEST_CASE("a kick that was counted and never sent is not waited for, and may still come") {
  Fixture f;
  const auto kick = [] { return send_kick(static_cast<uint32_t>(getpid()), own_thread_id()); };
  f.context.kicks_sent.fetch_add(2);
  CHECK(kick() == 0);
  take_last_kicks(f.context);
  CHECK(f.context.kicks_received == 2);
  CHECK(kick() == 0);
  take_last_kicks(f.context);
  f.context.kicks_sent.fetch_add(1);
  take_last_kicks(f.context);
  CHECK(f.context.kicks_received == 3);
}

TEST_CASE("after a kick that was written off and came to an end the next one is waited for") {
  Fixture f;
  const auto kick = [] { return send_kick(static_cast<uint32_t>(getpid()), own_thread_id()); };
  const auto missing = [&f] { return f.context.kicks_sent - f.context.kicks_received; };
  f.context.kicks_sent.fetch_add(1);
  take_last_kicks(f.context);
  REQUIRE(missing() == 0);
  SECTION("it came during a host call") {
    CHECK(kick() == 0);
    listen_to_kicks(f.context);
  }
  SECTION("it was taken back during a host call") {
    f.context.kicks_sent.fetch_sub(1);
    listen_to_kicks(f.context);
  }
  SECTION("it came while the guest ran") {
    listen_to_kicks(f.context);
    CHECK(kick() == 0);
    take_last_kicks(f.context);
  }
  SECTION("it was taken back while the guest ran") {
    listen_to_kicks(f.context);
    f.context.kicks_sent.fetch_sub(1);
    take_last_kicks(f.context);
  }
  CHECK(missing() == 0);

  // One that Linux has and the thread does not see before it listens.
  change_signal_mask(SIG_BLOCK, bit(64));
  f.context.blocks_kicks = 1;
  f.context.kicks_sent.fetch_add(1);
  CHECK(kick() == 0);
  CHECK((pending_signals() & bit(64)) != 0);
  take_last_kicks(f.context);
  CHECK(pending_signals() == 0);
  CHECK(missing() == 0);
}

TEST_CASE("signal 64 is the program's while it executes, and then the VMM's again") {
  Fixture f;
  struct sigaction action = {};
  f.choose(kParentDeathSignal, SignalDisposition::kIgnore);
  signal_mask(f.context, ~uint64_t{0});
  REQUIRE((real_mask() & bit(kParentDeathSignal)) == 0);
  {
    const OwnSignalAsChosen own_signal(f.context, true);
    CHECK((real_mask() & bit(kParentDeathSignal)) != 0);
    sigaction(kParentDeathSignal, nullptr, &action);
    CHECK(action.sa_handler == SIG_IGN);
  }
  const auto is_the_vmms = [&action] {
    sigaction(kParentDeathSignal, nullptr, &action);
    return action.sa_handler != SIG_IGN && action.sa_handler != SIG_DFL;
  };
  CHECK((real_mask() & bit(kParentDeathSignal)) == 0);
  CHECK(is_the_vmms());
  {
    const OwnSignalAsChosen own_signal(f.context, false);
    CHECK(is_the_vmms());
  }
  f.choose(kParentDeathSignal, SignalDisposition::kDefault);
  const OwnSignalAsChosen own_signal(f.context, true);
  CHECK(is_the_vmms());
}

TEST_CASE("dying by a signal shows in the exit status") {
  for (const int signal : {SIGTERM, SIGSEGV, SIGKILL, 64}) {
    static int by;
    by = signal;
    const int status = status_of([] {
      Fixture child;
      die_by_signal(by);
    });
    CHECK(WIFSIGNALED(status));
    CHECK(WTERMSIG(status) == signal);
  }
}

TEST_CASE("what was inherited is seen before handlers are installed") {
  const int status = status_of([] {
    signal(SIGPIPE, SIG_IGN);
    set_own_mask(bit(SIGUSR2));
    const InheritedSignals inherited = inherited_signals();
    ProcessSignals process{};
    install_handlers(process, inherited.ignored);
    const bool right = (inherited.ignored & bit(SIGPIPE)) != 0 &&
                       (inherited.blocked & bit(SIGUSR2)) != 0 &&
                       process.disposition[SIGPIPE].load() == SignalDisposition::kIgnore;
    _exit(right ? 0 : 2);
  });
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
}

}  // namespace dbos::vmm
