// Clients that set values of 1 kB in a redis-server, one request at a time each, until standard
// input ends; then one line a request, `start_ns,latency_ns,client`, in the file named.
//
//   dbos-redis-latency PORT CLIENTS KEYS NOISE CSV
//
// start_ns is CLOCK_MONOTONIC's, so the caller can say what the server did meanwhile. The keys are
// those of tools/demo-inside, `key:` and eight digits, and so are the values: the eight digits,
// then 992 bytes of the file NOISE. One thread does it all: what it adds to a latency is the same
// for each server.
#include <arpa/inet.h>
#include <fmt/core.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <fstream>
#include <iterator>
#include <random>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "tools/bench/command.h"

namespace dbos::bench {
namespace {

constexpr size_t kValueBytes = 1000;
constexpr size_t kDigits = 8;
constexpr size_t kStride = 7919;
constexpr uint64_t kKeysMax = 99'999'999;
constexpr int kSilenceMaxMs = 300'000;
constexpr std::string_view kOk = "+OK\r\n";

uint64_t monotonic_ns() {
  timespec now = {};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}

struct Sample {
  uint64_t start_ns;
  uint64_t latency_ns;
  size_t client;
};

class Client {
 public:
  explicit Client(uint16_t port) : socket_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    const int yes = 1;
    setsockopt(socket_.number(), IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(socket_.number(), reinterpret_cast<const sockaddr*>(&address), sizeof address)) {
      throw Failure(fmt::format("cannot connect to port {}: {}", port, std::strerror(errno)));
    }
  }

  int socket() const { return socket_.number(); }

  void set(uint64_t key, std::string_view noise) {
    const std::string digits = fmt::format("{:0{}}", key, kDigits);
    const size_t offset = key * kStride % (noise.size() - kValueBytes);
    const std::string request =
        fmt::format("*3\r\n$3\r\nSET\r\n$12\r\nkey:{}\r\n${}\r\n{}{}\r\n", digits, kValueBytes,
                    digits, noise.substr(offset, kValueBytes - kDigits));
    start_ns_ = monotonic_ns();
    // 1 kB on a connection with nothing under way fits the socket's buffer.
    if (send(socket(), request.data(), request.size(), MSG_NOSIGNAL) !=
        static_cast<ssize_t>(request.size())) {
      throw Failure(fmt::format("the server took no request: {}", std::strerror(errno)));
    }
  }

  // Whether the reply is complete now. Its start is kept.
  bool receive() {
    std::array<char, 256> buffer;
    const ssize_t size = recv(socket(), buffer.data(), buffer.size(), 0);
    if (size <= 0) throw Failure("the server closed a connection");
    reply_.append(buffer.data(), static_cast<size_t>(size));
    if (reply_.size() < 2 || !reply_.ends_with("\r\n")) return false;
    if (reply_ != kOk) throw Failure("the server answered: " + reply_.substr(0, reply_.size() - 2));
    reply_.clear();
    return true;
  }

  uint64_t start_ns() const { return start_ns_; }

 private:
  Descriptor socket_;
  std::string reply_;
  uint64_t start_ns_ = 0;
};

std::vector<Sample> sample_until_input_ends(std::vector<Client>& clients, uint64_t keys,
                                            std::string_view noise) {
  std::mt19937_64 random(1);
  std::vector<Sample> samples;
  std::vector<pollfd> events;
  for (Client& client : clients) {
    events.push_back({client.socket(), POLLIN, 0});
    client.set(random() % keys, noise);
  }
  events.push_back({STDIN_FILENO, POLLIN, 0});
  while (events.back().revents == 0) {
    const int ready = poll(events.data(), events.size(), kSilenceMaxMs);
    if (ready == 0) throw Failure(fmt::format("no reply within {} s", kSilenceMaxMs / 1000));
    if (ready < 0 && errno != EINTR) throw Failure(std::strerror(errno));
    for (size_t i = 0; i < clients.size(); ++i) {
      if (events[i].revents == 0 || !clients[i].receive()) continue;
      const uint64_t now = monotonic_ns();
      samples.push_back({clients[i].start_ns(), now - clients[i].start_ns(), i});
      clients[i].set(random() % keys, noise);
    }
  }
  return samples;
}

uint64_t number(const char* text, uint64_t maximum) {
  char* end = nullptr;
  const uint64_t value = std::strtoull(text, &end, 10);
  if (*text < '0' || *text > '9' || *end != '\0' || value == 0 || value > maximum) {
    throw Failure(fmt::format("'{}' is no number from 1 to {}", text, maximum));
  }
  return value;
}

std::string contents(const char* path) {
  std::ifstream file(path, std::ios::binary);
  std::string text{std::istreambuf_iterator<char>(file), {}};
  if (text.size() <= kValueBytes) throw Failure(fmt::format("{} is too short", path));
  return text;
}

void write_samples(const char* path, const std::vector<Sample>& samples) {
  std::ofstream file(path);
  for (const Sample& sample : samples) {
    file << sample.start_ns << ',' << sample.latency_ns << ',' << sample.client << '\n';
  }
  if (!file.flush()) throw Failure(fmt::format("cannot write {}", path));
}

int run(int argc, char** argv) {
  if (argc != 6) throw Failure("usage: dbos-redis-latency PORT CLIENTS KEYS NOISE CSV");
  const auto port = static_cast<uint16_t>(number(argv[1], UINT16_MAX));
  const uint64_t count = number(argv[2], 1000);
  const uint64_t keys = number(argv[3], kKeysMax);
  const std::string noise = contents(argv[4]);
  std::vector<Client> clients;
  for (uint64_t i = 0; i < count; ++i) clients.emplace_back(port);
  write_samples(argv[5], sample_until_input_ends(clients, keys, noise));
  return 0;
}

}  // namespace
}  // namespace dbos::bench

int main(int argc, char** argv) {
  try {
    return dbos::bench::run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "dbos-redis-latency: %s\n", error.what());
    return 1;
  }
}
