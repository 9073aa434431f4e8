#include "vmm/debug/passed_file.h"

#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cstring>
#include <utility>

namespace dbos::vmm {
namespace {

// A message with room for one descriptor. Not CMSG_SPACE: that has room for a second one.
struct Message {
  Message(void* bytes, size_t size) : data{bytes, size} {
    header.msg_iov = &data;
    header.msg_iovlen = 1;
    header.msg_control = control;
    header.msg_controllen = CMSG_LEN(sizeof(int));
  }
  Message(const Message&) = delete;
  Message& operator=(const Message&) = delete;

  iovec data;
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr header = {};
};

int file_of(Message& message) {
  const cmsghdr* const first = CMSG_FIRSTHDR(&message.header);
  const bool is_file = first != nullptr && first->cmsg_level == SOL_SOCKET &&
                       first->cmsg_type == SCM_RIGHTS && first->cmsg_len == CMSG_LEN(sizeof(int));
  int file = -1;
  if (is_file) std::memcpy(&file, CMSG_DATA(first), sizeof file);
  return file;
}

}  // namespace

DebuggerSockets make_debugger_sockets() {
  int ends[2];
  constexpr int kKind = SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK;
  if (socketpair(AF_UNIX, kKind, 0, ends) != 0) return {};
  return {ends[0], ends[1]};
}

ssize_t receive_with_file(int socket, void* bytes, size_t size, int* file) {
  Message message(bytes, size);
  const ssize_t result = recvmsg(socket, &message.header, MSG_CMSG_CLOEXEC);
  *file = result < 0 ? -1 : file_of(message);
  return result;
}

ssize_t send_with_file(int socket, const void* bytes, size_t size, int file) {
  if (file < 0) return send(socket, bytes, size, MSG_NOSIGNAL);
  Message message(const_cast<void*>(bytes), size);
  cmsghdr* const first = CMSG_FIRSTHDR(&message.header);
  first->cmsg_level = SOL_SOCKET;
  first->cmsg_type = SCM_RIGHTS;
  first->cmsg_len = CMSG_LEN(sizeof file);
  std::memcpy(CMSG_DATA(first), &file, sizeof file);
  return sendmsg(socket, &message.header, MSG_NOSIGNAL);
}

void pass_file(int control_end, uint64_t client, int file) {
  send_with_file(control_end, &client, sizeof client, file);
  close(file);
}

void collect_files(int end, std::vector<PassedFile>* files) {
  for (;;) {
    PassedFile passed{0, -1};
    const ssize_t size = receive_with_file(end, &passed.client, sizeof passed.client, &passed.file);
    if (size <= 0) return;
    if (passed.file >= 0) files->push_back(passed);
  }
}

int take_file_of(uint64_t client, std::vector<PassedFile>* files) {
  int found = -1;
  for (PassedFile& passed : *files) {
    if (passed.client == client) std::swap(passed.file, found);
    if (passed.file >= 0) close(passed.file);
  }
  files->clear();
  return found;
}

}  // namespace dbos::vmm
