#include "tools/dbos-dbg/gdb_bridge.h"

#include <fmt/core.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <stdexcept>

#include "tools/dbos-dbg/connection.h"
#include "tools/dbos-dbg/machines.h"
#include "vmm/debug/listen.h"
#include "vmm/loader/file_descriptor.h"
#include "vmm/network_address.h"

namespace dbos::dbg {
namespace {

using vmm::FileDescriptor;

vmm::NetworkAddress parse(const std::string& text) {
  try {
    return vmm::parse_network_address(text);
  } catch (const std::invalid_argument& error) {
    throw UsageError(
        fmt::format("the address '{}' {}; the path of a socket has a '/' in it, as ./gdb.sock",
                    text, error.what()));
  }
}

int accept_one(int listener, const std::string& address) {
  fmt::print(stderr, "dbos-dbg: waiting for gdb: target remote {}\n", address);
  for (;;) {
    pollfd waiting = {listener, POLLIN, 0};
    poll(&waiting, 1, -1);
    const int accepted = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
    if (accepted >= 0) return accepted;
    if (errno == EINTR || errno == ECONNABORTED || errno == EAGAIN) continue;
    throw Failure(fmt::format("can't wait for gdb at {}: {}", address, std::strerror(errno)));
  }
}

int wait_for_gdb(const std::string& address) {
  const bool is_path = address.find('/') != std::string::npos;
  const FileDescriptor listener(is_path ? vmm::listen_at_path(address)
                                        : vmm::listen_on_network(parse(address)));
  if (listener.number() < 0) {
    throw Failure(
        fmt::format("can't wait for gdb at {}: {}", address, std::strerror(-listener.number())));
  }
  const int accepted = accept_one(listener.number(), address);
  if (is_path) unlink(address.c_str());
  const int yes = 1;
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
  const bool is_port = !address.empty() && address.find('/') == std::string::npos;
  if (is_port) parse(address);  // whatever is wrong is said before gdb is waited for
  Connection connection(choose_machine(program).address);
  const FileDescriptor accepted(address.empty() ? -1 : wait_for_gdb(address));
  connection.ask("debug", Json::object(), Connection::Wait::kForATurn);
  connection.ask("gdb", Json::object(), Connection::Wait::kForATurn);
  std::signal(SIGPIPE, SIG_IGN);
  const int input = address.empty() ? STDIN_FILENO : accepted.number();
  const int output = address.empty() ? STDOUT_FILENO : accepted.number();
  carry_both(input, output, connection.socket());
}

}  // namespace dbos::dbg
