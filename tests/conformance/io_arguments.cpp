// Arguments at the edge of what Linux takes: addresses that wrap around, counts that are too large
// or negative, buffers that are too small.
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/klog.h>
#include <sys/msg.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <climits>
#include <thread>

#include "support.h"

namespace {

void* last_bytes(uintptr_t count) {
  return reinterpret_cast<void*>(~(nowhere_address & 0) - count + 1);
}
int lowest_free_descriptor() {
  const int file = dup(STDOUT_FILENO);
  REQUIRE(file != -1);
  close(file);
  return file;
}

}  // namespace

CASE(nothing_is_made_for_a_buffer_past_the_last_address) {
  const int before = lowest_free_descriptor();
  for (uintptr_t count : {1, 4, 7}) {
    CHECK_ERRNO(syscall(SYS_pipe, last_bytes(count)), EFAULT);
    CHECK_ERRNO(syscall(SYS_pipe2, last_bytes(count), 0), EFAULT);
    CHECK_ERRNO(syscall(SYS_socketpair, AF_UNIX, SOCK_STREAM, 0, last_bytes(count)), EFAULT);
    CHECK_ERRNO(syscall(SYS_timer_create, CLOCK_MONOTONIC, nullptr, last_bytes(count)), EFAULT);
  }
  CHECK_EQ(lowest_free_descriptor(), before);
}

CASE(events_are_kept_for_who_gives_a_good_buffer) {
  const int epoll = epoll_create1(EPOLL_CLOEXEC);
  Pipe pipe;
  pipe.post();
  epoll_event event = {EPOLLIN | EPOLLET, {}};
  REQUIRE(epoll_ctl(epoll, EPOLL_CTL_ADD, pipe.in(), &event) == 0);
  CHECK_ERRNO(syscall(SYS_epoll_wait, epoll, last_bytes(1), 1, 0), EFAULT);
  CHECK_EQ(epoll_wait(epoll, &event, 1, 0), 1);
  close(epoll);
}

CASE(number_of_events_is_limited) {
  const int epoll = epoll_create1(EPOLL_CLOEXEC);
  constexpr int kMost = INT_MAX / 12;
  static epoll_event event;
  CHECK_EQ(syscall(SYS_epoll_wait, epoll, &event, kMost, 0), 0);
  timespec soon = {0, 0};
  for (int count : {0, -1, INT_MIN, kMost + 1, INT_MAX}) {
    CHECK_ERRNO(syscall(SYS_epoll_wait, epoll, &event, count, 0), EINVAL);
    CHECK_ERRNO(syscall(SYS_epoll_pwait, epoll, &event, count, 0, nullptr, 8), EINVAL);
    CHECK_ERRNO(syscall(SYS_epoll_pwait2, epoll, &event, count, &soon, nullptr, 8), EINVAL);
  }
  close(epoll);
}

CASE(message_of_a_queue_is_left_there_by_a_negative_size) {
  const int queue = msgget(IPC_PRIVATE, 0600 | IPC_CREAT);
  REQUIRE(queue != -1);
  struct {
    long type;
    char text[16];
  } message = {1, "kept"};
  REQUIRE(msgsnd(queue, &message, 5, IPC_NOWAIT) == 0);
  for (long size : {-1L, -8L, -9L, -100L, LONG_MIN}) {
    CHECK_ERRNO(syscall(SYS_msgrcv, queue, &message, size, 0, IPC_NOWAIT), EINVAL);
    CHECK_ERRNO(syscall(SYS_msgsnd, queue, &message, size, IPC_NOWAIT), EINVAL);
  }
  CHECK_EQ(msgrcv(queue, &message, sizeof message.text, 0, IPC_NOWAIT), 5);
  CHECK_EQ(msgctl(queue, IPC_RMID, nullptr), 0);
}

CASE(mount_is_told_of_a_handle_that_does_not_fit) {
  struct {
    file_handle head;
    char data[MAX_HANDLE_SZ];
  } handle = {};
  int mount = -1, mount_of_small = -1;
  handle.head.handle_bytes = MAX_HANDLE_SZ;
  if (name_to_handle_at(AT_FDCWD, ".", &handle.head, &mount, 0) == -1 && errno == EOPNOTSUPP)
    return;
  handle.head.handle_bytes = 0;
  CHECK_ERRNO(name_to_handle_at(AT_FDCWD, ".", &handle.head, &mount_of_small, 0), EOVERFLOW);
  CHECK(handle.head.handle_bytes > 0);
  CHECK(mount_of_small == mount);
}

CASE(whole_log_of_the_kernel_is_read) {
  constexpr int kReadAll = 3;
  static char all[256 * kKiB];
  const int size = klogctl(kReadAll, all, sizeof all);
  const int records = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  if (size == -1 || records == -1) return;  // who may not read it
  size_t expected = 0;
  static char record[16 * kKiB];
  for (ssize_t n; (n = read(records, record, sizeof record)) > 0;) {
    const std::string text(record, static_cast<size_t>(n));
    expected += text.find('\n') - text.find(';');
  }
  close(records);
  CHECK(static_cast<size_t>(size) > std::min(expected, sizeof all) / 2);
}

CASE(many_messages_are_received_in_one_call) {
  constexpr unsigned kMessages = 1500;
  int end[2];
  REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, end) == 0);
  const timeval wait = {30, 0};
  REQUIRE(setsockopt(end[0], SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof wait) == 0);
  REQUIRE(setsockopt(end[1], SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait) == 0);
  std::thread sender([&] {
    for (unsigned i = 0; i < kMessages; ++i)
      REQUIRE(send(end[0], &i, sizeof i, 0) == static_cast<ssize_t>(sizeof i));
  });
  std::vector<unsigned> numbers(kMessages);
  std::vector<iovec> vectors(kMessages);
  std::vector<mmsghdr> headers(kMessages);
  for (unsigned i = 0; i < kMessages; ++i) {
    vectors[i] = {&numbers[i], sizeof numbers[i]};
    headers[i].msg_hdr.msg_iov = &vectors[i];
    headers[i].msg_hdr.msg_iovlen = 1;
  }
  CHECK_EQ(recvmmsg(end[1], headers.data(), kMessages, 0, nullptr), kMessages);
  sender.join();
  for (unsigned i = 0; i < kMessages; ++i) {
    CHECK_EQ(headers[i].msg_len, sizeof numbers[i]);
    CHECK_EQ(numbers[i], i);
  }
  close(end[0]);
  close(end[1]);
}

CASE(message_after_the_time_is_over_is_the_last) {
  constexpr unsigned kFirst = 63, kMessages = 200;
  int end[2];
  REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, end) == 0);
  auto send_one = [&] { REQUIRE(send(end[0], "x", 1, 0) == 1); };
  for (unsigned i = 0; i < kFirst; ++i) send_one();
  Pipe done;
  std::thread sender([&] {
    sleep_ms(5000);
    send_one();
    pollfd back = {done.in(), POLLIN, 0};  // ends what waits for one more
    if (poll(&back, 1, 10000) == 0) shutdown(end[0], SHUT_RDWR);
  });
  std::vector<mmsghdr> headers(kMessages);
  timespec time = {2, 0};
  CHECK_EQ(recvmmsg(end[1], headers.data(), kMessages, 0, &time), kFirst + 1);
  CHECK_EQ(time.tv_sec, 0);
  CHECK_EQ(time.tv_nsec, 0);
  done.post();
  sender.join();
  close(end[0]);
  close(end[1]);
}

CHECK_MAIN
