// One or two calls of each of the smaller families.
#include <fcntl.h>
#include <mqueue.h>
#include <signal.h>
#include <sys/msg.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <array>
#include <catch2/catch.hpp>
#include <chrono>
#include <ctime>
#include <thread>

#include "tests/unit/proxy/fake_program.h"
#include "vmm/host/signal_mask.h"
#include "vmm/proxy/execute.h"

using namespace dbos;
using namespace dbos::test;

namespace {

constexpr uint64_t kHere = static_cast<uint64_t>(AT_FDCWD);

uint64_t text(const std::string& text) {
  return program().put_text(text);
}

}  // namespace

TEST_CASE("files in a directory") {
  char name[] = "/tmp/proxy_test_XXXXXX";
  REQUIRE(mkdtemp(name) != nullptr);
  const std::string directory = name;
  CHECK(call(SYS_mkdir, text(directory + "/a"), 0755) == 0);
  CHECK(call(SYS_symlinkat, text("target"), kHere, text(directory + "/link")) == 0);
  CHECK(call(SYS_renameat2, kHere, text(directory + "/link"), kHere, text(directory + "/a"),
             RENAME_NOREPLACE) == -EEXIST);
  const uint64_t buffer = program().across_pages(4096);
  CHECK(call(SYS_readlinkat, kHere, text(directory + "/link"), buffer, 4096) == 6);
  CHECK(program().text(buffer, 6) == "target");
  const uint64_t status = program().across_pages(256);
  CHECK(call(SYS_statx, kHere, text(directory + "/a"), 0, STATX_BASIC_STATS, status) == 0);
  CHECK(S_ISDIR(program().get<struct statx>(status).stx_mode));
  CHECK(call(SYS_newfstatat, kHere, text(directory + "/link"), status, AT_SYMLINK_NOFOLLOW) == 0);
  CHECK(S_ISLNK(program().get<struct stat>(status).st_mode));
  struct {
    timespec times[2];
  } times{{{1000, 5}, {2000, 6}}};
  CHECK(call(SYS_utimensat, kHere, text(directory + "/a"), program().put(times), 0) == 0);
  CHECK(call(SYS_stat, text(directory + "/a"), status) == 0);
  CHECK(program().get<struct stat>(status).st_mtim.tv_sec == 2000);

  struct {
    uint32_t bytes;
    int32_t type;
    uint8_t data[128];
  } handle{128, 0, {}};
  const uint64_t handle_address = program().put(handle);
  const uint64_t mount = program().put(int32_t{-1});
  const int64_t result =
      call(SYS_name_to_handle_at, kHere, text(directory), handle_address, mount, 0);
  CHECK((result == 0 || result == -EOPNOTSUPP));
  const uint64_t small = program().put(uint32_t{0});
  const auto mounted = program().get<int32_t>(mount);
  program().write(mount, "????", 4);
  const int64_t overflow = call(SYS_name_to_handle_at, kHere, text(directory), small, mount, 0);
  CHECK((overflow == -EOVERFLOW || overflow == -EOPNOTSUPP));
  CHECK(program().get<uint32_t>(small) > 0);
  if (overflow == -EOVERFLOW) CHECK(program().get<int32_t>(mount) == mounted);

  CHECK(call(SYS_unlink, text(directory + "/link")) == 0);
  CHECK(call(SYS_rmdir, text(directory + "/a")) == 0);
  CHECK(call(SYS_rmdir, text(directory)) == 0);
}

