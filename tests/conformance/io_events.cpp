// Waiting for events: poll and select with many descriptors, epoll in its three modes, eventfd,
// timerfd, inotify, duplicated and closed descriptors.
#include <linux/close_range.h>
#include <poll.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>

#include <thread>

#include "blocked.h"
#include "support.h"

namespace {

struct Epoll {
  int fd = epoll_create1(EPOLL_CLOEXEC);
  Epoll() { REQUIRE(fd != -1); }
  Epoll(const Epoll&) = delete;
  Epoll& operator=(const Epoll&) = delete;
  ~Epoll() { close(fd); }
  int control(int operation, int descriptor, uint32_t events, uint64_t data) const {
    epoll_event event = {};
    event.events = events;
    event.data.u64 = data;
    return epoll_ctl(fd, operation, descriptor, &event);
  }
  // How many are ready now; the last one's events and data.
  int ready(uint32_t* events = nullptr, uint64_t* data = nullptr, int timeout_ms = 0) const {
    epoll_event got[16];
    int n = epoll_wait(fd, got, 16, timeout_ms);
    if (n > 0 && events != nullptr) *events = got[n - 1].events;
    if (n > 0 && data != nullptr) *data = got[n - 1].data.u64;
    return n;
  }
};

}  // namespace

CASE(level_triggered_tells_until_it_is_read) {
  Epoll epoll;
  Pipe pipe;
  uint32_t events = 0;
  uint64_t data = 0;
  CHECK_EQ(epoll.control(EPOLL_CTL_ADD, pipe.in(), EPOLLIN, 0x123456789abcdef0), 0);
  CHECK_EQ(epoll.ready(), 0);
  pipe.post();
  for (int i = 0; i < 3; ++i) {
    CHECK_EQ(epoll.ready(&events, &data), 1);
    CHECK_EQ(events, EPOLLIN);
    CHECK(data == 0x123456789abcdef0);
  }
  pipe.take();
  CHECK_EQ(epoll.ready(), 0);
  pipe.close_write();
  CHECK_EQ(epoll.ready(&events), 1);
  CHECK_EQ(events, EPOLLHUP);
}

CASE(edge_triggered_tells_once_per_arrival) {
  Epoll epoll;
  Pipe pipe;
  CHECK_EQ(epoll.control(EPOLL_CTL_ADD, pipe.in(), EPOLLIN | EPOLLET, 1), 0);
  pipe.post();
  CHECK_EQ(epoll.ready(), 1);
  CHECK_EQ(epoll.ready(), 0);
  pipe.post();
  CHECK_EQ(epoll.ready(), 1);
  CHECK_EQ(epoll.ready(), 0);
}

CASE(oneshot_needs_to_be_armed_again) {
  Epoll epoll;
  Pipe pipe;
  CHECK_EQ(epoll.control(EPOLL_CTL_ADD, pipe.in(), EPOLLIN | EPOLLONESHOT, 1), 0);
  pipe.post();
  CHECK_EQ(epoll.ready(), 1);
  CHECK_EQ(epoll.ready(), 0);
  CHECK_EQ(epoll.control(EPOLL_CTL_MOD, pipe.in(), EPOLLIN | EPOLLONESHOT, 1), 0);
  CHECK_EQ(epoll.ready(), 1);
}

CASE(epoll_refuses_bad_arguments) {
  Epoll epoll;
  Pipe pipe;
  epoll_event event = {};
  CHECK_EQ(epoll.control(EPOLL_CTL_ADD, pipe.in(), EPOLLIN, 1), 0);
  CHECK_ERRNO(epoll.control(EPOLL_CTL_ADD, pipe.in(), EPOLLIN, 1), EEXIST);
  CHECK_ERRNO(epoll.control(EPOLL_CTL_MOD, pipe.out(), EPOLLIN, 1), ENOENT);
  CHECK_ERRNO(epoll.control(EPOLL_CTL_DEL, pipe.out(), 0, 1), ENOENT);
  CHECK_ERRNO(epoll.control(EPOLL_CTL_ADD, -1, EPOLLIN, 1), EBADF);
  CHECK_ERRNO(epoll.control(EPOLL_CTL_ADD, epoll.fd, EPOLLIN, 1), EINVAL);
  CHECK_ERRNO(epoll.control(9, pipe.in(), EPOLLIN, 1), EINVAL);
  CHECK_ERRNO(epoll_wait(epoll.fd, &event, 0, 0), EINVAL);
  CHECK_ERRNO(epoll_wait(pipe.in(), &event, 1, 0), EINVAL);
  CHECK_ERRNO(epoll_wait(-1, &event, 1, 0), EBADF);
  CHECK_ERRNO(epoll_create1(0x1234), EINVAL);
  CHECK_ERRNO(syscall(SYS_epoll_create, 0), EINVAL);
  CHECK_ERRNO(epoll_ctl(epoll.fd, EPOLL_CTL_ADD, pipe.out(), nowhere<epoll_event>()), EFAULT);
  int file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
  CHECK_ERRNO(epoll.control(EPOLL_CTL_ADD, file, EPOLLIN, 1), EPERM);
  close(file);
  pipe.post();
  CHECK_ERRNO(epoll_wait(epoll.fd, nowhere<epoll_event>(), 1, 0), EFAULT);
}

