// Sockets: non-blocking and half-closed ends, messages with descriptors and credentials, datagrams,
// names, TCP over the loopback.
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>

#include <thread>

#include "support.h"

namespace {

sockaddr* generic(sockaddr_in& address) {
  return reinterpret_cast<sockaddr*>(&address);
}
sockaddr* generic(sockaddr_un& address) {
  return reinterpret_cast<sockaddr*>(&address);
}
sockaddr_in loopback(in_port_t port = 0) {
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = port;
  return address;
}
int listener(sockaddr_in& address, int flags = 0) {
  int socket = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);
  REQUIRE(socket != -1);
  address = loopback();
  socklen_t length = sizeof address;
  REQUIRE(bind(socket, generic(address), length) == 0 && listen(socket, 16) == 0);
  REQUIRE(getsockname(socket, generic(address), &length) == 0);
  return socket;
}
iovec vector(void* base, size_t length) {
  return {base, length};
}

}  // namespace

CASE(socket_pairs_of_each_type) {
  for (int type : {SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET}) {
    SocketPair pair(type);
    CHECK_EQ(send(pair.end[0], "first", 5, 0), 5);
    CHECK_EQ(send(pair.end[0], "second", 6, 0), 6);
    char text[20] = "";
    ssize_t n = recv(pair.end[1], text, sizeof text, 0);
    CHECK_EQ(n, type == SOCK_STREAM ? 11 : 5);
    int got = 0;
    socklen_t length = sizeof got;
    CHECK_EQ(getsockopt(pair.end[0], SOL_SOCKET, SO_TYPE, &got, &length), 0);
    CHECK_EQ(got, type);
  }
  int end[2];
  CHECK_ERRNO(socketpair(AF_INET, SOCK_STREAM, 0, end), EOPNOTSUPP);
  CHECK_ERRNO(socketpair(AF_UNIX, 9, 0, end), ESOCKTNOSUPPORT);
}

CASE(receive_flags) {
  SocketPair pair;
  char text[8] = "";
  CHECK_ERRNO(recv(pair.end[0], text, 1, MSG_DONTWAIT), EAGAIN);
  REQUIRE(send(pair.end[1], "abcdef", 6, 0) == 6);
  CHECK_EQ(recv(pair.end[0], text, 3, MSG_PEEK), 3);
  CHECK_EQ(recv(pair.end[0], text, 2, 0), 2);
  CHECK(memcmp(text, "ab", 2) == 0);
  std::thread late([&] {
    sleep_ms(2);
    CHECK_EQ(send(pair.end[1], "gh", 2, 0), 2);
  });
  CHECK_EQ(recv(pair.end[0], text, 6, MSG_WAITALL), 6);
  CHECK(memcmp(text, "cdefgh", 6) == 0);
  late.join();
  SocketPair datagrams(SOCK_DGRAM);
  REQUIRE(send(datagrams.end[1], "abcdef", 6, 0) == 6);
  CHECK_EQ(recv(datagrams.end[0], text, 2, MSG_TRUNC), 6);
}

CASE(shutdown_halves) {
  SocketPair pair;
  char byte = 0;
  CHECK_EQ(shutdown(pair.end[0], SHUT_WR), 0);
  CHECK_EQ(read(pair.end[1], &byte, 1), 0);
  CHECK_ERRNO(send(pair.end[0], "x", 1, MSG_NOSIGNAL), EPIPE);
  CHECK_EQ(send(pair.end[1], "y", 1, 0), 1);
  CHECK_EQ(recv(pair.end[0], &byte, 1, 0), 1);
  CHECK_ERRNO(shutdown(pair.end[0], 9), EINVAL);
  CHECK_ERRNO(shutdown(STDIN_FILENO, SHUT_RD), ENOTSOCK);
}

