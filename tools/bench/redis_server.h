// A redis-server, plain or under dbos-run, that serves one row and is gone after it.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "tools/bench/row.h"

namespace dbos::bench {

enum class Kernel { kLinux, kDbos };

struct Load {
  std::string test;  // "set" or "get"
  uint32_t clients = 50;
  uint32_t pipeline = 1;
  uint64_t requests = 0;
};

struct Throughput {
  double requests_per_s = 0;
  double p50_ms = 0;
  double p99_ms = 0;
};

class RedisServer {
 public:
  // Returns when it answers. `options` are redis-server's. Throws Failure.
  RedisServer(const Context& context, Kernel kernel, const Command& options = {});

  pid_t id() const { return process_->id(); }

  // Runs redis-benchmark, an ordinary process beside the server.
  Throughput serve(const Load& load);

  // What redis-cli prints for one command. Throws Failure, also where the server answers an error.
  std::string call(const Command& words, Seconds timeout);
  std::map<std::string, std::string> information(const std::string& section);

 private:
  void await_answer(Seconds timeout);

  Seconds timeout_;
  uint16_t port_;
  std::unique_ptr<Process> process_;
};

}  // namespace dbos::bench