CASE(closed_descriptor_leaves_the_set) {
  Epoll epoll;
  int event = eventfd(1, EFD_CLOEXEC);
  CHECK_EQ(epoll.control(EPOLL_CTL_ADD, event, EPOLLIN, 1), 0);
  CHECK_EQ(epoll.ready(), 1);
  int copy = dup(event);
  close(event);
  CHECK_EQ(epoll.ready(), 1);  // the open file still is there
  close(copy);
  CHECK_EQ(epoll.ready(), 0);
}

CASE(sets_can_be_nested) {
  Epoll inner, outer;
  Pipe pipe;
  CHECK_EQ(inner.control(EPOLL_CTL_ADD, pipe.in(), EPOLLIN, 1), 0);
  CHECK_EQ(outer.control(EPOLL_CTL_ADD, inner.fd, EPOLLIN, 2), 0);
  CHECK_EQ(outer.ready(), 0);
  pipe.post();
  uint64_t data = 0;
  CHECK_EQ(outer.ready(nullptr, &data), 1);
  CHECK_EQ(data, 2);
}

CASE(waiting_thread_is_woken) {
  Epoll epoll;
  Pipe pipe;
  CHECK_EQ(epoll.control(EPOLL_CTL_ADD, pipe.in(), EPOLLIN, 7), 0);
  std::thread waiter([&] {
    uint64_t data = 0;
    CHECK_EQ(epoll.ready(nullptr, &data, -1), 1);
    CHECK_EQ(data, 7);
  });
  sleep_ms(1);
  pipe.post();
  waiter.join();
}

CASE(timeouts_last_as_long_as_asked) {
  Epoll epoll;
  double start = seconds();
  CHECK_EQ(epoll.ready(nullptr, nullptr, 5), 0);
  CHECK(seconds() - start >= 0.0049);
  pollfd none = {-1, POLLIN, 0};
  start = seconds();
  CHECK_EQ(poll(&none, 1, 5), 0);
  CHECK(seconds() - start >= 0.0049);
  timeval time = {0, 5000};
  start = seconds();
  CHECK_EQ(select(0, nullptr, nullptr, nullptr, &time), 0);
  CHECK(seconds() - start >= 0.0049);
  CHECK(time.tv_sec == 0 && time.tv_usec == 0);
}

CASE(poll_tells_of_each_kind) {
  Pipe pipe;
  pollfd fds[4] = {
      {pipe.in(), POLLIN, 0}, {pipe.out(), POLLOUT, 0}, {-1, POLLIN, 0x7f}, {9999, POLLIN, 0}};
  CHECK_EQ(poll(fds, 4, -1), 2);
  CHECK_EQ(fds[0].revents, 0);
  CHECK_EQ(fds[1].revents, POLLOUT);
  CHECK_EQ(fds[2].revents, 0);
  CHECK_EQ(fds[3].revents, POLLNVAL);
  pipe.close_read();
  CHECK_EQ(poll(&fds[1], 1, -1), 1);
  CHECK_EQ(fds[1].revents, POLLOUT | POLLERR);
  CHECK_ERRNO(poll(nowhere<pollfd>(), 1, 0), EFAULT);
  CHECK_ERRNO(syscall(SYS_poll, fds, 100000000, 0), EINVAL);
  timespec bad = {0, -1};
  CHECK_ERRNO(ppoll(fds, 1, &bad, nullptr), EINVAL);
}