CASE(descriptors_travel_in_messages) {
  SocketPair pair;
  Pipe pipe;
  pid_t child = start_child([&] {
    char data[4] = "fds";
    iovec vec = vector(data, 3);
    alignas(cmsghdr) char control[CMSG_SPACE(2 * sizeof(int))] = {};
    msghdr message = {};
    message.msg_iov = &vec;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(2 * sizeof(int));
    int file = memfd_create("passed", MFD_CLOEXEC);
    REQUIRE(write(file, "in the file", 11) == 11);
    int descriptors[2] = {file, pipe.out()};
    memcpy(CMSG_DATA(header), descriptors, sizeof descriptors);
    CHECK_EQ(sendmsg(pair.end[1], &message, 0), 3);
  });
  char data[10] = "";
  iovec vec = vector(data, sizeof data);
  alignas(cmsghdr) char control[200] = {};
  msghdr message = {};
  message.msg_iov = &vec;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  CHECK_EQ(recvmsg(pair.end[0], &message, MSG_CMSG_CLOEXEC), 3);
  CHECK_EQ(message.msg_flags & (MSG_TRUNC | MSG_CTRUNC), 0);
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  REQUIRE(header != nullptr);
  CHECK_EQ(header->cmsg_type, SCM_RIGHTS);
  CHECK_EQ(header->cmsg_len, CMSG_LEN(2 * sizeof(int)));
  int got[2] = {-1, -1};
  memcpy(got, CMSG_DATA(header), sizeof got);
  char text[20] = "";
  CHECK_EQ(pread(got[0], text, sizeof text, 0), 11);
  CHECK_EQ(fcntl(got[0], F_GETFD), FD_CLOEXEC);
  CHECK_EQ(write(got[1], "q", 1), 1);
  CHECK_EQ(pipe.take(), 'q');
  close(got[0]);
  close(got[1]);
  CHECK(exited(status_of(child)));
}

CASE(credentials_travel_in_messages) {
  SocketPair pair;
  int on = 1;
  REQUIRE(setsockopt(pair.end[0], SOL_SOCKET, SO_PASSCRED, &on, sizeof on) == 0);
  pid_t child = start_child([&] { CHECK_EQ(send(pair.end[1], "x", 1, 0), 1); });
  char byte = 0;
  iovec vec = vector(&byte, 1);
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(ucred))] = {};
  msghdr message = {};
  message.msg_iov = &vec;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  CHECK_EQ(recvmsg(pair.end[0], &message, 0), 1);
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  REQUIRE(header != nullptr && header->cmsg_type == SCM_CREDENTIALS);
  ucred who = {};
  memcpy(&who, CMSG_DATA(header), sizeof who);
  CHECK_EQ(who.pid, child);
  CHECK_EQ(who.uid, getuid());
  CHECK(exited(status_of(child)));
  socklen_t length = sizeof who;
  CHECK_EQ(getsockopt(pair.end[0], SOL_SOCKET, SO_PEERCRED, &who, &length), 0);
  CHECK_EQ(who.pid, getpid());
}

CASE(too_small_control_buffer_is_told) {
  SocketPair pair;
  char byte = 'z';
  iovec vec = vector(&byte, 1);
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message = {};
  message.msg_iov = &vec;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  int zero = STDIN_FILENO;
  memcpy(CMSG_DATA(header), &zero, sizeof zero);
  CHECK_EQ(sendmsg(pair.end[0], &message, 0), 1);
  message.msg_control = nullptr;
  message.msg_controllen = 0;
  CHECK_EQ(recvmsg(pair.end[1], &message, 0), 1);
  CHECK_EQ(message.msg_flags & MSG_CTRUNC, MSG_CTRUNC);
}

CASE(messages_with_bad_descriptors_are_refused) {
  SocketPair pair;
  char byte = 'z';
  iovec vec = vector(&byte, 1);
  alignas(cmsghdr) char control[CMSG_SPACE(254 * sizeof(int))] = {};
  msghdr message = {};
  message.msg_iov = &vec;
  message.msg_iovlen = 1;
  message.msg_control = control;
  cmsghdr* header = reinterpret_cast<cmsghdr*>(control);
  auto send_with = [&](size_t count, size_t length) {
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(length * sizeof(int));
    message.msg_controllen = CMSG_SPACE(count * sizeof(int));
    return sendmsg(pair.end[0], &message, 0);
  };
  const int bad[] = {STDIN_FILENO, -1};
  memcpy(CMSG_DATA(header), bad, sizeof bad);
  CHECK_EQ(send_with(1, 1), 1);
  CHECK_ERRNO(send_with(2, 2), EBADF);
  const int closed[] = {STDIN_FILENO, 700};
  memcpy(CMSG_DATA(header), closed, sizeof closed);
  CHECK_ERRNO(send_with(2, 2), EBADF);
  CHECK_ERRNO(send_with(2, 3), EINVAL);  // longer than what there is
  memset(CMSG_DATA(header), 0, 254 * sizeof(int));
  CHECK_EQ(send_with(253, 253), 1);
  CHECK_ERRNO(send_with(254, 254), EINVAL);
  message.msg_controllen = size_t{1} << 31;
  CHECK_ERRNO(sendmsg(pair.end[0], &message, 0), ENOBUFS);
}

