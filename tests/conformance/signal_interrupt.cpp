// What happens to a blocking call when a handler runs: EINTR, or a restart where SA_RESTART asks
// for it and Linux grants it; masks swapped for the time of a call.
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <termios.h>

#include <functional>
#include <thread>

#include "support.h"

namespace {

std::atomic<int> handled{0};

// Runs `call` in a thread and signals that thread until the call is over.
void interrupted(const std::function<void()>& call) {
  auto old = install(SIGUSR1, [](int) { ++handled; });
  std::atomic<bool> started{false}, done{false};
  std::thread thread([&] {
    started = true;
    call();
    done = true;
  });
  while (!started) sched_yield();
  while (!done) {
    pthread_kill(thread.native_handle(), SIGUSR1);
    sleep_ms(1);
  }
  thread.join();
  sigaction(SIGUSR1, &old, nullptr);
}

// Runs `call` in a thread, lets some handlers run there with SA_RESTART, then lets `release` end
// it.
void restarted(const std::function<void()>& call, const std::function<void()>& release) {
  auto old = install(
      SIGUSR1, [](int) { ++handled; }, SA_RESTART);
  std::atomic<bool> started{false};
  std::thread thread([&] {
    started = true;
    call();
  });
  while (!started) sched_yield();
  for (int i = 0; i < 4; ++i) {
    sleep_ms(1);
    int before = handled.load();
    pthread_kill(thread.native_handle(), SIGUSR1);
    while (handled.load() == before) sched_yield();
  }
  release();
  thread.join();
  sigaction(SIGUSR1, &old, nullptr);
}

struct Listener {
  int socket;
  sockaddr_in address = {};
  Listener() : socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof address;
    REQUIRE(bind(socket, reinterpret_cast<sockaddr*>(&address), length) == 0);
    REQUIRE(listen(socket, 5) == 0);
    REQUIRE(getsockname(socket, reinterpret_cast<sockaddr*>(&address), &length) == 0);
  }
  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;
  ~Listener() { close(socket); }
};

}  // namespace

CASE(read_of_a_pipe) {
  Pipe pipe;
  char byte = 0;
  interrupted([&] { CHECK_ERRNO(read(pipe.in(), &byte, 1), EINTR); });
  restarted([&] { CHECK_EQ(read(pipe.in(), &byte, 1), 1); }, [&] { pipe.post('y'); });
  CHECK_EQ(byte, 'y');
}

CASE(write_to_a_full_pipe) {
  Pipe pipe;
  std::string block(64 * kKiB, 'x');
  REQUIRE(write(pipe.out(), block.data(), block.size()) == static_cast<ssize_t>(block.size()));
  interrupted([&] { CHECK_ERRNO(write(pipe.out(), block.data(), 10), EINTR); });
  restarted([&] { CHECK_EQ(write(pipe.out(), block.data(), 10), 10); },
            [&] { CHECK_EQ(read(pipe.in(), block.data(), 20000), 20000); });
}

CASE(partly_done_write_returns_what_was_done) {
  Pipe pipe;
  std::string block(100 * kKiB, 'x');
  interrupted([&] {
    ssize_t done = write(pipe.out(), block.data(), block.size());
    CHECK((done > 0 && done < static_cast<ssize_t>(block.size())) ||
          (done == -1 && errno == EINTR));
  });
}

CASE(recv_on_a_socket) {
  int pair[2];
  REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
  char byte = 0;
  interrupted([&] { CHECK_ERRNO(recv(pair[0], &byte, 1, 0), EINTR); });
  restarted([&] { CHECK_EQ(recv(pair[0], &byte, 1, 0), 1); },
            [&] { CHECK_EQ(send(pair[1], "z", 1, 0), 1); });
  CHECK_EQ(byte, 'z');
  timeval limit = {3600, 0};
  REQUIRE(setsockopt(pair[0], SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) == 0);
  interrupted([&] { CHECK_ERRNO(recv(pair[0], &byte, 1, 0), EINTR); });
  close(pair[0]);
  close(pair[1]);
}

CASE(accept_and_connect) {
  Listener listener;
  interrupted([&] { CHECK_ERRNO(accept(listener.socket, nullptr, nullptr), EINTR); });
  int accepted = -1;
  restarted([&] { accepted = accept(listener.socket, nullptr, nullptr); },
            [&] {
              int client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
              CHECK_EQ(connect(client, reinterpret_cast<sockaddr*>(&listener.address),
                               sizeof listener.address),
                       0);
              close(client);
            });
  CHECK(accepted >= 0);
  close(accepted);
}

