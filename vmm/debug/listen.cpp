#include "vmm/debug/listen.h"

#include <netdb.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>

namespace dbos::vmm {
namespace {

constexpr int kBacklog = 16;

int listen_or_close(int socket, const sockaddr* address, socklen_t size) {
  if (bind(socket, address, size) == 0 && listen(socket, kBacklog) == 0) return socket;
  const int error = errno;
  close(socket);
  return -error;
}

}  // namespace

int listen_on_abstract_socket(const std::string& name) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  const size_t size = std::min(name.size(), sizeof address.sun_path - 1);
  std::memcpy(address.sun_path + 1, name.data(), size);
  const int made = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (made < 0) return -errno;
  return listen_or_close(made, reinterpret_cast<const sockaddr*>(&address),
                         static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + size));
}

int listen_on_network(const NetworkAddress& address) {
  addrinfo hints = {};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE;
  addrinfo* found = nullptr;
  if (getaddrinfo(address.host.c_str(), address.port.c_str(), &hints, &found) != 0) return -EINVAL;
  const int made = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  int result = -errno;
  if (made >= 0) {
    const int on = 1;
    setsockopt(made, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    result = listen_or_close(made, found->ai_addr, found->ai_addrlen);
  }
  freeaddrinfo(found);
  return result;
}

bool may_control(int socket, int* peer) {
  ucred credentials = {};
  socklen_t size = sizeof credentials;
  if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &credentials, &size) != 0) return false;
  *peer = credentials.pid;
  return credentials.uid == 0 || credentials.uid == geteuid();
}

}  // namespace dbos::vmm