CASE(poll_and_select_with_two_thousand_descriptors) {
  rlimit limit = {}, old = {};
  REQUIRE(getrlimit(RLIMIT_NOFILE, &limit) == 0);
  old = limit;
  limit.rlim_cur = limit.rlim_max < 2500 ? limit.rlim_max : 2500;
  if (limit.rlim_cur < 2500 || setrlimit(RLIMIT_NOFILE, &limit) != 0)
    SKIP("fewer than 2500 descriptors allowed");
  std::vector<pollfd> fds;
  Epoll epoll;
  for (int i = 0; i < 2000; ++i) {
    int event = eventfd(i % 100 == 3 ? 1 : 0, EFD_CLOEXEC);
    REQUIRE(event != -1);
    fds.push_back({event, POLLIN, 0});
    REQUIRE(epoll.control(EPOLL_CTL_ADD, event, EPOLLIN, static_cast<uint64_t>(i)) == 0);
  }
  CHECK_EQ(poll(fds.data(), fds.size(), -1), 20);
  for (size_t i = 0; i < fds.size(); ++i) REQUIRE(fds[i].revents == (i % 100 == 3 ? POLLIN : 0));
  std::vector<epoll_event> events(64);
  CHECK_EQ(epoll_wait(epoll.fd, events.data(), 64, -1), 20);
  uint64_t sum = 0;
  for (size_t i = 0; i < 20; ++i) sum += events[i].data.u64;
  CHECK_EQ(sum, 20 * 3 + 100 * 190);
  // Bit arrays longer than an fd_set.
  std::vector<unsigned long> bits(40), none(40);
  auto number = [&](size_t i) { return static_cast<size_t>(fds[i].fd); };
  for (size_t i = 0; i < fds.size(); ++i) bits[number(i) / 64] |= 1ul << number(i) % 64;
  CHECK_EQ(syscall(SYS_select, fds.back().fd + 1, bits.data(), nullptr, nullptr, nullptr), 20);
  for (size_t i = 0; i < fds.size(); ++i)
    REQUIRE((bits[number(i) / 64] >> number(i) % 64 & 1) == (i % 100 == 3));
  for (const pollfd& one : fds) close(one.fd);
  setrlimit(RLIMIT_NOFILE, &old);
}

CASE(select_tells_of_each_set) {
  Pipe pipe;
  fd_set in, out;
  FD_ZERO(&in);
  FD_ZERO(&out);
  FD_SET(pipe.in(), &in);
  FD_SET(pipe.out(), &out);
  int top = std::max(pipe.in(), pipe.out()) + 1;
  CHECK_EQ(select(top, &in, &out, nullptr, nullptr), 1);
  CHECK(!FD_ISSET(pipe.in(), &in) && FD_ISSET(pipe.out(), &out));
  pipe.post();
  FD_SET(pipe.in(), &in);
  CHECK_EQ(select(top, &in, &out, nullptr, nullptr), 2);
  timeval bad = {-1, 0};
  CHECK_ERRNO(select(0, nullptr, nullptr, nullptr, &bad), EINVAL);
  CHECK_ERRNO(select(-1, nullptr, nullptr, nullptr, nullptr), EINVAL);
  FD_ZERO(&in);
  FD_SET(900, &in);
  timeval now = {0, 0};
  CHECK_ERRNO(select(901, &in, nullptr, nullptr, &now), EBADF);
}

// As a program that says getdtablesize(). In a child, whose table has room for few.
CASE(select_of_more_descriptors_than_the_set_has_room_for) {
  CHECK(exited(run_child([] {
    char* pages = static_cast<char*>(map_anonymous(2 * kPage));
    REQUIRE(munmap(pages + kPage, kPage) == 0);
    auto* set = reinterpret_cast<fd_set*>(pages + kPage - sizeof(fd_set));
    Pipe pipe;
    pipe.post();
    FD_SET(pipe.in(), set);
    timeval now = {0, 0};
    CHECK_EQ(syscall(SYS_select, 65536, set, nullptr, nullptr, &now), 1);
    CHECK(FD_ISSET(pipe.in(), set));
  })));
}

CASE(poll_writes_nothing_but_what_came_to_pass) {
  Pipe first, second;
  pollfd fds[2] = {{first.in(), POLLIN, 0}, {second.in(), POLLIN, POLLERR}};
  BlockedCall waiting({SYS_poll, SYS_ppoll}, [&] { CHECK_EQ(poll(fds, 2, -1), 1); });
  fds[1].events = POLLIN | POLLPRI;
  first.post();
  waiting.join();
  CHECK_EQ(fds[1].events, POLLIN | POLLPRI);
  CHECK_EQ(fds[1].revents, 0);
}

