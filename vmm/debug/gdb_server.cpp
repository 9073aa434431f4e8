#include "vmm/debug/gdb_server.h"

#include <asm/unistd.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <memory>

#include "vmm/debug/gdb_session.h"
#include "vmm/error.h"
#include "vmm/host/host_call.h"
#include "vmm/host/keep_descriptor.h"
#include "vmm/log.h"
#include "vmm/process/signals.h"

namespace dbos::vmm {
namespace {

constexpr int kPatienceOfEnd_ms = 1000;  // for gdb to read that the program has ended
constexpr int kPatienceOfStranger_ms = 200;
constexpr int kPatienceOfSend_ms = 10'000;
constexpr int kAliveAfter_s = 10;
constexpr int kAliveProbes = 3;
constexpr useconds_t kPauseAfterFailure_us = 50'000;

int listener = -1;
std::string where;
char socket_path[sizeof(sockaddr_un::sun_path)];

// What a dbos-run that was killed left behind: nobody listens there.
void remove_stale_socket(const sockaddr_un& address) {
  const int descriptor = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int result =
      connect(descriptor, reinterpret_cast<const sockaddr*>(&address), sizeof address);
  if (result < 0 && errno == ECONNREFUSED) unlink(address.sun_path);
  close(descriptor);
}

int listen_at_path(const std::string& path) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) {
    throw StartError("the path of --gdb " + path + " is too long for a socket");
  }
  path.copy(address.sun_path, path.size());
  const int descriptor = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  remove_stale_socket(address);
  const mode_t mask = umask(0177);
  const int bound = bind(descriptor, reinterpret_cast<const sockaddr*>(&address), sizeof address);
  const int error = errno;
  umask(mask);
  errno = error;
  if (descriptor < 0 || bound < 0) throw StartError::with_errno("can't make the socket {}", path);
  path.copy(socket_path, path.size());
  return descriptor;
}

int listen_at_port(const std::string& address, const std::string& host, const std::string& port) {
  addrinfo hints = {};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const std::string name = host.empty() ? "127.0.0.1" : host;
  if (const int error = getaddrinfo(name.c_str(), port.c_str(), &hints, &found); error != 0) {
    throw StartError("can't listen at --gdb " + address + ": " + gai_strerror(error));
  }
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> guard(found, freeaddrinfo);
  const int descriptor = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int yes = 1;
  setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  if (descriptor < 0 || bind(descriptor, found->ai_addr, found->ai_addrlen) < 0) {
    throw StartError::with_errno("can't listen at --gdb {}", address);
  }
  return descriptor;
}

int make_listener(const std::string& address) {
  if (address.find('/') != std::string::npos) return listen_at_path(address);
  const size_t colon = address.rfind(':');
  if (colon == std::string::npos || colon + 1 == address.size()) {
    throw StartError("--gdb takes HOST:PORT, :PORT or the path of a socket, not '" + address + "'");
  }
  std::string host = address.substr(0, colon);
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
  }
  return listen_at_port(address, host, address.substr(colon + 1));
}

int accept_one() {
  const int descriptor = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
  if (descriptor < 0) {
    // Out of descriptors, say: it stays readable, and must not be asked without pause.
    if (errno != EAGAIN && errno != ECONNABORTED) usleep(kPauseAfterFailure_us);
    return -1;
  }
  const int yes = 1;
  setsockopt(descriptor, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
  // A gdb whose machine has died without a word must not hold the program for good.
  setsockopt(descriptor, SOL_SOCKET, SO_KEEPALIVE, &yes, sizeof yes);
  setsockopt(descriptor, IPPROTO_TCP, TCP_KEEPIDLE, &kAliveAfter_s, sizeof kAliveAfter_s);
  setsockopt(descriptor, IPPROTO_TCP, TCP_KEEPINTVL, &kAliveAfter_s, sizeof kAliveAfter_s);
  setsockopt(descriptor, IPPROTO_TCP, TCP_KEEPCNT, &kAliveProbes, sizeof kAliveProbes);
  return keep_descriptor(descriptor);
}

// False: gdb is gone, or takes nothing.
bool send_all(int connection, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t sent = send(connection, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent > 0) {
      bytes.remove_prefix(static_cast<size_t>(sent));
      continue;
    }
    pollfd writable = {connection, POLLOUT, 0};
    const bool may_wait = sent < 0 && (errno == EAGAIN || errno == EINTR);
    if (!may_wait || poll(&writable, 1, kPatienceOfSend_ms) <= 0) return false;
  }
  return true;
}

