#include "tools/dbos-dbg/gdb_bridge.h"

#include <fmt/format.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <memory>
#include <stdexcept>

#include "tools/dbos-dbg/connection.h"
#include "tools/dbos-dbg/machines.h"
#include "vmm/network_address.h"

namespace dbos::dbg {
namespace {

class Descriptor {
 public:
  explicit Descriptor(int number) : number_(number) {}
  ~Descriptor() {
    if (number_ >= 0) close(number_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int number() const { return number_; }

 private:
  int number_;
};

[[noreturn]] void fail_to_listen(const std::string& address, const char* why) {
  throw Failure(fmt::format("can't wait for gdb at {}: {}", address, why));
}

vmm::NetworkAddress parse(const std::string& text) {
  try {
    return vmm::parse_network_address(text);
  } catch (const std::invalid_argument& error) {
    throw UsageError(fmt::format("the address '{}' {}", text, error.what()));
  }
}

int accept_one(int listener, const std::string& address) {
  if (listen(listener, 1) != 0) fail_to_listen(address, std::strerror(errno));
  fmt::print(stderr, "dbos-dbg: waiting for gdb: target remote {}\n", address);
  for (;;) {
    const int accepted = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
    if (accepted >= 0) return accepted;
    if (errno != EINTR && errno != ECONNABORTED) fail_to_listen(address, std::strerror(errno));
  }
}

int accept_at_path(const std::string& path) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) fail_to_listen(path, "the path is too long");
  path.copy(address.sun_path, path.size());
  const Descriptor listener(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const mode_t mask = umask(0177);
  const int bound =
      bind(listener.number(), reinterpret_cast<const sockaddr*>(&address), sizeof address);
  const int error = errno;
  umask(mask);
  if (bound != 0) fail_to_listen(path, std::strerror(error));
  const int accepted = accept_one(listener.number(), path);
  unlink(path.c_str());
  return accepted;
}

int accept_at_port(const std::string& text, const vmm::NetworkAddress& address) {
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int error = getaddrinfo(address.host.c_str(), address.port.c_str(), &hints, &found);
  if (error != 0) fail_to_listen(text, gai_strerror(error));
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> guard(found, freeaddrinfo);
  const Descriptor listener(socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const int yes = 1;
  setsockopt(listener.number(), SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  if (bind(listener.number(), found->ai_addr, found->ai_addrlen) != 0) {
    fail_to_listen(text, std::strerror(errno));
  }
  const int accepted = accept_one(listener.number(), text);
  setsockopt(accepted, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
  return accepted;
}

// False: one side has ended.
bool carry(int from, int to) {
  char bytes[16384];
  const ssize_t size = read(from, bytes, sizeof bytes);
  if (size < 0 && (errno == EINTR || errno == EAGAIN)) return true;
  for (ssize_t done = 0; done < size;) {
    const ssize_t part = write(to, bytes + done, static_cast<size_t>(size - done));
    if (part < 0 && errno != EINTR && errno != EAGAIN) return false;
    if (part > 0) done += part;
  }
  return size > 0;
}

void carry_both(int input, int output, int program) {
  for (;;) {
    pollfd watched[] = {{input, POLLIN, 0}, {program, POLLIN, 0}};
    if (poll(watched, std::size(watched), -1) < 0) continue;
    if (watched[1].revents != 0 && !carry(program, output)) return;
    if (watched[0].revents != 0 && !carry(input, program)) return;
  }
}

}  // namespace

void serve_gdb(const std::string& program, const std::string& address) {
  const bool is_path = address.find('/') != std::string::npos;
  const bool is_port = !address.empty() && !is_path;
  const vmm::NetworkAddress port = is_port ? parse(address) : vmm::NetworkAddress();
  // Before gdb is waited for, so that whatever is wrong is said at once.
  Connection connection(choose_machine(program).socket);
  const Descriptor accepted(is_port   ? accept_at_port(address, port)
                            : is_path ? accept_at_path(address)
                                      : -1);
  connection.ask("debug", Json::object(), Connection::Wait::kForever);
  connection.ask("gdb", Json::object(), Connection::Wait::kForever);
  std::signal(SIGPIPE, SIG_IGN);
  const int input = address.empty() ? STDIN_FILENO : accepted.number();
  const int output = address.empty() ? STDOUT_FILENO : accepted.number();
  carry_both(input, output, connection.socket());
}

}  // namespace dbos::dbg
