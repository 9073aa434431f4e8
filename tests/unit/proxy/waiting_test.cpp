// Calls that wait for something, and calls about processes, time and identity.
#include <poll.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>

#include "tests/unit/proxy/fake_program.h"

using namespace dbos;
using namespace dbos::test;

namespace {

struct Pipe {
  Pipe() { REQUIRE(pipe(ends) == 0); }
  ~Pipe() {
    close(ends[0]);
    close(ends[1]);
  }
  int ends[2];
};

}  // namespace

TEST_CASE("epoll keeps the program's data as it is") {
  Pipe pipe;
  const auto epoll = static_cast<uint64_t>(call(SYS_epoll_create1, EPOLL_CLOEXEC));
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = 0xfedcba9876543210;
  const auto reader = static_cast<uint64_t>(pipe.ends[0]);
  CHECK(call(SYS_epoll_ctl, epoll, EPOLL_CTL_ADD, reader, program().put(event)) == 0);
  const uint64_t events = program().map(30);
  CHECK(call(SYS_epoll_wait, epoll, events, 10000, 0) == 0);
  REQUIRE(write(pipe.ends[1], "x", 1) == 1);
  CHECK(call(SYS_epoll_pwait, epoll, events, 10000, 0, 0, 8) == 1);
  CHECK(uint64_t{program().get<epoll_event>(events).data.u64} == 0xfedcba9876543210);
  CHECK(program().get<epoll_event>(events).events == EPOLLIN);
  CHECK(program().get<uint8_t>(events + 12) == 0xee);
  CHECK(call(SYS_epoll_wait, epoll, events, 0, 0) == -EINVAL);
  CHECK(call(SYS_epoll_wait, epoll, events, static_cast<uint64_t>(-1), 0) == -EINVAL);
  CHECK(call(SYS_epoll_wait, epoll, events, INT32_MAX / 12, 0) == 1);
  CHECK(call(SYS_epoll_wait, epoll, events, INT32_MAX / 12 + 1, 0) == -EINVAL);
  CHECK(call(SYS_epoll_pwait, epoll, events, INT32_MAX, 0, 0, 8) == -EINVAL);
  CHECK(call(SYS_epoll_wait, epoll, 0x1000, 1, 0) == -EFAULT);
  CHECK(call(SYS_epoll_wait, epoll, ~uint64_t{0}, 1, 0) == -EFAULT);
  CHECK(call(SYS_epoll_ctl, epoll, EPOLL_CTL_ADD, reader, 0x1000) == -EFAULT);
  CHECK(call(SYS_epoll_ctl, epoll, EPOLL_CTL_DEL, reader, 0x1000) == 0);
  close(static_cast<int>(epoll));
}

TEST_CASE("poll") {
  Pipe pipe;
  REQUIRE(write(pipe.ends[1], "x", 1) == 1);
  struct {
    pollfd entries[3];
  } array{{{pipe.ends[0], POLLIN, 0}, {-1, POLLIN, 7}, {pipe.ends[1], POLLIN, 7}}};
  const uint64_t address = program().put(array);
  CHECK(call(SYS_poll, address, 3, 0) == 1);
  auto after = program().get<decltype(array)>(address);
  CHECK(after.entries[0].revents == POLLIN);
  CHECK(after.entries[1].revents == 0);
  CHECK(after.entries[2].revents == 0);
  const uint64_t timeout = program().put(timespec{0, 1000});
  const uint64_t mask = program().put(uint64_t{0});
  CHECK(call(SYS_ppoll, address, 3, timeout, mask, 8) == 1);
  CHECK(call(SYS_ppoll, address, 3, timeout, mask, 4) == -EINVAL);
  CHECK(call(SYS_poll, 0x1000, 1, 0) == -EFAULT);
  CHECK(call(SYS_poll, 0x1000, 0, 0) == 0);
  CHECK(call(SYS_poll, address, 0xffffffff, 0) == -EINVAL);
}

