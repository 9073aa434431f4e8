// Sockets and messages, by real system calls.
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <catch2/catch.hpp>

#include "hypercall/syscall_kinds.h"
#include "tests/unit/proxy/fake_program.h"
#include "tests/unit/skipped.h"

using namespace dbos;
using namespace dbos::test;

namespace {

void* pointer(uint64_t address) {
  return reinterpret_cast<void*>(address);
}

struct Pair {
  explicit Pair(int type) { REQUIRE(socketpair(AF_UNIX, type | SOCK_NONBLOCK, 0, ends) == 0); }
  ~Pair() {
    close(ends[0]);
    close(ends[1]);
  }
  uint64_t first() const { return static_cast<uint64_t>(ends[0]); }
  uint64_t second() const { return static_cast<uint64_t>(ends[1]); }
  int ends[2];
};

std::string letters(size_t size) {
  std::string text(size, 'a');
  for (size_t i = 0; i < size; i++) text[i] = static_cast<char>('a' + i % 23);
  return text;
}

uint64_t buffer_of(const std::string& text) {
  const uint64_t address = program().map(text.size() / kPageSize + 2) + 50;
  program().write(address, text.data(), text.size());
  return address;
}

}  // namespace

TEST_CASE("a TCP connection on the loopback device") {
  const auto listener = static_cast<uint64_t>(call(SYS_socket, AF_INET, SOCK_STREAM, 0));
  const uint64_t on = program().put(int32_t{1});
  CHECK(call(SYS_setsockopt, listener, SOL_SOCKET, SO_REUSEADDR, on, 4) == 0);
  sockaddr_in name{};
  name.sin_family = AF_INET;
  name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  CHECK(call(SYS_bind, listener, program().put(name), sizeof name) == 0);
  CHECK(call(SYS_listen, listener, 5) == 0);

  const uint64_t bound = program().put(sockaddr_in{});
  const uint64_t length = program().put(uint32_t{100});
  REQUIRE(call(SYS_getsockname, listener, bound, length) == 0);
  CHECK(program().get<uint32_t>(length) == sizeof name);
  name = program().get<sockaddr_in>(bound);
  CHECK(name.sin_port != 0);

  const auto client = static_cast<uint64_t>(call(SYS_socket, AF_INET, SOCK_STREAM, 0));
  CHECK(call(SYS_connect, client, program().put(name), sizeof name) == 0);
  const uint64_t peer = program().put(sockaddr_in{});
  const uint64_t peer_length = program().put(uint32_t{8});
  const int64_t server = call(SYS_accept4, listener, peer, peer_length, SOCK_CLOEXEC);
  REQUIRE(server >= 0);
  CHECK(program().get<uint32_t>(peer_length) == sizeof(sockaddr_in));  // more than there was room
  CHECK(program().get<sockaddr_in>(peer).sin_addr.s_addr == htonl(INADDR_LOOPBACK));

  const uint64_t value = program().put(int32_t{0});
  const uint64_t value_length = program().put(uint32_t{4});
  CHECK(call(SYS_setsockopt, client, IPPROTO_TCP, TCP_NODELAY, on, 4) == 0);
  CHECK(call(SYS_getsockopt, client, IPPROTO_TCP, TCP_NODELAY, value, value_length) == 0);
  CHECK(program().get<int32_t>(value) != 0);
  CHECK(call(SYS_sendto, client, buffer_of("hello"), 5, MSG_NOSIGNAL, 0, 0) == 5);
  const uint64_t buffer = program().across_pages(100);
  CHECK(call(SYS_recvfrom, static_cast<uint64_t>(server), buffer, 100, 0, 0, 0) == 5);
  CHECK(program().text(buffer, 5) == "hello");
  CHECK(call(SYS_setsockopt, client, SOL_SOCKET, SO_ZEROCOPY, on, 4) == -ENOPROTOOPT);
  CHECK(call(SYS_setsockopt, client, SOL_SOCKET, SO_REUSEADDR, 0x1000, 4) == -EFAULT);
  CHECK(call(SYS_setsockopt, client, SOL_SOCKET, SO_REUSEADDR, on, ~uint64_t{0}) == -EINVAL);
  CHECK(call(SYS_getsockname, listener, bound, 0x1000) == -EFAULT);
  CHECK(call(SYS_getsockname, listener, 0x1000, length) == -EFAULT);
  CHECK(call(SYS_shutdown, client, SHUT_WR) == 0);
  CHECK(call(SYS_recvfrom, static_cast<uint64_t>(server), buffer, 100, 0, 0, 0) == 0);
  close(static_cast<int>(server));
  close(static_cast<int>(client));
  close(static_cast<int>(listener));
}

