#include "vmm/control/passed_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cstring>
#include <string>

#include "vmm/host/descriptor_message.h"

using namespace dbos::vmm;

namespace {

bool is_same_file(int one, int other) {
  struct stat a = {};
  struct stat b = {};
  return fstat(one, &a) == 0 && fstat(other, &b) == 0 && a.st_ino == b.st_ino;
}

bool is_open(int descriptor) {
  return fcntl(descriptor, F_GETFD) >= 0;
}

// A request with several descriptors beside it.
void send_files(int socket, const int (&files)[2]) {
  char text[] = "x";
  iovec data = {text, 1};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof files)] = {};
  msghdr message = {};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  cmsghdr* const first = CMSG_FIRSTHDR(&message);
  first->cmsg_level = SOL_SOCKET;
  first->cmsg_type = SCM_RIGHTS;
  first->cmsg_len = CMSG_LEN(sizeof files);
  std::memcpy(CMSG_DATA(first), files, sizeof files);
  REQUIRE(sendmsg(socket, &message, 0) == 1);
}

}  // namespace

TEST_CASE("one file comes beside a request") {
  int ends[2];
  REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
  const int sent = memfd_create("sent", 0);
  char bytes[8];
  int file = 0;
  REQUIRE(send_with_file(ends[0], "none", 4, -1) == 4);
  REQUIRE(receive_with_file(ends[1], bytes, sizeof bytes, &file) == 4);
  REQUIRE(file == -1);
  REQUIRE(send_with_file(ends[0], "file", 4, sent) == 4);
  REQUIRE(receive_with_file(ends[1], bytes, sizeof bytes, &file) == 4);
  REQUIRE(is_same_file(file, sent));
  REQUIRE(fcntl(file, F_GETFD) == FD_CLOEXEC);
  close(file);

  send_files(ends[0], {sent, sent});
  REQUIRE(receive_with_file(ends[1], bytes, sizeof bytes, &file) == 1);
  REQUIRE(is_same_file(file, sent));
  REQUIRE_FALSE(is_open(file + 1));  // nothing is left open that nobody knows of
  for (const int end : {ends[0], ends[1], sent, file}) close(end);
}

TEST_CASE("a file is taken by the client who sent it") {
  const DebuggerSockets sockets = make_debugger_sockets();
  REQUIRE(sockets.control >= 0);
  std::vector<PassedFile> files;
  const auto take = [&](uint64_t client) {
    collect_files(sockets.debugger, &files);
    return take_file_of(client, &files);
  };
  REQUIRE(take(1) == -1);
  const int mine = memfd_create("mine", 0);
  pass_file(sockets.control, 1, memfd_create("older", 0));
  const uint64_t wake_up = 1;
  REQUIRE(write(sockets.control, &wake_up, sizeof wake_up) == sizeof wake_up);
  pass_file(sockets.control, 1, dup(mine));
  const int other = memfd_create("other", 0);
  pass_file(sockets.control, 2, other);
  REQUIRE_FALSE(is_open(other));
  const int taken = take(1);
  REQUIRE(is_same_file(taken, mine));
  REQUIRE(take(2) == -1);
  for (const int end : {sockets.control, sockets.debugger, mine, taken}) close(end);
}