CASE(event_counter) {
  int event = eventfd(3, EFD_NONBLOCK | EFD_CLOEXEC);
  uint64_t value = 0;
  CHECK_EQ(read(event, &value, 8), 8);
  CHECK_EQ(value, 3);
  CHECK_ERRNO(read(event, &value, 8), EAGAIN);
  value = 5;
  CHECK_EQ(write(event, &value, 8), 8);
  CHECK_EQ(write(event, &value, 8), 8);
  CHECK_ERRNO(read(event, &value, 4), EINVAL);
  CHECK_EQ(read(event, &value, 8), 8);
  CHECK_EQ(value, 10);
  value = ~uint64_t{0};
  CHECK_ERRNO(write(event, &value, 8), EINVAL);
  value = ~uint64_t{0} - 1;
  CHECK_EQ(write(event, &value, 8), 8);
  CHECK_ERRNO(write(event, &value, 8), EAGAIN);
  close(event);
  event = eventfd(2, EFD_SEMAPHORE | EFD_NONBLOCK | EFD_CLOEXEC);
  CHECK(read(event, &value, 8) == 8 && value == 1);
  CHECK(read(event, &value, 8) == 8 && value == 1);
  CHECK_ERRNO(read(event, &value, 8), EAGAIN);
  close(event);
  event = eventfd(0, EFD_CLOEXEC);
  std::thread writer([=] {
    uint64_t one = 1;
    sleep_ms(1);
    CHECK_EQ(write(event, &one, 8), 8);
  });
  CHECK_EQ(read(event, &value, 8), 8);
  writer.join();
  close(event);
}