TEST_CASE("extended attributes") {
  const int64_t file = call(SYS_memfd_create, text("attributes"), 0);
  REQUIRE(file >= 0);
  const auto fd = static_cast<uint64_t>(file);
  const int64_t set = call(SYS_fsetxattr, fd, text("user.name"), text("value"), 5, 0);
  CHECK((set == 0 || set == -EOPNOTSUPP));
  CHECK(call(SYS_fsetxattr, fd, text("user.name"), text("value"), 1 << 20, 0) == -E2BIG);
  CHECK(call(SYS_fsetxattr, fd, text("user." + std::string(300, 'x')), text("v"), 1, 0) == -ERANGE);
  const uint64_t buffer = program().across_pages(70000);
  CHECK(call(SYS_flistxattr, fd, buffer, ~uint64_t{0}) >= 0);
  if (set == 0) {
    CHECK(call(SYS_fgetxattr, fd, text("user.name"), buffer, 70000) == 5);
    CHECK(program().text(buffer, 5) == "value");
    CHECK(call(SYS_fgetxattr, fd, text("user.name"), buffer, 0) == 5);
    CHECK(call(SYS_fgetxattr, fd, text("user.name"), buffer, 2) == -ERANGE);
  }
  CHECK(call(SYS_memfd_create, text(std::string(300, 'x')), 0) == -EINVAL);
  CHECK(call(SYS_close, fd) == 0);
}

TEST_CASE("timers") {
  const uint64_t identifier = program().put(int32_t{-1});
  sigevent event{};
  event.sigev_notify = SIGEV_NONE;
  CHECK(call(SYS_timer_create, CLOCK_MONOTONIC, program().put(event), identifier) == 0);
  const auto timer = static_cast<uint64_t>(program().get<int32_t>(identifier));
  const itimerspec later{{0, 0}, {100, 0}};
  const uint64_t before = program().put(itimerspec{{7, 7}, {7, 7}});
  CHECK(call(SYS_timer_settime, timer, 0, program().put(later), before) == 0);
  CHECK(program().get<itimerspec>(before).it_value.tv_sec == 0);
  CHECK(call(SYS_timer_gettime, timer, before) == 0);
  CHECK(program().get<itimerspec>(before).it_value.tv_sec >= 99);
  CHECK(call(SYS_timer_delete, timer) == 0);
  const uint64_t now = program().across_pages(16);
  CHECK(call(SYS_clock_gettime, CLOCK_REALTIME, now) == 0);
  CHECK(program().get<timespec>(now).tv_sec >= time(nullptr) - 1);
  CHECK(call(SYS_clock_gettime, 12345, now) == -EINVAL);
  CHECK(call(SYS_clock_getres, CLOCK_REALTIME, 0) == 0);
}

TEST_CASE("message queues of POSIX") {
  const std::string name = "proxy_test_" + std::to_string(getpid());
  mq_attr attributes{};
  attributes.mq_maxmsg = 4;
  attributes.mq_msgsize = 100;
  const int64_t queue =
      call(SYS_mq_open, text(name), O_RDWR | O_CREAT | O_NONBLOCK, 0600, program().put(attributes));
  if (queue == -ENOSYS) return;  // a Linux without them
  REQUIRE(queue >= 0);
  const auto fd = static_cast<uint64_t>(queue);
  CHECK(call(SYS_mq_timedsend, fd, text("letter"), 6, 3, 0) == 0);
  CHECK(call(SYS_mq_timedsend, fd, text("letter"), 101, 3, 0) == -EMSGSIZE);
  const uint64_t buffer = program().across_pages(100);
  const uint64_t priority = program().put(uint32_t{0});
  CHECK(call(SYS_mq_timedreceive, fd, buffer, 10, priority, 0) == -EMSGSIZE);
  CHECK(call(SYS_mq_timedreceive, fd, buffer, 100, priority, 0) == 6);
  CHECK(program().text(buffer, 6) == "letter");
  CHECK(program().get<uint32_t>(priority) == 3);
  sigevent event{};
  event.sigev_notify = SIGEV_NONE;
  CHECK(call(SYS_mq_notify, fd, program().put(event)) == 0);
  CHECK(call(SYS_mq_notify, fd, 0) == 0);
  event.sigev_notify = SIGEV_THREAD;  // its value: a cookie, its signal: a netlink socket
  event.sigev_signo = 12345;
  event.sigev_value.sival_ptr = reinterpret_cast<void*>(0x1000);
  CHECK(call(SYS_mq_notify, fd, program().put(event)) == -EFAULT);
  event.sigev_value.sival_ptr = reinterpret_cast<void*>(program().across_pages(32));
  CHECK(call(SYS_mq_notify, fd, program().put(event)) == -EBADF);
  CHECK(call(SYS_mq_unlink, text(name)) == 0);
  CHECK(call(SYS_close, fd) == 0);
}

