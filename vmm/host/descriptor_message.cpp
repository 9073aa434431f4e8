#include "vmm/host/descriptor_message.h"

#include <sys/socket.h>
#include <sys/uio.h>

#include <cstring>

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

ssize_t receive_with_file(int socket, void* bytes, size_t size, int* file, int flags) {
  Message message(bytes, size);
  const ssize_t result = recvmsg(socket, &message.header, flags | MSG_CMSG_CLOEXEC);
  *file = result < 0 ? -1 : file_of(message);
  return result;
}

ssize_t send_with_file(int socket, const void* bytes, size_t size, int file, int flags) {
  if (file < 0) return send(socket, bytes, size, flags | MSG_NOSIGNAL);
  Message message(const_cast<void*>(bytes), size);
  cmsghdr* const first = CMSG_FIRSTHDR(&message.header);
  first->cmsg_level = SOL_SOCKET;
  first->cmsg_type = SCM_RIGHTS;
  first->cmsg_len = CMSG_LEN(sizeof file);
  std::memcpy(CMSG_DATA(first), &file, sizeof file);
  return sendmsg(socket, &message.header, flags | MSG_NOSIGNAL);
}

}  // namespace dbos::vmm
