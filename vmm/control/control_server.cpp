#include "vmm/control/control_server.h"

#include <asm/unistd.h>
#include <fmt/core.h>
#include <linux/close_range.h>
#include <poll.h>
#include <sched.h>
#include <semaphore.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <climits>
#include <cstring>
#include <list>
#include <optional>
#include <utility>
#include <vector>

#include "vmm/control/admission.h"
#include "vmm/control/control_commands.h"
#include "vmm/control/debugger.h"
#include "vmm/control/metrics_page.h"
#include "vmm/control/passed_file.h"
#include "vmm/debug/listen.h"
#include "vmm/error.h"
#include "vmm/host/descriptor_message.h"
#include "vmm/host/host_call.h"
#include "vmm/host/wait_for_events.h"
#include "vmm/log.h"
#include "vmm/observe/metrics.h"
#include "vmm/process/service_thread.h"

namespace dbos::vmm {
namespace {

constexpr size_t kClientsMax = 16;  // of each kind
constexpr size_t kStackSize = 512 * 1024;
// A client that does not read is asked nothing more until it does.
constexpr size_t kOutputMax = 4 * 1024 * 1024;
constexpr int kTracePeriod_ms = 5;
// Within that a client has asked for the page of metrics and taken it, or has been admitted to the
// control socket. There are only so many.
constexpr std::chrono::seconds kPatience{10};
constexpr int kPatiencePeriod_ms = 1000;

enum class ClientKind { kControl, kMetrics };

void clear_wake_up(int socket) {
  uint64_t message = 0;
  while (recv(socket, &message, sizeof message, 0) > 0) {
  }
}

struct Client {
  int socket;
  ClientKind kind;
  ControlSession session;
  LineBuffer lines;
  std::string http_request;
  std::chrono::steady_clock::time_point begin = std::chrono::steady_clock::now();
  bool is_ending = false;  // to be closed as soon as its output is out
};

bool must_hurry(const Client& client) {
  return client.kind == ClientKind::kMetrics || !client.session.is_admitted;
}

class ControlServer {
 public:
  ControlServer(Machine& machine, int control, int metrics, std::string secret)
      : context_(machine), control_(control), metrics_(metrics), secret_(std::move(secret)) {
    if (metrics >= 0) context_.time_always();
  }

  [[noreturn]] void run() {
    for (;;) turn();
  }

 private:
  void turn();
  static pollfd events_of(const Client& client);
  void accept_client(int listener, ClientKind kind);
  void receive(Client& client);
  static void take_file(const Client& client, int file);
  void serve_control(Client& client, std::string_view bytes);
  void serve_metrics(Client& client, std::string_view bytes);
  void answer(Client& client, const std::string& line);
  Json admit(Client& client, const ControlRequest& request) const;
  void begin_debugging(Client& client, const std::string& line);
  void take_debugger_output();
  static void drop_debugger(Client& client);
  void send_output(Client& client);
  void end_slow_ones();
  int patience_ms();
  void drop_ended();
  size_t count(ClientKind kind) const {
    return static_cast<size_t>(std::count_if(clients_.begin(), clients_.end(),
                                             [&](const Client& c) { return c.kind == kind; }));
  }

