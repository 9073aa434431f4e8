#include "vmm/debug/listen.h"

#include <netdb.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <memory>

namespace dbos::vmm {
namespace {

constexpr int kBacklog = 16;
constexpr useconds_t kPauseAfterFailure_us = 50'000;

// What a process that was killed left behind: nobody listens there.
void remove_stale_socket(const sockaddr_un& address) {
  struct stat file = {};
  if (lstat(address.sun_path, &file) != 0 || !S_ISSOCK(file.st_mode)) return;
  const int made = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int result = connect(made, reinterpret_cast<const sockaddr*>(&address), sizeof address);
  if (result < 0 && errno == ECONNREFUSED) unlink(address.sun_path);
  close(made);
}

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

int listen_at_path(const std::string& path) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) return -ENAMETOOLONG;
  path.copy(address.sun_path, path.size());
  const int made = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (made < 0) return -errno;
  remove_stale_socket(address);
  const mode_t mask = umask(0177);
  const int result =
      listen_or_close(made, reinterpret_cast<const sockaddr*>(&address), sizeof address);
  umask(mask);
  return result;
}

int listen_on_network(const NetworkAddress& address) {
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICSERV;
  addrinfo* found = nullptr;
  if (getaddrinfo(address.host.c_str(), address.port.c_str(), &hints, &found) != 0) {
    return -EADDRNOTAVAIL;
  }
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> guard(found, freeaddrinfo);
  const int made = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (made < 0) return -errno;
  const int on = 1;
  setsockopt(made, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  return listen_or_close(made, found->ai_addr, found->ai_addrlen);
}

int accept_connection(int listener) {
  const int accepted = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
  // Out of descriptors, say: the limit is the program's.
  if (accepted < 0 && errno != EAGAIN && errno != ECONNABORTED) usleep(kPauseAfterFailure_us);
  return accepted;
}

bool may_ask(int socket, int* peer) {
  ucred credentials = {};
  socklen_t size = sizeof credentials;
  if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &credentials, &size) != 0) return false;
  *peer = credentials.pid;
  return credentials.uid == 0 || credentials.uid == geteuid();
}

}  // namespace dbos::vmm
