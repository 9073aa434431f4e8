#include "vmm/debug/gdb_server.h"

#include <asm/unistd.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <stdexcept>

#include "vmm/debug/gdb_session.h"
#include "vmm/debug/listen.h"
#include "vmm/error.h"
#include "vmm/host/host_call.h"
#include "vmm/host/keep_descriptor.h"
#include "vmm/host/wait_for_events.h"
#include "vmm/log.h"
#include "vmm/process/service_thread.h"

namespace dbos::vmm {
namespace {

constexpr size_t kStackSize = 2 << 20;
constexpr int kPatienceOfEnd_ms = 1000;  // for gdb to read that the program has ended
constexpr int kPatienceOfStranger_ms = 200;
constexpr int kPatienceOfSend_ms = 10'000;
constexpr int kAliveAfter_s = 10;
constexpr int kAliveProbes = 3;

int listener = -1;
std::string where;
// Of the socket's file: the program may change what its path means.
int socket_folder = -1;
std::string socket_name;

int listen_at(const std::string& address) {
  try {
    return address.find('/') != std::string::npos
               ? listen_at_path(address)
               : listen_on_network(parse_network_address(address));
  } catch (const std::invalid_argument& error) {
    throw StartError(
        "--gdb takes HOST:PORT, :PORT or the path of a socket with a '/' in it, as "
        "./gdb.sock; '" +
        address + "' " + error.what());
  }
}

int accept_one() {
  const int descriptor = accept_connection(listener);
  if (descriptor < 0) return -1;
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
    wait_for_events(watched, -1);
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
  begin_service_thread("dbos-gdb");
  for (;;) {
    pollfd waiting = {listener, POLLIN, 0};
    wait_for_events({&waiting, 1}, -1);
    if (waiting.revents == 0) continue;
    const int connection = accept_one();
    if (connection < 0) continue;
    serve(connection);
    close_kept(connection);
  }
  return nullptr;
}

}  // namespace

void start_gdb_server(const std::string& address) {
  const int descriptor = listen_at(address);
  if (descriptor < 0) {
    throw StartError::with_code(-descriptor, "can't listen at --gdb {}", address);
  }
  listener = keep_descriptor(descriptor);
  where = address;
  if (const size_t slash = address.rfind('/'); slash != std::string::npos) {
    const std::string folder = address.substr(0, slash + 1);
    socket_folder = keep_descriptor(open(folder.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    socket_name = address.substr(slash + 1);
  }
  require_service_thread(kStackSize, run_server, nullptr, "that serves gdb");
}

void remove_gdb_socket() {
  if (socket_folder < 0) return;
  raw_call(__NR_unlinkat, static_cast<uint64_t>(socket_folder),
           reinterpret_cast<uint64_t>(socket_name.c_str()), 0);
}

}  // namespace dbos::vmm