CASE(nanosleep_tells_what_remains) {
  interrupted([] {
    timespec hour = {3600, 0}, left = {};
    CHECK_ERRNO(nanosleep(&hour, &left), EINTR);
    CHECK(left.tv_sec > 3000 && left.tv_sec <= 3600);
    CHECK(left.tv_nsec >= 0 && left.tv_nsec < 1000000000);
  });
  interrupted([] {
    timespec hour = {3600, 0}, left = {};
    CHECK_EQ(clock_nanosleep(CLOCK_MONOTONIC, 0, &hour, &left), EINTR);
    CHECK(left.tv_sec > 3000 && left.tv_sec <= 3600);
    CHECK_EQ(usleep(1), 0);
  });
}

CASE(absolute_sleep_is_interrupted_and_leaves_remain_alone) {
  interrupted([] {
    timespec until = {}, left = {77, 77};
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += 3600;
    CHECK_EQ(clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, &left), EINTR);
    CHECK(left.tv_sec == 77 && left.tv_nsec == 77);
  });
}

CASE(sleeps_are_never_restarted) {
  auto old = install(
      SIGUSR1, [](int) { ++handled; }, SA_RESTART);
  std::atomic<bool> done{false};
  std::thread thread([&] {
    timespec hour = {3600, 0}, left = {};
    CHECK_ERRNO(nanosleep(&hour, &left), EINTR);
    done = true;
  });
  while (!done) {
    pthread_kill(thread.native_handle(), SIGUSR1);
    sleep_ms(1);
  }
  thread.join();
  sigaction(SIGUSR1, &old, nullptr);
}

CASE(waiting_for_events_is_never_restarted) {
  auto old = install(
      SIGUSR1, [](int) { ++handled; }, SA_RESTART);
  Pipe pipe;
  int epoll = epoll_create1(EPOLL_CLOEXEC);
  epoll_event event = {};
  event.events = EPOLLIN;
  REQUIRE(epoll_ctl(epoll, EPOLL_CTL_ADD, pipe.in(), &event) == 0);
  std::atomic<bool> done{false};
  std::thread thread([&] {
    epoll_event got = {};
    CHECK_ERRNO(epoll_wait(epoll, &got, 1, -1), EINTR);
    CHECK_ERRNO(epoll_wait(epoll, &got, 1, 3600000), EINTR);
    pollfd one = {pipe.in(), POLLIN, 0};
    CHECK_ERRNO(poll(&one, 1, -1), EINTR);
    CHECK_ERRNO(poll(&one, 1, 3600000), EINTR);
    fd_set set;
    FD_ZERO(&set);
    FD_SET(pipe.in(), &set);
    CHECK_ERRNO(select(pipe.in() + 1, &set, nullptr, nullptr, nullptr), EINTR);
    CHECK_ERRNO(pause(), EINTR);
    done = true;
  });
  while (!done) {
    pthread_kill(thread.native_handle(), SIGUSR1);
    sleep_ms(1);
  }
  thread.join();
  close(epoll);
  sigaction(SIGUSR1, &old, nullptr);
}

// The end of its parent, of which dbos-run is told, makes a wait no longer.
CASE(relative_timeouts_go_on_when_the_parent_ends) {
  struct Wait {
    const char* name;
    std::function<long()> make;
  };
  const timespec whole = {4, 0};
  static epoll_event event;
  const int epoll = epoll_create1(EPOLL_CLOEXEC);
  sigset_t set = set_of(SIGUSR2);
  sigprocmask(SIG_BLOCK, &set, nullptr);
  const Wait waits[] = {
      {"nanosleep", [&] { return nanosleep(&whole, nullptr); }},
      {"clock_nanosleep", [&] { return clock_nanosleep(CLOCK_MONOTONIC, 0, &whole, nullptr); }},
      {"poll", [&] { return poll(nullptr, 0, 4000); }},
      {"ppoll", [&] { return ppoll(nullptr, 0, &whole, nullptr); }},
      {"select",
       [&] {
         timeval time = {4, 0};
         return select(0, nullptr, nullptr, nullptr, &time);
       }},
      {"epoll_wait", [&] { return epoll_wait(epoll, &event, 1, 4000); }},
      {"sigtimedwait", [&] { return sigtimedwait(&set, nullptr, &whole); }},
  };
  constexpr size_t kCount = sizeof waits / sizeof waits[0];
  Pipe tell[kCount];
  for (size_t i = 0; i < kCount; ++i) {
    start_child([&, i] {
      start_child([&, i] {
        const double begin = seconds();
        waits[i].make();
        const double length = seconds() - begin;
        tell[i].post(length >= 3.99 && length < 7.0 ? 'y' : 'n');
      });
      sleep_ms(3500);
    });
  }
  for (size_t i = 0; i < kCount; ++i) {
    const bool is_right = tell[i].take() == 'y';
    if (!is_right) check::print("%s\n", waits[i].name);
    CHECK(is_right);
  }
  while (wait(nullptr) > 0) {
  }
  sigprocmask(SIG_UNBLOCK, &set, nullptr);
  close(epoll);
}