TEST_CASE("select changes no more than Linux does") {
  Pipe pipe;
  REQUIRE(write(pipe.ends[1], "x", 1) == 1);
  fd_set set;
  FD_ZERO(&set);
  FD_SET(pipe.ends[0], &set);
  FD_SET(1000, &set);
  const uint64_t readers = program().put(set);
  const uint64_t timeout = program().put(timeval{5, 0});
  const auto count = static_cast<uint64_t>(pipe.ends[0] + 1);
  CHECK(call(SYS_select, count, readers, 0, 0, timeout) == 1);
  const auto after = program().get<fd_set>(readers);
  CHECK(FD_ISSET(pipe.ends[0], &after));
  CHECK(FD_ISSET(1000, &after));
  CHECK(program().get<timeval>(timeout).tv_sec == 4);

  // The timeout may be a constant.
  const uint64_t constant = program().map(1, Layout::kContiguous, Rights::kReadOnly);
  std::memset(program().at(constant, false), 0, 16);
  struct {
    uint64_t mask, size;
  } sixth{program().put(uint64_t{0}), 8};
  CHECK(call(SYS_pselect6, count, readers, 0, 0, constant, program().put(sixth)) == 1);
  sixth.size = 4;
  CHECK(call(SYS_pselect6, count, readers, 0, 0, constant, program().put(sixth)) == -EINVAL);
  CHECK(call(SYS_select, static_cast<uint64_t>(-1), readers, 0, 0, timeout) == -EINVAL);
  CHECK(call(SYS_select, count, 0x1000, 0, 0, timeout) == -EFAULT);
}

TEST_CASE("select with more bits than there are descriptors") {
  fd_set set;
  FD_ZERO(&set);
  const uint64_t end = program().map(2) + 2 * kPageSize;
  program().write(end - 128, &set, 128);
  const uint64_t timeout = program().put(timeval{0, 0});
  CHECK(call(SYS_select, 1024, end - 128, 0, 0, timeout) == 0);
}

TEST_CASE("files whose drivers know no iovecs") {
  const int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
  const itimerspec soon{{0, 0}, {0, 1}};
  const uint64_t old_value = program().put(itimerspec{});
  CHECK(call(SYS_timerfd_settime, static_cast<uint64_t>(timer), 0, program().put(soon),
             old_value) == 0);
  usleep(1000);
  const uint64_t ticks = program().across_pages(8);
  CHECK(call(SYS_read, static_cast<uint64_t>(timer), ticks, 8) == 8);
  CHECK(program().get<uint64_t>(ticks) == 1);
  close(timer);

  const int notify = inotify_init1(IN_NONBLOCK);
  const int64_t watch = call(SYS_inotify_add_watch, static_cast<uint64_t>(notify),
                             program().put_text("/tmp"), IN_CREATE | IN_DELETE);
  CHECK(watch >= 0);
  char name[] = "/tmp/proxy_test_XXXXXX";
  close(mkstemp(name));
  unlink(name);
  const uint64_t events = program().map(100) + kPageSize - 8;  // a first piece of 8 bytes
  CHECK(call(SYS_read, static_cast<uint64_t>(notify), events, 100000) >= 64);
  CHECK(program().get<inotify_event>(events).wd == watch);
  close(notify);

  const int event = eventfd(5, EFD_NONBLOCK);
  CHECK(call(SYS_read, static_cast<uint64_t>(event), ticks, 8) == 8);
  CHECK(program().get<uint64_t>(ticks) == 5);
  CHECK(call(SYS_write, static_cast<uint64_t>(event), program().put(uint64_t{3}), 8) == 8);
  close(event);
}

TEST_CASE("a wait that finds nothing leaves the status alone") {
  const uint64_t status = program().put(int32_t{1234});
  CHECK(call(SYS_wait4, static_cast<uint64_t>(-1), status, WNOHANG, 0) == -ECHILD);
  int ends[2];
  REQUIRE(pipe(ends) == 0);
  const pid_t child = fork();
  if (child == 0) {
    char byte;
    close(ends[1]);
    _exit(read(ends[0], &byte, 1) == 0 ? 3 : 4);
  }
  CHECK(call(SYS_wait4, static_cast<uint64_t>(-1), status, WNOHANG, 0) == 0);
  CHECK(program().get<int32_t>(status) == 1234);
  close(ends[0]);
  close(ends[1]);
  const uint64_t usage = program().put(rusage{});
  CHECK(call(SYS_wait4, static_cast<uint64_t>(child), status, 0, usage) == child);
  CHECK(WEXITSTATUS(program().get<int32_t>(status)) == 3);
}

TEST_CASE("sleeping") {
  const uint64_t left = program().put(timespec{7, 7});
  CHECK(call(SYS_nanosleep, program().put(timespec{0, 1000}), left) == 0);
  CHECK(program().get<timespec>(left).tv_sec == 7);
  CHECK(call(SYS_nanosleep, program().put(timespec{0, 2000000000}), left) == -EINVAL);
  CHECK(call(SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, program().put(timespec{0, 1}), 0) == 0);
}