TEST_CASE("message queues of System V") {
  const int64_t queue = call(SYS_msgget, IPC_PRIVATE, 0600 | IPC_CREAT);
  REQUIRE(queue >= 0);
  const auto id = static_cast<uint64_t>(queue);
  struct {
    long type;
    char text[8];
  } message{5, "letter"};
  CHECK(call(SYS_msgsnd, id, program().put(message), 7, IPC_NOWAIT) == 0);
  const uint64_t received = program().across_pages(1 << 21);
  for (const uint64_t negative : {~uint64_t{0}, ~uint64_t{99}, uint64_t{1} << 63}) {
    CHECK(call(SYS_msgrcv, id, received, negative, 0, IPC_NOWAIT) == -EINVAL);
  }
  CHECK(call(SYS_msgrcv, id, received, 1 << 21, 0, IPC_NOWAIT) == 7);
  CHECK(program().get<decltype(message)>(received).type == 5);
  CHECK(program().text(received + 8, 6) == "letter");
  CHECK(program().get<uint8_t>(received + 15) == 0xee);
  const uint64_t status = program().across_pages(120);
  CHECK(call(SYS_msgctl, id, IPC_STAT, status) == 0);
  CHECK(program().get<msqid_ds>(status).msg_qnum == 0);
  CHECK(call(SYS_msgctl, id, IPC_RMID, 0) == 0);
}

TEST_CASE("vmsplice copies, and stops when the pipe is full") {
  int ends[2];
  REQUIRE(pipe(ends) == 0);
  const auto writer = static_cast<uint64_t>(ends[1]);
  const uint64_t data = program().map(40);
  program().write(data, "spliced", 7);
  const uint64_t vector = program().put(iovec{reinterpret_cast<void*>(data), 40 * kPageSize});
  CHECK(call(SYS_vmsplice, writer, vector, 1, 0) == 65536);
  CHECK(call(SYS_vmsplice, writer, vector, 1, SPLICE_F_NONBLOCK) == -EAGAIN);
  const uint64_t target = program().map(20) + 5;
  const uint64_t other = program().put(iovec{reinterpret_cast<void*>(target), 65536});
  CHECK(call(SYS_vmsplice, static_cast<uint64_t>(ends[0]), other, 1, 0) == 65536);
  CHECK(program().text(target, 7) == "spliced");
  CHECK(call(SYS_vmsplice, writer, vector, 1, 100) == -EINVAL);
  CHECK(call(SYS_vmsplice, 12345, vector, 1, 0) == -EBADF);
  CHECK(call(SYS_vmsplice, writer, 0x1000, 1, 0) == -EFAULT);
  close(ends[0]);
  close(ends[1]);
}

TEST_CASE("a futex in shared memory is Linux's") {
  const uint64_t word = program().take_frames(1);
  const volatile uint32_t no_signal = 0;
  const auto futex = [&](uint64_t address, uint64_t operation, uint64_t value, uint64_t timeout) {
    const Call call{SYS_futex, 0, {address, operation, value, timeout, 0, 0}, 0};
    return vmm::execute_call(program().memory, call, &no_signal);
  };
  uint32_t own = 0;
  *reinterpret_cast<uint32_t*>(word) = 5;
  CHECK(futex(word, 1 /* FUTEX_WAKE */, 1, 0) == 0);
  CHECK(futex(word, 0 /* FUTEX_WAIT */, 4, 0) == -EAGAIN);
  *reinterpret_cast<timespec*>(word + 64) = {0, 1000};
  CHECK(futex(word, 0, 5, word + 64) == -ETIMEDOUT);
  CHECK(futex(reinterpret_cast<uint64_t>(&own), 1, 1, 0) == -EFAULT);
  CHECK(futex(word, 100, 1, 0) == -ENOSYS);
}