CASE(many_messages_with_much_beside_them) {
  SocketPair pair;
  constexpr int count = 30, credentials = 32;
  struct {
    size_t length;
    int level, type;
    ucred who;
    int padding;
  } control[credentials];
  for (auto& one : control) {
    one = {CMSG_LEN(sizeof(ucred)), SOL_SOCKET, SCM_CREDENTIALS, {getpid(), getuid(), getgid()}, 0};
  }
  char data[count];
  iovec vectors[count];
  mmsghdr messages[count] = {};
  for (int i = 0; i < count; ++i) {
    vectors[i] = vector(&data[i], 1);
    messages[i].msg_hdr.msg_iov = &vectors[i];
    messages[i].msg_hdr.msg_iovlen = 1;
    messages[i].msg_hdr.msg_control = control;
    messages[i].msg_hdr.msg_controllen = sizeof control;
  }
  CHECK_EQ(sendmmsg(pair.end[0], messages, count, 0), count);
  CHECK_EQ(read(pair.end[1], data, count), count);
}

CASE(many_messages_in_one_call) {
  SocketPair pair(SOCK_DGRAM);
  const int count = 8;
  char data[count][16];
  iovec vectors[count];
  mmsghdr messages[count] = {};
  for (int i = 0; i < count; ++i) {
    memset(data[i], 'a' + i, 16);
    vectors[i] = vector(data[i], static_cast<size_t>(i + 1));
    messages[i].msg_hdr.msg_iov = &vectors[i];
    messages[i].msg_hdr.msg_iovlen = 1;
  }
  CHECK_EQ(sendmmsg(pair.end[0], messages, count, 0), count);
  for (int i = 0; i < count; ++i) {
    memset(data[i], 0, 16);
    vectors[i].iov_len = 16;
  }
  CHECK_EQ(recvmmsg(pair.end[1], messages, count, MSG_DONTWAIT, nullptr), count);
  for (int i = 0; i < count; ++i) {
    CHECK_EQ(messages[i].msg_len, i + 1);
    CHECK_EQ(data[i][i], 'a' + i);
  }
  CHECK_ERRNO(recvmmsg(pair.end[1], messages, count, MSG_DONTWAIT, nullptr), EAGAIN);
}

CASE(unix_sockets_with_names) {
  int server = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0),
      client = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  strcpy(address.sun_path, "a.socket");
  unlink("a.socket");
  CHECK_ERRNO(connect(client, generic(address), sizeof address), ENOENT);
  CHECK_EQ(bind(server, generic(address), sizeof address), 0);
  CHECK_ERRNO(connect(client, generic(address), sizeof address), ECONNREFUSED);
  CHECK_EQ(listen(server, 4), 0);
  CHECK_EQ(connect(client, generic(address), sizeof address), 0);
  int accepted = accept4(server, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
  CHECK(accepted >= 0);
  CHECK_EQ(fcntl(accepted, F_GETFL) & O_NONBLOCK, O_NONBLOCK);
  sockaddr_un peer = {};
  socklen_t length = sizeof peer;
  CHECK_EQ(getpeername(client, generic(peer), &length), 0);
  CHECK(strcmp(peer.sun_path, "a.socket") == 0);
  struct stat info = {};
  CHECK_EQ(stat("a.socket", &info), 0);
  CHECK(S_ISSOCK(info.st_mode));
  CHECK_ERRNO(open("a.socket", O_RDONLY), ENXIO);
  strcpy(address.sun_path, "another");
  CHECK_ERRNO(bind(server, generic(address), sizeof address), EINVAL);  // it has a name
  close(server);
  close(client);
  close(accepted);
  unlink("a.socket");
}

CASE(datagrams_with_addresses) {
  int first = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0),
      second = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  sockaddr_in one = loopback(), two = loopback(), from = {};
  socklen_t length = sizeof one;
  REQUIRE(bind(first, generic(one), sizeof one) == 0 &&
          bind(second, generic(two), sizeof two) == 0);
  REQUIRE(getsockname(first, generic(one), &length) == 0 &&
          getsockname(second, generic(two), &length) == 0);
  CHECK_EQ(sendto(first, "hello", 5, 0, generic(two), sizeof two), 5);
  char text[10] = "";
  length = sizeof from;
  CHECK_EQ(recvfrom(second, text, sizeof text, 0, generic(from), &length), 5);
  CHECK_EQ(from.sin_port, one.sin_port);
  CHECK_EQ(length, sizeof from);
  CHECK_EQ(sendto(first, "", 0, 0, generic(two), sizeof two), 0);
  CHECK_EQ(recv(second, text, sizeof text, 0), 0);
  CHECK_ERRNO(send(first, "x", 1, 0), EDESTADDRREQ);
  std::string big(70000, 'b');
  CHECK_ERRNO(sendto(first, big.data(), big.size(), 0, generic(two), sizeof two), EMSGSIZE);
  close(first);
  close(second);
}

