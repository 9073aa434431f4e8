#include "tools/bench/redis_server.h"

#include <arpa/inet.h>
#include <fmt/core.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <sstream>

#include "tools/bench/timing.h"

namespace dbos::bench {
namespace {

constexpr Seconds kAnswerTimeout{5};
constexpr useconds_t kRetryUs = 50'000;

sockaddr_in loopback(uint16_t port) {
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

uint16_t free_port() {
  const Descriptor socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address = loopback(0);
  socklen_t size = sizeof address;
  if (bind(socket.number(), reinterpret_cast<sockaddr*>(&address), size) != 0 ||
      getsockname(socket.number(), reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    throw Failure("no free TCP port");
  }
  return ntohs(address.sin_port);
}

Descriptor connect_to(uint16_t port, Seconds timeout) {
  Descriptor socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  timeval limit = {};
  limit.tv_sec = static_cast<time_t>(timeout.count()) + 1;
  setsockopt(socket.number(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  const sockaddr_in address = loopback(port);
  if (connect(socket.number(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    throw Failure("redis-server does not listen");
  }
  return socket;
}

// A reply of one line, or of one string: "$LENGTH\r\n" and that many bytes.
bool is_complete(const std::string& reply) {
  const size_t line = reply.find("\r\n");
  if (line == std::string::npos) return false;
  if (reply[0] != '$') return true;
  const long length = std::strtol(reply.c_str() + 1, nullptr, 10);
  return length < 0 || reply.size() >= line + 2 + static_cast<size_t>(length) + 2;
}

std::string body_of(const std::string& reply) {
  const size_t line = reply.find("\r\n");
  if (reply[0] == '$') return reply.substr(line + 2, reply.size() - line - 4);
  std::string text = reply.substr(1, line - 1);
  if (reply[0] == '-') throw Failure("redis-server answered: " + text);
  return text;
}

// The columns of `redis-benchmark --csv`: "test","rps","avg","min","p50","p95","p99","max".
Throughput parse_benchmark(const std::string& csv) {
  constexpr size_t kRps = 1;
  constexpr size_t kP50 = 4;
  constexpr size_t kP99 = 6;
  const size_t header_end = csv.find('\n');
  if (csv.rfind("\"test\"", 0) == 0 && header_end != std::string::npos) {
    std::vector<double> columns;
    std::istringstream line(csv.substr(header_end + 1));
    for (std::string column; std::getline(line, column, ',');) {
      columns.push_back(column.size() < 2 ? 0 : std::strtod(column.c_str() + 1, nullptr));
    }
    if (columns.size() > kP99) return {columns[kRps], columns[kP50], columns[kP99]};
  }
  throw Failure("redis-benchmark printed no numbers: '" + csv.substr(0, 100) + "'");
}

}  // namespace

RedisServer::RedisServer(const Context& context, Kernel kernel, const Command& options)
    : timeout_(context.timeout), port_(free_port()) {
  Command program = {
      "redis-server", "--port", fmt::format("{}", port_), "--bind", "127.0.0.1", "--save", "",
      "--dir",        "/tmp"};
  program.insert(program.end(), options.begin(), options.end());
  process_ = std::make_unique<Process>(
      kernel == Kernel::kLinux ? program : context.under_dbos({}, program), Output::kCapture);
  await_answer(context.timeout);
}

void RedisServer::await_answer(Seconds timeout) {
  const double end = now_ns() + timeout.count() * 1e9;
  for (;;) {
    try {
      call("PING", kAnswerTimeout);
      return;
    } catch (const Failure&) {
      if (!process_->is_alive()) {
        process_->await(kAnswerTimeout);
        throw Failure(process_->how_it_ended());
      }
      if (now_ns() > end) {
        throw Failure(fmt::format("redis-server did not answer in {} s", timeout.count()));
      }
      usleep(kRetryUs);
    }
  }
}

Throughput RedisServer::serve(const Load& load) {
  return parse_benchmark(
      output_of({"redis-benchmark", "-p", fmt::format("{}", port_), "-t", load.test, "-c",
                 fmt::format("{}", load.clients), "-P", fmt::format("{}", load.pipeline), "-n",
                 fmt::format("{}", load.requests), "--csv"},
                timeout_));
}

std::string RedisServer::call(const std::string& command, Seconds timeout) {
  const Descriptor socket = connect_to(port_, timeout);
  const std::string line = command + "\r\n";
  if (send(socket.number(), line.data(), line.size(), MSG_NOSIGNAL) !=
      static_cast<ssize_t>(line.size())) {
    throw Failure("redis-server took no command");
  }
  std::string reply;
  while (!is_complete(reply)) {
    std::array<char, 1 << 14> buffer;
    const ssize_t size = recv(socket.number(), buffer.data(), buffer.size(), 0);
    if (size <= 0) throw Failure("redis-server did not answer " + command);
    reply.append(buffer.data(), static_cast<size_t>(size));
  }
  return body_of(reply);
}

std::map<std::string, std::string> RedisServer::information(const std::string& section) {
  std::map<std::string, std::string> values;
  std::istringstream lines(call("INFO " + section, timeout_));
  for (std::string line; std::getline(lines, line);) {
    const size_t colon = line.find(':');
    if (colon == std::string::npos) continue;
    values[line.substr(0, colon)] = line.substr(colon + 1, line.find('\r') - colon - 1);
  }
  return values;
}

}  // namespace dbos::bench