TEST_CASE("signals as data") {
  sigset_t set;
  sigset_t before;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR1);
  sigprocmask(SIG_BLOCK, &set, &before);
  const uint64_t mask = program().put(uint64_t{1} << (SIGUSR1 - 1));
  siginfo_t info{};
  info.si_signo = SIGUSR1;
  info.si_code = SI_QUEUE;
  info.si_value.sival_int = 4711;
  const auto self = static_cast<uint64_t>(getpid());
  CHECK(call(SYS_rt_sigqueueinfo, self, SIGUSR1, program().put(info)) == 0);
  const uint64_t pending = program().put(uint64_t{0});
  CHECK(call(SYS_rt_sigpending, pending, 8) == 0);
  CHECK(program().get<uint64_t>(pending) == uint64_t{1} << (SIGUSR1 - 1));
  const uint64_t received = program().across_pages(128);
  const uint64_t now = program().put(timespec{0, 0});
  CHECK(call(SYS_rt_sigtimedwait, mask, received, now, 8) == SIGUSR1);
  CHECK(program().get<siginfo_t>(received).si_value.sival_int == 4711);
  CHECK(call(SYS_rt_sigtimedwait, mask, received, now, 8) == -EAGAIN);
  CHECK(call(SYS_rt_sigtimedwait, mask, received, now, 4) == -EINVAL);

  const auto fd =
      static_cast<uint64_t>(call(SYS_signalfd4, static_cast<uint64_t>(-1), mask, 8, SFD_NONBLOCK));
  const auto thread = static_cast<uint64_t>(gettid());
  CHECK(call(SYS_tgkill, self, thread, SIGUSR1) == 0);
  const uint64_t record = program().across_pages(128);
  CHECK(call(SYS_read, fd, record, 128) == 128);
  CHECK(program().get<signalfd_siginfo>(record).ssi_signo == SIGUSR1);
  CHECK(call(SYS_close, fd) == 0);
  sigprocmask(SIG_SETMASK, &before, nullptr);
}

TEST_CASE("a wait for all signals leaves the VMM its own") {
  dbos::vmm::set_own_signal_taker(
      [](const siginfo_t& information) { return information.si_value.sival_int == 1; });
  sigset_t own;
  sigset_t before;
  sigemptyset(&own);
  sigaddset(&own, dbos::vmm::kParentDeathSignal);
  sigprocmask(SIG_BLOCK, &own, &before);
  siginfo_t sent{};
  sent.si_signo = dbos::vmm::kParentDeathSignal;
  sent.si_code = SI_QUEUE;
  for (const int value : {1, 1, 2}) {
    sent.si_value.sival_int = value;
    const auto self = static_cast<uint64_t>(getpid());
    CHECK(call(SYS_rt_sigqueueinfo, self, dbos::vmm::kParentDeathSignal, program().put(sent)) == 0);
  }
  const uint64_t all = program().put(~uint64_t{0});
  const uint64_t taken = program().across_pages(128);
  const uint64_t a_second = program().put(timespec{1, 0});
  CHECK(call(SYS_rt_sigtimedwait, all, taken, a_second, 8) == dbos::vmm::kParentDeathSignal);
  CHECK(program().get<siginfo_t>(taken).si_value.sival_int == 2);
  dbos::vmm::set_own_signal_taker(nullptr);
  sigprocmask(SIG_SETMASK, &before, nullptr);
}