  ControlContext context_;
  int control_;
  int metrics_;
  std::string secret_;
  std::list<Client> clients_;
};

pollfd ControlServer::events_of(const Client& client) {
  const ControlSession& session = client.session;
  const bool has_output = !session.output.empty();
  // One that has gone, and waits for the debugger's thread to notice.
  if (client.is_ending && !has_output) return {-1, 0, 0};
  // So a debugger that asks for much and reads nothing has no more than one turn's answers made.
  const bool is_behind = session.debugger && session.debugger->waiting() > 0;
  const bool may_ask = !client.is_ending && !is_behind && session.output.size() < kOutputMax;
  const int events = (may_ask ? POLLIN : 0) | (has_output ? POLLOUT : 0);
  return {client.socket, static_cast<short>(events), 0};
}

int ControlServer::patience_ms() {
  if (context_.trace().is_on()) return kTracePeriod_ms;
  const bool one_must_hurry = std::any_of(clients_.begin(), clients_.end(), must_hurry);
  return one_must_hurry ? kPatiencePeriod_ms : -1;
}

void ControlServer::turn() {
  std::vector<pollfd> polled;
  polled.push_back({control_, POLLIN, 0});  // poll passes over negative descriptors
  polled.push_back({metrics_, POLLIN, 0});
  polled.push_back({debugger_sockets().control, POLLIN, 0});
  for (const Client& client : clients_) polled.push_back(events_of(client));
  wait_for_events(polled, patience_ms());
  size_t index = 3;
  for (Client& client : clients_) {
    const short events = polled[index++].revents;
    if ((events & (POLLIN | POLLHUP | POLLERR)) != 0) receive(client);
    const bool is_gone = (events & (POLLHUP | POLLERR)) != 0;
    if (is_gone && client.session.debugger) drop_debugger(client);
  }
  context_.trace().pump();
  if ((polled[2].revents & POLLIN) != 0) clear_wake_up(polled[2].fd);
  take_debugger_output();
  for (Client& client : clients_) send_output(client);
  end_slow_ones();
  drop_ended();
  if ((polled[0].revents & POLLIN) != 0) accept_client(control_, ClientKind::kControl);
  if ((polled[1].revents & POLLIN) != 0) accept_client(metrics_, ClientKind::kMetrics);
}

void ControlServer::accept_client(int listener, ClientKind kind) {
  const int socket = accept_connection(listener);
  if (socket < 0) return;
  Client client{.socket = socket, .kind = kind, .session = {}, .lines = {}, .http_request = {}};
  if (kind == ClientKind::kControl && !may_ask(socket, &client.session.peer)) {
    close(socket);
    return;
  }
  if (count(kind) >= kClientsMax) {
    const std::string line = kind == ClientKind::kControl
                                 ? error_line({}, "too many are connected already")
                                 : "HTTP/1.1 503 Service Unavailable\r\n\r\n";
    send(socket, line.data(), line.size(), MSG_NOSIGNAL);
    close(socket);
    return;
  }
  clients_.push_back(std::move(client));
}

void ControlServer::receive(Client& client) {
  char bytes[16 * 1024];
  int file = -1;
  const ssize_t size = receive_with_file(client.socket, bytes, sizeof bytes, &file);
  if (file >= 0) take_file(client, file);
  if (size < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (size <= 0) {
    context_.end(client.session);
    client.is_ending = true;  // what it asked before is still answered
    if (size < 0) client.session.output.clear();
    return;
  }
  const std::string_view text(bytes, static_cast<size_t>(size));
  client.kind == ClientKind::kControl ? serve_control(client, text) : serve_metrics(client, text);
}

// Before the request that it came with.
void ControlServer::take_file(const Client& client, int file) {
  const auto& debugger = client.session.debugger;
  if (!debugger) {
    close(file);
    return;
  }
  pass_file(debugger_sockets().control, debugger->id(), file);
}

void ControlServer::serve_control(Client& client, std::string_view bytes) {
  ControlSession& session = client.session;
  if (session.debugger) return session.debugger->give(bytes);
  client.lines.append(bytes);
  try {
    while (const auto line = client.lines.next()) {
      answer(client, *line);
      if (client.is_ending) return;
      if (session.debugger) return session.debugger->give(client.lines.take_rest());
    }
  } catch (const CommandError& error) {
    client.session.output += error_line({}, error.what());
    client.is_ending = true;
  }
}

void ControlServer::answer(Client& client, const std::string& line) {
  client.session.output += answer_request(line, [&](const ControlRequest& request) {
    if (!client.session.is_admitted) return answer_line(request, admit(client, request));
    if (request.command != "debug") {
      return answer_line(request, perform_command(context_, client.session, request));
    }
    begin_debugging(client, line);
    return std::string();
  });
}

// The first request: whoever does not know the secret gets no other one.
Json ControlServer::admit(Client& client, const ControlRequest& request) const {
  const auto given = request.arguments.find("secret");
  const bool is_right = request.command == "attach" && given != request.arguments.end() &&
                        given->is_string() && given->get<std::string>() == secret_;
  client.session.is_admitted = is_right;
  client.is_ending = !is_right;
  if (!is_right) throw CommandError("this user may not look into the program");
  return true;
}

// From here on the debugger's thread answers.
void ControlServer::begin_debugging(Client& client, const std::string& line) {
  const auto debugger =
      open_debug_channel(fmt::format("dbos-dbg, process {}", client.session.peer), line + "\n");
  if (!debugger) {
    throw CommandError("only programs of the built-in guest kernel can be debugged");
  }
  context_.end(client.session);
  client.session.debugger = debugger;
}

// It asked, and did not wait for the answers.
void ControlServer::drop_debugger(Client& client) {
  client.session.debugger->close(DebugChannel::Client::kGone);
  client.session.output.clear();
  client.is_ending = true;
}

void ControlServer::take_debugger_output() {
  for (Client& client : clients_) {
    if (!client.session.debugger) continue;
    client.session.output += client.session.debugger->take_output();
    if (client.session.debugger->is_over()) client.is_ending = true;
  }
}

void ControlServer::serve_metrics(Client& client, std::string_view bytes) {
  client.http_request += bytes;
  const auto page = http_answer(client.http_request, [this] {
    return metrics_text(collect_figures(context_.machine()), DBOS_VERSION);
  });
  if (!page) return;
  client.session.output += *page;
  client.is_ending = true;
}

void ControlServer::send_output(Client& client) {
  std::string& output = client.session.output;
  if (output.empty()) return;
  const ssize_t sent = send(client.socket, output.data(), output.size(), MSG_NOSIGNAL);
  if (sent >= 0) {
    output.erase(0, static_cast<size_t>(sent));
  } else if (errno != EAGAIN && errno != EINTR) {
    context_.end(client.session);
    if (client.session.debugger) drop_debugger(client);
    client.is_ending = true;
    output.clear();
  }
}

void ControlServer::end_slow_ones() {
  const auto now = std::chrono::steady_clock::now();
  for (Client& client : clients_) {
    if (!must_hurry(client) || now - client.begin < kPatience) continue;
    client.session.output.clear();
    client.is_ending = true;
  }
}

void ControlServer::drop_ended() {
  for (auto client = clients_.begin(); client != clients_.end();) {
    if (!client->is_ending || !client->session.output.empty()) {
      ++client;
      continue;
    }
    context_.end(client->session);
    // The socket closes when the program runs on: who waits for that sees it.
    if (client->session.debugger && !client->session.debugger->is_over()) {
      ++client;
      continue;
    }
    close(client->socket);
    client = clients_.erase(client);
  }
}

// ---- The thread ----

struct ThreadStart {
  Machine* machine;
  const ControlOptions* options;
  sem_t is_ready;
  int control_error = 0;
  int metrics_error = 0;
};

// Leaves the program's table of descriptors for one with nothing in it but the machine and what
// wakes the debugger: a pipe of the program's whose end were open here would never reach its end.
// 0 or -errno: then the table is the program's still.
int64_t take_own_descriptors(int vm_descriptor) {
  int kept[] = {vm_descriptor, debugger_sockets().control};
  std::sort(std::begin(kept), std::end(kept));
  const int64_t result = raw_call(__NR_unshare, CLONE_FILES);
  if (result < 0) return result;
  unsigned from = 0;
  for (const int descriptor : kept) {
    if (descriptor < 0) continue;
    const auto end = static_cast<unsigned>(descriptor);
    if (end > from) raw_call(__NR_close_range, from, end - 1, 0);
    from = end + 1;
  }
  raw_call(__NR_close_range, from, UINT_MAX, 0);
  return 0;
}

void* run_control_thread(void* argument) {
  auto& start = *static_cast<ThreadStart*>(argument);
  Machine& machine = *start.machine;
  begin_service_thread(kControlThread);
  const auto error = static_cast<int>(take_own_descriptors(machine.vm_descriptor()));
  int control = -1;
  int metrics = -1;
  std::optional<std::string> secret;
  if (start.options->metrics) {
    metrics = error < 0 ? error : listen_on_network(*start.options->metrics);
    start.metrics_error = metrics < 0 ? -metrics : 0;
  }
  if (error < 0) {
    start.control_error = -error;
  } else if (start.options->has_socket && start.metrics_error == 0) {
    secret = make_secret();
    control = secret ? listen_on_abstract_socket(control_socket_name(geteuid(), getpid())) : -errno;
    start.control_error = control < 0 ? -control : 0;
  }
  const bool is_needed = control >= 0 || metrics >= 0;
  auto* const server =
      is_needed ? new ControlServer(machine, control, metrics, secret.value_or("")) : nullptr;
  sem_post(&start.is_ready);  // `start` is gone from here on
  if (server != nullptr) server->run();
  return nullptr;
}

void start_thread(ThreadStart& start) {
  sem_init(&start.is_ready, 0, 0);
  require_service_thread(kStackSize, run_control_thread, &start, "for dbos-dbg and --metrics");
  while (sem_wait(&start.is_ready) != 0) {
  }
}

}  // namespace

std::string control_socket_name(unsigned user_id, int process_id) {
  return fmt::format("dbos-run/{}/{}", user_id, process_id);
}

void start_control(Machine& machine, const ControlOptions& options) {
  if (!options.has_socket && !options.metrics) return;
  ThreadStart start{.machine = &machine, .options = &options, .is_ready = {}};
  start_thread(start);
  give_up_control_end();
  if (start.metrics_error != 0) {
    throw StartError::with_code(start.metrics_error, "can't serve --metrics on {}:{}",
                                options.metrics->host, options.metrics->port);
  }
  if (start.control_error != 0) {
    log_line(LogLevel::kWarning, "dbos-dbg can't attach: no socket can be made ({})",
             std::strerror(start.control_error));
  }
}

}  // namespace dbos::vmm