TEST_CASE("a datagram stays whole, wherever it lies") {
  const size_t size = GENERATE(1, 600, 4096, 30000, 100000);
  Pair pair(SOCK_DGRAM);
  const std::string text = letters(size);
  const auto length = static_cast<int64_t>(size);
  CHECK(call(SYS_sendto, pair.first(), buffer_of(text), size, 0, 0, 0) == length);
  const uint64_t buffer = program().map(size / kPageSize + 2) + 99;
  const uint64_t name = program().put(sockaddr_un{});
  const uint64_t name_length = program().put(uint32_t{110});
  CHECK(call(SYS_recvfrom, pair.second(), buffer, size + 10, 0, name, name_length) == length);
  CHECK(program().text(buffer, size) == text);
  CHECK(program().get<uint32_t>(name_length) == 0);  // an unnamed socket
  CHECK(call(SYS_recvfrom, pair.second(), buffer, 1, 0, 0, 0) == -EAGAIN);
}

TEST_CASE("a datagram that is cut tells its length") {
  Pair pair(SOCK_DGRAM);
  CHECK(call(SYS_write, pair.first(), buffer_of(letters(3000)), 3000) == 3000);
  const uint64_t buffer = program().map(2) + kPageSize - 500;
  CHECK(call(SYS_recvfrom, pair.second(), buffer, 1000, MSG_TRUNC, 0, 0) == 3000);
  CHECK(program().text(buffer, 1000) == letters(1000));
  CHECK(program().get<uint8_t>(buffer + 1000) == 0xee);
}

TEST_CASE("names of datagrams") {
  const int server = socket(AF_INET, SOCK_DGRAM, 0);
  sockaddr_in name{};
  name.sin_family = AF_INET;
  name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  REQUIRE(bind(server, reinterpret_cast<sockaddr*>(&name), sizeof name) == 0);
  socklen_t host_length = sizeof name;
  getsockname(server, reinterpret_cast<sockaddr*>(&name), &host_length);
  const int client = socket(AF_INET, SOCK_DGRAM, 0);
  const size_t size = GENERATE(10, 20000);
  const std::string text = letters(size);
  CHECK(call(SYS_sendto, static_cast<uint64_t>(client), buffer_of(text), size, 0,
             program().put(name), sizeof name) == static_cast<int64_t>(size));
  CHECK(call(SYS_sendto, static_cast<uint64_t>(client), buffer_of(text), size, 0,
             program().put(name), 200) == -EINVAL);
  const uint64_t buffer = program().map(10);
  const uint64_t from = program().put(sockaddr_in{});
  const uint64_t length = program().put(uint32_t{sizeof(sockaddr_in)});
  CHECK(call(SYS_recvfrom, static_cast<uint64_t>(server), buffer, 30000, 0, from, length) ==
        static_cast<int64_t>(size));
  CHECK(program().get<uint32_t>(length) == sizeof(sockaddr_in));
  CHECK(program().get<sockaddr_in>(from).sin_addr.s_addr == htonl(INADDR_LOOPBACK));
  CHECK(program().text(buffer, size) == text);
  close(server);
  close(client);
}