CASE(tcp_carries_a_megabyte_both_ways) {
  sockaddr_in address;
  int server = listener(address);
  std::thread echo([&] {
    int peer = accept4(server, nullptr, nullptr, SOCK_CLOEXEC);
    REQUIRE(peer >= 0);
    std::vector<char> block(10000);
    for (ssize_t n; (n = recv(peer, block.data(), block.size(), 0)) > 0;) {
      for (ssize_t done = 0; done < n;) {
        ssize_t m = send(peer, block.data() + done, static_cast<size_t>(n - done), MSG_NOSIGNAL);
        REQUIRE(m > 0);
        done += m;
      }
    }
    close(peer);
  });
  int client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  REQUIRE(connect(client, generic(address), sizeof address) == 0);
  int on = 1;
  CHECK_EQ(setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on), 0);
  std::thread sender([&] {
    std::vector<char> block(7777);
    for (size_t at = 0; at < kMiB;) {
      size_t size = std::min(block.size(), kMiB - at);
      for (size_t i = 0; i < size; ++i) block[i] = static_cast<char>((at + i) % 253);
      for (size_t done = 0; done < size;) {
        ssize_t n = send(client, block.data() + done, size - done, 0);
        REQUIRE(n > 0);
        done += static_cast<size_t>(n);
      }
      at += size;
    }
    shutdown(client, SHUT_WR);
  });
  std::vector<char> block(9999);
  size_t at = 0;
  bool right = true;
  for (ssize_t n; (n = recv(client, block.data(), block.size(), 0)) > 0;) {
    for (ssize_t i = 0; i < n; ++i)
      right = right && block[static_cast<size_t>(i)] ==
                           static_cast<char>((at + static_cast<size_t>(i)) % 253);
    at += static_cast<size_t>(n);
  }
  CHECK(right);
  CHECK_EQ(at, kMiB);
  sender.join();
  echo.join();
  close(client);
  close(server);
}

CASE(nonblocking_connect_and_refusal) {
  sockaddr_in address;
  int server = listener(address, SOCK_NONBLOCK);
  CHECK_ERRNO(accept(server, nullptr, nullptr), EAGAIN);
  int client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  int result = connect(client, generic(address), sizeof address);
  CHECK(result == 0 || errno == EINPROGRESS);
  pollfd one = {client, POLLOUT, 0};
  CHECK_EQ(poll(&one, 1, -1), 1);
  int error = -1;
  socklen_t length = sizeof error;
  CHECK_EQ(getsockopt(client, SOL_SOCKET, SO_ERROR, &error, &length), 0);
  CHECK_EQ(error, 0);
  connect(client, generic(address), sizeof address);  // tells of the success once
  CHECK_ERRNO(connect(client, generic(address), sizeof address), EISCONN);
  close(client);
  close(server);
  client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  CHECK_ERRNO(connect(client, generic(address), sizeof address), ECONNREFUSED);
  CHECK_ERRNO(bind(STDIN_FILENO, generic(address), sizeof address), ENOTSOCK);
  CHECK_ERRNO(socket(AF_INET, 99, 0), EINVAL);
  CHECK_ERRNO(socket(9999, SOCK_STREAM, 0), EAFNOSUPPORT);
  CHECK_ERRNO(connect(client, generic(address), 3), EINVAL);
  CHECK_ERRNO(getsockopt(client, SOL_SOCKET, 9999, &error, &length), ENOPROTOOPT);
  close(client);
}

CASE(closing_the_other_end_is_seen) {
  SocketPair pair;
  char byte = 0;
  shutdown(pair.end[1], SHUT_RDWR);
  CHECK_EQ(read(pair.end[0], &byte, 1), 0);
  sockaddr_in address;
  int server = listener(address), client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  REQUIRE(connect(client, generic(address), sizeof address) == 0);
  int peer = accept4(server, nullptr, nullptr, SOCK_CLOEXEC);
  linger at_once = {1, 0};
  REQUIRE(setsockopt(peer, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once) == 0);
  close(peer);  // a reset
  pollfd one = {client, POLLIN, 0};
  CHECK_EQ(poll(&one, 1, -1), 1);
  CHECK_ERRNO(read(client, &byte, 1), ECONNRESET);
  close(client);
  close(server);
}

CASE(blocked_thread_is_woken_by_shutdown) {
  SocketPair pair;
  std::thread reader([&] {
    char byte = 0;
    CHECK_EQ(read(pair.end[0], &byte, 1), 0);
  });
  sleep_ms(1);
  shutdown(pair.end[0], SHUT_RD);
  reader.join();
}

CHECK_MAIN