// What has arrived; false: the connection is closed.
bool receive(int connection, GdbSession& session) {
  char bytes[4096];
  const ssize_t count = recv(connection, bytes, sizeof bytes, 0);
  if (count == 0) return false;
  if (count < 0) return errno == EAGAIN || errno == EINTR;
  session.receive({bytes, static_cast<size_t>(count)});
  return true;
}

// The last packet must arrive although we close, or the process is about to end.
void wait_for_close(int connection) {
  shutdown(connection, SHUT_WR);
  pollfd readable = {connection, POLLIN, 0};
  char bytes[256];
  for (int i = 0; i < 16 && poll(&readable, 1, kPatienceOfEnd_ms) > 0; ++i) {
    if (recv(connection, bytes, sizeof bytes, 0) <= 0) return;
  }
}

// Another gdb, while one is served: the answer to its first packet says why it has to go.
void send_away(const std::string& why) {
  const int other = accept_one();
  if (other < 0) return;
  pollfd readable = {other, POLLIN, 0};
  char bytes[kGdbPacketMax];
  if (poll(&readable, 1, kPatienceOfStranger_ms) > 0) (void)recv(other, bytes, sizeof bytes, 0);
  if (send_all(other, "+" + make_gdb_packet("E." + why))) wait_for_close(other);
  close_kept(other);
}

void talk(int connection, GdbSession& session) {
  for (;;) {
    pollfd watched[] = {
        {connection, POLLIN, 0}, {debug_event_descriptor(), POLLIN, 0}, {listener, POLLIN, 0}};
    if (poll(watched, std::size(watched), -1) < 0) continue;
    if (watched[2].revents != 0) send_away("another debugger is attached: " + attached_debugger());
    if (watched[1].revents != 0) {
      clear_debug_event();
      session.handle_events();
    }
    if (watched[0].revents != 0 && !receive(connection, session)) return;
    if (!send_all(connection, session.take_output())) return;
    if (session.is_over()) return wait_for_close(connection);
  }
}

void serve(int connection) {
  const std::string refusal = attach_debugger("gdb at " + where);
  if (!refusal.empty()) {
    send_all(connection, "+" + make_gdb_packet("E." + refusal));
    return;
  }
  if (stop_all()) {
    GdbSession session;
    talk(connection, session);
  } else {
    write_log_line(LogLevel::kWarning,
                   "the program could not be stopped for gdb: a thread stays in the guest kernel");
  }
  detach_debugger();
}

void* run_server(void* /*argument*/) {
  for (;;) {
    pollfd waiting = {listener, POLLIN, 0};
    if (poll(&waiting, 1, -1) <= 0) continue;
    const int connection = accept_one();
    if (connection < 0) continue;
    serve(connection);
    close_kept(connection);
  }
  return nullptr;
}

}  // namespace

void start_gdb_server(const std::string& address) {
  const int descriptor = make_listener(address);
  if (listen(descriptor, 8) < 0) throw StartError::with_errno("can't listen at --gdb {}", address);
  listener = keep_descriptor(descriptor);
  where = address;
  const uint64_t mask = block_all_signals();
  pthread_t thread;
  const int error = pthread_create(&thread, nullptr, run_server, nullptr);
  set_own_mask(mask);
  if (error != 0) throw StartError("can't start the thread that serves gdb");
  pthread_detach(thread);
}

void remove_gdb_socket() {
  if (socket_path[0] != 0) raw_call(__NR_unlink, reinterpret_cast<uint64_t>(socket_path));
}

}  // namespace dbos::vmm