// A program in the background that changes the terminal gets SIGTTOU first.
CASE(terminal_is_not_changed_from_the_background) {
  CHECK(exited(run_child([] {
    setsid();
    const int master = posix_openpt(O_RDWR | O_CLOEXEC);
    REQUIRE(master >= 0 && grantpt(master) == 0 && unlockpt(master) == 0);
    const int terminal = open(ptsname(master), O_RDWR | O_CLOEXEC);  // becomes the session's
    REQUIRE(terminal >= 0);
    CHECK(exited(run_child([=] {
      REQUIRE(setpgid(0, 0) == 0);
      termios before = {}, after = {};
      CHECK_EQ(tcgetattr(terminal, &before), 0);
      termios quiet = before;
      quiet.c_lflag &= ~static_cast<tcflag_t>(ECHO);
      install(SIGTTOU, [](int) { ++handled; });
      const int handled_before = handled;
      CHECK_ERRNO(tcsetattr(terminal, TCSANOW, &quiet), EINTR);
      CHECK_EQ(handled, handled_before + 1);
      CHECK_EQ(tcgetattr(terminal, &after), 0);
      CHECK_EQ(after.c_lflag, before.c_lflag);
      CHECK_ERRNO(tcsetpgrp(terminal, getpgrp()), EINTR);
      CHECK(tcgetpgrp(terminal) != getpgrp());
      signal(SIGTTOU, SIG_IGN);
      CHECK_EQ(tcsetattr(terminal, TCSANOW, &quiet), 0);
    })));
  })));
}

CASE(waiting_for_a_child) {
  Pipe end;
  pid_t child = start_child([&] {
    end.close_write();
    end.take();
  });
  int status = -1;
  interrupted([&] { CHECK_ERRNO(wait4(child, &status, 0, nullptr), EINTR); });
  siginfo_t info = {};
  interrupted([&] { CHECK_ERRNO(waitid(P_PID, static_cast<id_t>(child), &info, WEXITED), EINTR); });
  restarted([&] { CHECK_EQ(wait4(child, &status, 0, nullptr), child); },
            [&] { end.close_write(); });
  CHECK(exited(status));
}