TEST_CASE("facts about the process and the system") {
  const uint64_t name = program().put(utsname{});
  CHECK(call(SYS_uname, name) == 0);
  CHECK(std::string(program().get<utsname>(name).sysname) == "Linux");
  const uint64_t limit = program().put(rlimit{});
  CHECK(call(SYS_prlimit64, 0, RLIMIT_NOFILE, 0, limit) == 0);
  CHECK(program().get<rlimit>(limit).rlim_cur > 0);
  const uint64_t mask = program().map(3) + 100;
  CHECK(call(SYS_sched_getaffinity, 0, 128, mask) > 0);
  CHECK(call(SYS_sched_setaffinity, 0, 128, mask) == 0);
  CHECK(call(SYS_sched_getaffinity, 0, 4, mask) == -EINVAL);
  struct {  // sched_attr
    uint32_t size, policy;
    uint8_t rest[48];
  } attributes{};
  const uint64_t attributes_address = program().put(attributes);
  CHECK(call(SYS_sched_getattr, 0, attributes_address, sizeof attributes, 0) == 0);
  CHECK(program().get<uint32_t>(attributes_address) >= 48);
  CHECK(call(SYS_sched_setattr, 0, attributes_address, 0) == 0);
  const uint64_t wrong = program().put(uint32_t{5});
  CHECK(call(SYS_sched_setattr, 0, wrong, 0) == -E2BIG);
  CHECK(program().get<uint32_t>(wrong) >= 48);
  const uint64_t ids = program().map(1);
  CHECK(call(SYS_getresuid, ids, ids + 4, ids + 8) == 0);
  CHECK(program().get<uint32_t>(ids + 8) == getuid());
  const int64_t groups = call(SYS_getgroups, 0, 0);
  CHECK(groups >= 0);
  CHECK(call(SYS_getgroups, 1000, ids) == groups);
  struct {
    uint32_t version, process;
  } header{0, 0};
  const uint64_t header_address = program().put(header);
  CHECK(call(SYS_capget, header_address, 0) == 0);
  CHECK(program().get<uint32_t>(header_address) == 0x20080522);
}

TEST_CASE("prctl") {
  const uint64_t name = program().across_pages(16);
  CHECK(call(SYS_prctl, PR_GET_NAME, name) == 0);
  const std::string before = program().text(name, 16).c_str();
  CHECK(call(SYS_prctl, PR_SET_NAME, program().put_text("a name that is long")) == 0);
  CHECK(call(SYS_prctl, PR_GET_NAME, name) == 0);
  CHECK(program().text(name, 16) == std::string("a name that is \0", 16));
  CHECK(call(SYS_prctl, PR_SET_NAME, program().put_text(before)) == 0);
  CHECK(call(SYS_prctl, PR_SET_MM, 1, 2, 3, 4) == -EINVAL);
  CHECK(program().log.find("prctl request 0x23") == 0);
}

TEST_CASE("semaphores of System V") {
  const int64_t set = call(SYS_semget, IPC_PRIVATE, 3, 0600 | IPC_CREAT);
  REQUIRE(set >= 0);
  const auto id = static_cast<uint64_t>(set);
  const uint16_t values[3] = {7, 8, 9};
  struct {
    uint16_t value[3];
  } array{{7, 8, 9}};
  CHECK(call(SYS_semctl, id, 0, SETALL, program().put(array)) == 0);
  const uint64_t answer = program().put(decltype(array){});
  CHECK(call(SYS_semctl, id, 0, GETALL, answer) == 0);
  CHECK(program().get<decltype(array)>(answer).value[2] == values[2]);
  CHECK(program().get<uint8_t>(answer + 6) == 0xee);
  const sembuf take{1, -3, 0};
  CHECK(call(SYS_semop, id, program().put(take), 1) == 0);
  CHECK(call(SYS_semctl, id, 1, GETVAL, 0) == 5);
  CHECK(call(SYS_semop, id, program().put(take), 100000) == -E2BIG);
  CHECK(call(SYS_semctl, id, 0, IPC_RMID, 0) == 0);
}

TEST_CASE("calls that are refused say so once") {
  CHECK(call(SYS_ptrace, 0) == -EPERM);
  CHECK(program().log ==
        "system call 101 (ptrace) is not supported: errno 1; the tracee would be "
        "the VMM\n");
  CHECK(call(SYS_ptrace, 0) == -EPERM);
  CHECK(program().log.empty());
  CHECK(call(400) == -ENOSYS);
  CHECK(program().log == "system call 400 is not supported: errno 38\n");
  CHECK(call(100000) == -ENOSYS);
  CHECK(call(SYS_mmap, 0, 4096, 3, 0x22, -1ul, 0) == -ENOSYS);
  CHECK(program().host_calls.empty());
}