CASE(timer_descriptor) {
  int timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
  REQUIRE(timer != -1);
  uint64_t expired = 0;
  CHECK_ERRNO(read(timer, &expired, 8), EAGAIN);
  itimerspec soon = {{0, 0}, {0, 3'000'000}}, left = {};
  CHECK_EQ(timerfd_settime(timer, 0, &soon, nullptr), 0);
  CHECK_EQ(timerfd_gettime(timer, &left), 0);
  CHECK(left.it_value.tv_sec == 0 && left.it_value.tv_nsec <= 3'000'000);
  pollfd one = {timer, POLLIN, 0};
  CHECK_EQ(poll(&one, 1, -1), 1);
  CHECK_EQ(read(timer, &expired, 8), 8);
  CHECK_EQ(expired, 1);
  itimerspec often = {{0, 1'000'000}, {0, 1'000'000}};
  CHECK_EQ(timerfd_settime(timer, 0, &often, nullptr), 0);
  sleep_ms(8);
  CHECK_EQ(read(timer, &expired, 8), 8);
  CHECK(expired >= 7);
  itimerspec past = {{0, 0}, {1, 0}};
  CHECK_EQ(timerfd_settime(timer, TFD_TIMER_ABSTIME, &past, nullptr), 0);
  CHECK_EQ(poll(&one, 1, -1), 1);
  CHECK_EQ(read(timer, &expired, 8), 8);
  CHECK_EQ(expired, 1);
  itimerspec bad = {{0, 0}, {0, 1'000'000'000}};
  CHECK_ERRNO(timerfd_settime(timer, 0, &bad, nullptr), EINVAL);
  CHECK_ERRNO(timerfd_create(99, 0), EINVAL);
  CHECK_ERRNO(timerfd_gettime(STDIN_FILENO, &left), EINVAL);
  close(timer);
}

CASE(file_events_come_in_order) {
  int watch = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
  REQUIRE(watch != -1);
  REQUIRE(mkdir("watched", 0700) == 0);
  int id = inotify_add_watch(
      watch, "watched",
      IN_CREATE | IN_MODIFY | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_CLOSE_WRITE);
  if (id == -1 && errno == ENOSYS) SKIP("no inotify");
  REQUIRE(id != -1);
  int file = open("watched/file", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
  REQUIRE(file != -1 && write(file, "x", 1) == 1);
  close(file);
  REQUIRE(rename("watched/file", "watched/moved") == 0);
  REQUIRE(unlink("watched/moved") == 0);
  alignas(inotify_event) char buffer[4096];
  ssize_t length = read(watch, buffer, sizeof buffer);
  CHECK(length > 0);
  for (ssize_t at = 0; at < length;) {
    inotify_event event;
    memcpy(&event, buffer + at, sizeof event);
    check::print("event %#x %s\n", event.mask, buffer + at + sizeof event);
    CHECK_EQ(event.wd, id);
    at += static_cast<ssize_t>(sizeof event + event.len);
  }
  CHECK_EQ(inotify_rm_watch(watch, id), 0);
  CHECK_ERRNO(inotify_rm_watch(watch, 77), EINVAL);
  close(watch);
  rmdir("watched");
}

CASE(duplicates_share_the_open_file) {
  int file = memfd_create("dup", MFD_CLOEXEC);
  REQUIRE(write(file, "abcdef", 6) == 6);
  int copy = dup(file), high = fcntl(file, F_DUPFD, 300), exact = dup2(file, 310),
      with = dup3(file, 311, O_CLOEXEC);
  CHECK(copy >= 0);
  CHECK_EQ(high, 300);
  CHECK_EQ(exact, 310);
  CHECK_EQ(with, 311);
  CHECK_EQ(fcntl(copy, F_GETFD), 0);
  CHECK_EQ(fcntl(with, F_GETFD), FD_CLOEXEC);
  lseek(copy, 2, SEEK_SET);
  CHECK_EQ(lseek(exact, 0, SEEK_CUR), 2);
  CHECK_EQ(fcntl(file, F_SETFL, O_APPEND), 0);
  CHECK_EQ(fcntl(high, F_GETFL) & O_APPEND, O_APPEND);
  CHECK_EQ(dup2(file, file), file);
  CHECK_ERRNO(dup3(file, file, 0), EINVAL);
  CHECK_ERRNO(dup2(-1, 5), EBADF);
  CHECK_ERRNO(dup2(file, -1), EBADF);
  CHECK_ERRNO(dup2(file, 1 << 30), EBADF);
  CHECK_ERRNO(fcntl(file, F_DUPFD, -1), EINVAL);
  CHECK_ERRNO(fcntl(file, 9999, 0), EINVAL);
  CHECK_EQ(syscall(SYS_close_range, 300, 320, 0), 0);
  CHECK_ERRNO(fcntl(exact, F_GETFD), EBADF);
  CHECK_ERRNO(syscall(SYS_close_range, 20, 10, 0), EINVAL);
  CHECK_EQ(close(copy), 0);
  CHECK_ERRNO(close(copy), EBADF);
  close(file);
}

CASE(lowest_free_number_is_given) {
  int first = open("/dev/null", O_RDONLY | O_CLOEXEC), second = dup(first), third = dup(first);
  CHECK(second == first + 1 && third == first + 2);
  close(second);
  CHECK_EQ(dup(first), second);
  close(first);
  CHECK_EQ(open("/dev/null", O_RDONLY | O_CLOEXEC), first);
  close(first);
  close(second);
  close(third);
}

CASE(descriptor_limit_is_kept) {
  CHECK(exited(run_child([] {
    rlimit limit = {20, 20};
    REQUIRE(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    int last = -1;
    for (int fd; (fd = open("/dev/null", O_RDONLY | O_CLOEXEC)) != -1;) last = fd;
    CHECK_EQ(errno, EMFILE);
    CHECK_EQ(last, 19);
    int end[2];
    CHECK_ERRNO(pipe(end), EMFILE);
  })));
}

CASE(small_ioctls) {
  int pair[2];
  REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
  int on = 1, waiting = -1;
  CHECK_EQ(ioctl(pair[0], FIONBIO, &on), 0);
  char byte = 0;
  CHECK_ERRNO(read(pair[0], &byte, 1), EAGAIN);
  REQUIRE(write(pair[1], "abc", 3) == 3);
  CHECK_EQ(ioctl(pair[0], FIONREAD, &waiting), 0);
  CHECK_EQ(waiting, 3);
  CHECK_EQ(ioctl(pair[0], FIOCLEX), 0);
  winsize size = {};
  CHECK_ERRNO(ioctl(pair[0], TIOCGWINSZ, &size), ENOTTY);
  CHECK_ERRNO(ioctl(-1, TIOCGWINSZ, &size), EBADF);
  CHECK_ERRNO(ioctl(pair[0], FIONREAD, nowhere<int>()), EFAULT);
  CHECK_EQ(isatty(pair[0]), 0);
  close(pair[0]);
  close(pair[1]);
}

// It has the table for itself already.
CASE(a_single_thread_may_unshare_its_descriptors) {
  int file = memfd_create("alone", MFD_CLOEXEC);
  CHECK_EQ(unshare(CLONE_FILES), 0);
  int high = fcntl(file, F_DUPFD, 300);
  CHECK_EQ(syscall(SYS_close_range, 300, 320, CLOSE_RANGE_UNSHARE), 0);
  CHECK_ERRNO(fcntl(high, F_GETFD), EBADF);
  std::thread([=] { CHECK_EQ(close(file), 0); }).join();
}

CHECK_MAIN