TEST_CASE("a message with descriptors") {
  Pair pair(SOCK_STREAM);
  int ends[2];
  REQUIRE(pipe(ends) == 0);
  struct {
    size_t length;  // of a cmsghdr
    int level;
    int type;
    int descriptors[2];
  } control{CMSG_LEN(8), SOL_SOCKET, SCM_RIGHTS, {ends[0], ends[1]}};
  struct {
    iovec vectors[2];
  } array;
  array.vectors[0] = {pointer(buffer_of("one ")), 4};
  array.vectors[1] = {pointer(buffer_of(letters(9000))), 9000};
  msghdr message{};
  message.msg_iov = static_cast<iovec*>(pointer(program().put(array)));
  message.msg_iovlen = 2;
  message.msg_control = pointer(program().put(control));
  message.msg_controllen = sizeof control;
  CHECK(call(SYS_sendmsg, pair.first(), program().put(message), 0) == 9004);

  array.vectors[0].iov_base = pointer(program().across_pages(5000));
  array.vectors[0].iov_len = 5000;
  array.vectors[1].iov_base = pointer(program().across_pages(5000));
  array.vectors[1].iov_len = 5000;
  const uint64_t received = program().map(1) + 8;
  msghdr answer{};
  answer.msg_iov = static_cast<iovec*>(pointer(program().put(array)));
  answer.msg_iovlen = 2;
  answer.msg_control = pointer(received);
  answer.msg_controllen = 100;
  const uint64_t header = program().put(answer);
  CHECK(call(SYS_recvmsg, pair.second(), header, MSG_CMSG_CLOEXEC) == 9004);
  CHECK(program().text(reinterpret_cast<uint64_t>(array.vectors[0].iov_base), 4) == "one ");
  const auto after = program().get<msghdr>(header);
  CHECK(after.msg_iov == answer.msg_iov);
  CHECK(after.msg_control == answer.msg_control);
  CHECK(after.msg_controllen == CMSG_SPACE(8));
  CHECK(after.msg_flags == MSG_CMSG_CLOEXEC);
  const auto rights = program().get<decltype(control)>(received);
  CHECK(rights.type == SCM_RIGHTS);
  CHECK(write(rights.descriptors[1], "x", 1) == 1);
  char letter = 0;
  CHECK(read(ends[0], &letter, 1) == 1);
  CHECK(letter == 'x');
  for (const int fd : {ends[0], ends[1], rights.descriptors[0], rights.descriptors[1]}) close(fd);
}

TEST_CASE("messages that Linux refuses") {
  Pair pair(SOCK_STREAM);
  CHECK(call(SYS_sendmsg, pair.first(), 0x1000, 0) == -EFAULT);
  CHECK(call(SYS_sendmsg, 12345, 0x1000, 0) == -EBADF);
  msghdr message{};
  message.msg_iov = static_cast<iovec*>(pointer(program().put(iovec{pointer(0x1000), 10})));
  message.msg_iovlen = 1;
  CHECK(call(SYS_sendmsg, pair.first(), program().put(message), 0) == -EFAULT);
  message.msg_iovlen = 1025;
  CHECK(call(SYS_sendmsg, pair.first(), program().put(message), 0) == -EMSGSIZE);
  message.msg_iovlen = 0;
  message.msg_control = pointer(0x1000);
  message.msg_controllen = 100;
  CHECK(call(SYS_sendmsg, pair.first(), program().put(message), 0) == -EFAULT);
  message.msg_controllen = uint64_t{1} << 40;
  CHECK(call(SYS_sendmsg, pair.first(), program().put(message), 0) == -ENOBUFS);
}

TEST_CASE("many messages at once") {
  constexpr uint32_t kMessages = 100;
  Pair pair(SOCK_DGRAM);
  const int large = 1 << 20;
  setsockopt(pair.ends[0], SOL_SOCKET, SO_SNDBUF, &large, sizeof large);
  const auto headers = [](const std::string& fill, size_t size) {
    std::vector<mmsghdr> array(kMessages);
    for (uint32_t i = 0; i < kMessages; i++) {
      const uint64_t data = program().across_pages(size);
      program().write(data, fill.data(), fill.size());
      const iovec vector{pointer(data), size};
      array[i].msg_hdr.msg_iov = static_cast<iovec*>(pointer(program().put(vector)));
      array[i].msg_hdr.msg_iovlen = 1;
    }
    const uint64_t address = program().map(array.size() * sizeof(mmsghdr) / kPageSize + 2) + 64;
    program().write(address, array.data(), array.size() * sizeof(mmsghdr));
    return address;
  };
  // A datagram socket takes few messages (net.unix.max_dgram_qlen), so a stream of packets.
  Pair packets(SOCK_SEQPACKET);
  setsockopt(packets.ends[0], SOL_SOCKET, SO_SNDBUF, &large, sizeof large);
  const uint64_t sent = headers("message", 7);
  const int64_t count = call(SYS_sendmmsg, packets.first(), sent, kMessages, 0);
  REQUIRE(count > 0);
  CHECK(program().get<mmsghdr>(sent).msg_len == 7);
  const uint64_t received = headers("", 50);
  CHECK(call(SYS_recvmmsg, packets.second(), received, kMessages, MSG_WAITFORONE, 0) == count);
  for (int64_t i = 0; i < count; i++) {
    const auto header =
        program().get<mmsghdr>(received + static_cast<uint64_t>(i) * sizeof(mmsghdr));
    CHECK(header.msg_len == 7);
    const auto vector = program().get<iovec>(reinterpret_cast<uint64_t>(header.msg_hdr.msg_iov));
    CHECK(program().text(reinterpret_cast<uint64_t>(vector.iov_base), 7) == "message");
  }
  CHECK(call(SYS_recvmmsg, packets.second(), received, 1, 0, 0) == -EAGAIN);
  CHECK(call(SYS_sendmmsg, packets.first(), 0x1000, 5, 0) == -EFAULT);
  CHECK(call(SYS_sendmmsg, packets.first(), 0x1000, 0, 0) == 0);
}