TEST_CASE("the VMM's own signal is not read from a descriptor") {
  const uint64_t all = program().put(~uint64_t{0});
  const sigval value = {};
  sigset_t own;
  sigset_t before;
  sigemptyset(&own);
  sigaddset(&own, dbos::vmm::kParentDeathSignal);
  sigaddset(&own, SIGRTMIN);
  sigprocmask(SIG_BLOCK, &own, &before);
  const auto fd =
      static_cast<uint64_t>(call(SYS_signalfd4, static_cast<uint64_t>(-1), all, 8, SFD_NONBLOCK));
  sigqueue(getpid(), dbos::vmm::kParentDeathSignal, value);
  sigqueue(getpid(), SIGRTMIN, value);
  const uint64_t records = program().map(1);
  CHECK(call(SYS_read, fd, records, kPageSize) == sizeof(signalfd_siginfo));
  CHECK(program().get<signalfd_siginfo>(records).ssi_signo == static_cast<uint32_t>(SIGRTMIN));
  CHECK(call(SYS_signalfd, fd, all, 4) == -EINVAL);
  CHECK(call(SYS_signalfd, fd, 8, 8) == -EFAULT);
  CHECK(call(SYS_close, fd) == 0);
  const timespec now = {};
  CHECK(sigtimedwait(&own, nullptr, &now) == dbos::vmm::kParentDeathSignal);
  sigprocmask(SIG_SETMASK, &before, nullptr);
}

TEST_CASE("a wait's mask does not block the VMM's own signal") {
  struct sigaction action = {};
  struct sigaction before = {};
  action.sa_handler = [](int) {};
  sigaction(dbos::vmm::kParentDeathSignal, &action, &before);
  const uint64_t all = program().put(~uint64_t{0});
  const uint64_t both = program().put(std::array<uint64_t, 2>{all, 8});
  const auto result_of_waiting = [waiter = pthread_self()](const auto& wait) {
    std::thread sender([waiter] {
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
      pthread_kill(waiter, dbos::vmm::kParentDeathSignal);
    });
    const uint64_t long_time = program().put(timespec{20, 0});
    const int64_t result = wait(long_time);
    sender.join();
    return result;
  };
  CHECK(result_of_waiting([&](uint64_t time) { return call(SYS_ppoll, 0, 0, time, all, 8); }) ==
        -EINTR);
  CHECK(result_of_waiting(
            [&](uint64_t time) { return call(SYS_pselect6, 0, 0, 0, 0, time, both); }) == -EINTR);
  sigaction(dbos::vmm::kParentDeathSignal, &before, nullptr);
}

TEST_CASE("mount data with addresses in it is refused") {
  const uint64_t nowhere = text("/nowhere/at/all");
  for (const char* const data : {"\1", "\6 and more"}) {
    CHECK(call(SYS_mount, nowhere, nowhere, nowhere, 0, text(data)) == -EINVAL);
  }
  CHECK(call(SYS_mount, nowhere, nowhere, nowhere, 0, nowhere) != -EINVAL);
}

TEST_CASE("processes by descriptor") {
  const pid_t child = fork();
  if (child == 0) {
    for (;;) pause();
  }
  const int64_t fd = call(SYS_pidfd_open, static_cast<uint64_t>(child), 0);
  REQUIRE(fd >= 0);
  CHECK(call(SYS_pidfd_send_signal, static_cast<uint64_t>(fd), SIGKILL, 0, 0) == 0);
  const uint64_t info = program().put(siginfo_t{});
  CHECK(call(SYS_waitid, P_PID, static_cast<uint64_t>(child), info, WEXITED, 0) == 0);
  CHECK(program().get<siginfo_t>(info).si_pid == child);
  CHECK(program().get<siginfo_t>(info).si_status == SIGKILL);
  CHECK(call(SYS_close, static_cast<uint64_t>(fd)) == 0);
}
