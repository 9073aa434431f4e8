#include "tools/bench/redis_server.h"

#include <arpa/inet.h>
#include <fmt/core.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <sstream>

#include "tools/bench/timing.h"

namespace dbos::bench {
namespace {

constexpr Seconds kAnswerTimeout{5};
constexpr useconds_t kRetryUs = 50'000;

uint16_t free_port() {
  const Descriptor socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  if (bind(socket.number(), reinterpret_cast<sockaddr*>(&address), size) != 0 ||
      getsockname(socket.number(), reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    throw Failure("no free TCP port");
  }
  return ntohs(address.sin_port);
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
      call({"PING"}, kAnswerTimeout);
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

std::string RedisServer::call(const Command& words, Seconds timeout) {
  Command command = {"redis-cli", "-e", "-p", fmt::format("{}", port_)};
  command.insert(command.end(), words.begin(), words.end());
  return output_of(command, timeout);
}

std::map<std::string, std::string> RedisServer::information(const std::string& section) {
  std::map<std::string, std::string> values;
  std::istringstream lines(call({"INFO", section}, timeout_));
  for (std::string line; std::getline(lines, line);) {
    const size_t colon = line.find(':');
    if (colon == std::string::npos) continue;
    values[line.substr(0, colon)] = line.substr(colon + 1, line.find('\r') - colon - 1);
  }
  return values;
}

}  // namespace dbos::bench