CASE(semaphore_and_lock_waits) {
  sem_t semaphore;
  REQUIRE(sem_init(&semaphore, 0, 0) == 0);
  interrupted([&] { CHECK_ERRNO(sem_wait(&semaphore), EINTR); });
  restarted([&] { CHECK_EQ(sem_wait(&semaphore), 0); }, [&] { sem_post(&semaphore); });
  sem_destroy(&semaphore);
  int first = open("lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600),
      second = open("lock", O_RDWR | O_CLOEXEC);
  REQUIRE(first != -1 && second != -1);
  REQUIRE(flock(first, LOCK_EX) == 0);
  interrupted([&] { CHECK_ERRNO(flock(second, LOCK_EX), EINTR); });
  restarted([&] { CHECK_EQ(flock(second, LOCK_EX), 0); },
            [&] { CHECK_EQ(flock(first, LOCK_UN), 0); });
  close(first);
  close(second);
  unlink("lock");
}

CASE(sigtimedwait_is_interrupted_by_another_signal) {
  interrupted([] {
    sigset_t set = set_of(SIGUSR2);
    sigprocmask(SIG_BLOCK, &set, nullptr);
    timespec hour = {3600, 0};
    CHECK_ERRNO(sigtimedwait(&set, nullptr, &hour), EINTR);
  });
}

CASE(masks_of_ppoll_pselect_and_epoll_pwait_are_atomic) {
  // The signal is blocked and pending, so only a call that unblocks it can see it.
  auto old = install(SIGUSR1, [](int) { ++handled; });
  sigset_t block = set_of(SIGUSR1), none = set_of(), before;
  sigprocmask(SIG_BLOCK, &block, &before);
  Pipe pipe;
  handled = 0;
  raise(SIGUSR1);
  pollfd one = {pipe.in(), POLLIN, 0};
  timespec zero = {0, 0};
  CHECK_EQ(ppoll(&one, 1, &zero, nullptr), 0);
  CHECK_EQ(handled.load(), 0);
  CHECK_ERRNO(ppoll(&one, 1, nullptr, &none), EINTR);
  CHECK_EQ(handled.load(), 1);
  raise(SIGUSR1);
  CHECK_ERRNO(pselect(0, nullptr, nullptr, nullptr, nullptr, &none), EINTR);
  CHECK_EQ(handled.load(), 2);
  raise(SIGUSR1);
  int epoll = epoll_create1(EPOLL_CLOEXEC);
  epoll_event event = {};
  CHECK_ERRNO(epoll_pwait(epoll, &event, 1, -1, &none), EINTR);
  CHECK_EQ(handled.load(), 3);
  sigset_t now;
  sigprocmask(SIG_BLOCK, nullptr, &now);
  CHECK_EQ(sigismember(&now, SIGUSR1), 1);
  // Ready and pending at once: the call succeeds, and the signal waits until it is unblocked.
  pipe.post();
  raise(SIGUSR1);
  CHECK_EQ(ppoll(&one, 1, nullptr, &none), 1);
  sigprocmask(SIG_SETMASK, &before, nullptr);
  CHECK_EQ(handled.load(), 4);
  close(epoll);
  sigaction(SIGUSR1, &old, nullptr);
}

CASE(call_without_waiting_is_not_disturbed) {
  // A storm of signals over calls that never sleep: none of them may fail or be done twice.
  auto old = install(SIGALRM, [](int) { ++handled; });
  itimerval often = {{0, 500}, {0, 500}}, off = {};
  REQUIRE(setitimer(ITIMER_REAL, &often, nullptr) == 0);
  int file = open("storm", O_RDWR | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
  REQUIRE(file != -1);
  for (int i = 0; i < 500; ++i) {
    REQUIRE(write(file, "0123456789", 10) == 10);
    REQUIRE(getppid() > 0);
    char block[10];
    REQUIRE(pread(file, block, 10, i * 10) == 10);
    REQUIRE(memcmp(block, "0123456789", 10) == 0);
  }
  CHECK_EQ(lseek(file, 0, SEEK_END), 5000);
  setitimer(ITIMER_REAL, &off, nullptr);
  close(file);
  unlink("storm");
  sigaction(SIGALRM, &old, nullptr);
}

CASE(file_transfer_under_a_storm_is_whole) {
  auto old = install(SIGALRM, [](int) { ++handled; });
  itimerval often = {{0, 2000}, {0, 2000}}, off = {};
  int file = open("storm", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  REQUIRE(file != -1);
  std::vector<char> written(24 * kMiB), got(written.size());
  for (size_t i = 0; i < written.size(); i += 509) written[i] = static_cast<char>(i / 509);
  REQUIRE(setitimer(ITIMER_REAL, &often, nullptr) == 0);
  CHECK_EQ(write(file, written.data(), written.size()), static_cast<ssize_t>(written.size()));
  CHECK_EQ(pread(file, got.data(), got.size(), 0), static_cast<ssize_t>(got.size()));
  int before = handled.load();
  while (handled.load() == before) pause();  // they come again
  setitimer(ITIMER_REAL, &off, nullptr);
  CHECK(written == got);
  close(file);
  unlink("storm");
  sigaction(SIGALRM, &old, nullptr);
}

CASE(pipe_transfer_under_a_storm_loses_nothing) {
  auto old = install(
      SIGALRM, [](int) { ++handled; }, SA_RESTART);
  itimerval often = {{0, 500}, {0, 500}}, off = {};
  REQUIRE(setitimer(ITIMER_REAL, &often, nullptr) == 0);
  Pipe pipe;
  const size_t total = kMiB;
  std::thread writer([&] {
    std::vector<char> block(7000);
    for (size_t at = 0; at < total;) {
      size_t size = std::min(block.size(), total - at);
      for (size_t i = 0; i < size; ++i) block[i] = static_cast<char>((at + i) % 251);
      ssize_t n = write(pipe.out(), block.data(), size);
      REQUIRE(n > 0);
      at += static_cast<size_t>(n);
    }
    pipe.close_write();
  });
  std::vector<char> block(5000);
  size_t at = 0;
  bool right = true;
  for (ssize_t n; (n = read(pipe.in(), block.data(), block.size())) != 0;) {
    REQUIRE(n > 0);
    for (ssize_t i = 0; i < n; ++i)
      right = right && block[static_cast<size_t>(i)] ==
                           static_cast<char>((at + static_cast<size_t>(i)) % 251);
    at += static_cast<size_t>(n);
  }
  writer.join();
  CHECK(right);
  CHECK_EQ(at, total);
  setitimer(ITIMER_REAL, &off, nullptr);
  sigaction(SIGALRM, &old, nullptr);
}

CHECK_MAIN