TEST_CASE("no message is waited for once recvmmsg's time is over") {
  constexpr uint32_t kBatch = syscalls::kMessageCountMax;
  const Pair pair(SOCK_SEQPACKET);
  const auto send_some = [&](uint32_t count) {
    for (uint32_t i = 0; i < count; i++) REQUIRE(send(pair.ends[0], "x", 1, 0) == 1);
  };
  send_some(kBatch + 1);
  const uint64_t received = program().map(2 * kBatch * sizeof(mmsghdr) / kPageSize + 1);
  std::vector<mmsghdr> none(2 * kBatch);  // of no buffers
  program().write(received, none.data(), none.size() * sizeof(mmsghdr));
  const uint64_t timeout = program().put(timespec{5, 0});
  CHECK(call(SYS_recvmmsg, pair.second(), received, 2 * kBatch, MSG_DONTWAIT, timeout) ==
        kBatch + 1);
  CHECK(program().host_calls.size() == 2);
  send_some(2);
  const uint64_t over = program().put(timespec{0, 0});
  CHECK(call(SYS_recvmmsg, pair.second(), received, 2 * kBatch, MSG_DONTWAIT, over) == 1);
  CHECK(program().host_calls.size() == 1);
}

TEST_CASE("network interfaces") {
  const int fd = socket(AF_INET, SOCK_DGRAM, 0);
  const auto descriptor = static_cast<uint64_t>(fd);
  struct {
    int32_t length;
    uint32_t padding;
    uint64_t buffer;
  } list{4000, 0, program().across_pages(4000)};
  const uint64_t address = program().put(list);
  CHECK(call(SYS_ioctl, descriptor, 0x8912 /* SIOCGIFCONF */, address) == 0);
  const auto after = program().get<decltype(list)>(address);
  CHECK(after.buffer == list.buffer);
  CHECK(after.length % 40 == 0);
  close(fd);
}

constexpr char kNoLargeBuffers[] = "SO_SNDBUFFORCE needs CAP_NET_ADMIN";

TEST_CASE("a large message is received as a whole") {
  const Pair pair(SOCK_SEQPACKET);
  const int room = 8 * kMiB;
  if (setsockopt(pair.ends[0], SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof room) != 0) {
    return skip_case(kNoLargeBuffers);
  }
  const size_t size = 5 * kMiB / 2;
  const std::string text = letters(size);
  if (send(pair.ends[0], text.data(), size, 0) < 0) {
    return skip_case("Linux has no memory in one piece");
  }
  const uint64_t buffer = program().map(3 * kMiB / kPageSize, Layout::kContiguous);
  CHECK(call(SYS_recvfrom, pair.second(), buffer, 3 * kMiB, MSG_PEEK) == int64_t{size});
  CHECK(call(SYS_read, pair.second(), buffer, 3 * kMiB) == int64_t{size});
  CHECK(program().text(buffer, size) == text);
}

TEST_CASE("what is only looked at is not read twice") {
  const Pair pair(SOCK_STREAM);
  const int room = 16 * kMiB;
  if (setsockopt(pair.ends[0], SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof room) != 0) {
    return skip_case(kNoLargeBuffers);
  }
  const size_t size = 5 * kMiB;
  const std::string text = letters(size);
  REQUIRE(send(pair.ends[0], text.data(), size, 0) == int64_t{size});
  const uint64_t buffer = program().map(size / kPageSize, Layout::kContiguous);
  CHECK(call(SYS_recvfrom, pair.second(), buffer, size, MSG_PEEK | MSG_WAITALL) == int64_t{size});
  CHECK(program().text(buffer, size) == text);
  const uint64_t scattered = program().map(size / kPageSize, Layout::kScattered);
  CHECK(call(SYS_recvfrom, pair.second(), scattered, size, MSG_PEEK | MSG_WAITALL) == 4 * kMiB);
  CHECK(call(SYS_recvfrom, pair.second(), scattered, size, MSG_WAITALL) == int64_t{size});
  CHECK(program().text(scattered, size) == text);
}
