// Redis under load: exits per request, throughput and latency.
#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <functional>

#include "tools/bench/kvm_counters.h"
#include "tools/bench/redis_server.h"
#include "tools/bench/row.h"
#include "tools/bench/timing.h"

namespace dbos::bench {
namespace {

constexpr uint32_t kClients = 50;
constexpr uint32_t kPipeline = 16;
constexpr uint64_t kWarmUpRequests = 1000;
constexpr uint64_t kRequestsMax = 5'000'000;
// Fewer would drown in the noise of what is subtracted.
constexpr uint64_t kCountedRequestsMin = 5000;
constexpr useconds_t kIdleUs = 3'000'000;

// So many requests that they take about the budget, judged by a short run, which also makes the
// key that GET reads.
uint64_t requests_for(RedisServer& server, Load load, Seconds budget) {
  load.requests = kWarmUpRequests * load.pipeline;
  server.serve({"set", load.clients, load.pipeline, load.requests});
  const double speed = server.serve(load).requests_per_s;
  return std::clamp(static_cast<uint64_t>(speed * budget.count()), load.requests, kRequestsMax);
}

struct ThroughputSamples {
  std::vector<double> speeds;
  std::vector<double> p50;
  std::vector<double> p99;
};

void measure_throughput(const Context& context, Kernel kernel, Load load,
                        ThroughputSamples& samples) {
  RedisServer server(context, kernel);
  load.requests = requests_for(server, load, context.budget);
  const Throughput throughput = server.serve(load);
  samples.speeds.push_back(throughput.requests_per_s);
  samples.p50.push_back(throughput.p50_ms);
  samples.p99.push_back(throughput.p99_ms);
}

Result measure_load(const Context& context, const Load& load) {
  ThroughputSamples plain;
  ThroughputSamples dbos;
  for (int round = 0; round < context.rounds; ++round) {
    measure_throughput(context, Kernel::kLinux, load, plain);
    measure_throughput(context, Kernel::kDbos, load, dbos);
  }
  Result result;
  result.plain = Samples(plain.speeds);
  result.dbos = Samples(dbos.speeds);
  const double plain_p50 = Samples(plain.p50).median();
  const double plain_p99 = Samples(plain.p99).median();
  const double dbos_p50 = Samples(dbos.p50).median();
  const double dbos_p99 = Samples(dbos.p99).median();
  result.details = {{"linux_p50_ms", plain_p50},
                    {"linux_p99_ms", plain_p99},
                    {"dbos_p50_ms", dbos_p50},
                    {"dbos_p99_ms", dbos_p99}};
  result.note = fmt::format("latency p50: Linux {:.2f} ms, dbos {:.2f}; p99: {:.2f}, {:.2f}",
                            plain_p50, dbos_p50, plain_p99, dbos_p99);
  return result;
}

Row load_row(const std::string& name, const std::string& test, uint32_t pipeline) {
  const std::string upper = test == "set" ? "SET" : "GET";
  const std::string how = pipeline == 1 ? "unpipelined" : fmt::format("-P {}", pipeline);
  return {name,
          fmt::format("redis {}, {} clients, {}", upper, kClients, how),
          "requests/s",
          {},
          [test, pipeline](const Context& context) {
            return measure_load(context, {test, kClients, pipeline, 0});
          }};
}

struct Counts {
  double hypercalls = 0;
  double exits = 0;
  double seconds = 0;
};

Counts count_during(const KvmCounters& counters, const std::function<void()>& work) {
  const double begin = now_ns();
  const uint64_t hypercalls = counters.hypercalls();
  const uint64_t exits = counters.exits();
  work();
  return {static_cast<double>(counters.hypercalls() - hypercalls),
          static_cast<double>(counters.exits() - exits), (now_ns() - begin) / 1e9};
}

struct PerRequest {
  double hypercalls;
  double with_timer;  // hypercalls, with those of redis's timer
  double exits;
};

// What is not a request's is taken out of the count: the clients' connections, by the same run with
// one request per client, and redis's timer (ten times a second), by what it does when idle. On a
// slow machine the timer would count for much.
PerRequest exits_per_request(RedisServer& server, const KvmCounters& counters, const Load& load) {
  const auto requests = static_cast<double>(load.requests);
  const Counts idle = count_during(counters, [] { usleep(kIdleUs); });
  const Load few = {load.test, load.clients, load.pipeline, load.clients};
  const Load many = {load.test, load.clients, load.pipeline, load.clients + load.requests};
  const Counts less = count_during(counters, [&] { server.serve(few); });
  const Counts more = count_during(counters, [&] { server.serve(many); });
  const double share_of_idle = (more.seconds - less.seconds) / idle.seconds;
  const double with_timer = more.hypercalls - less.hypercalls;
  return {(with_timer - idle.hypercalls * share_of_idle) / requests, with_timer / requests,
          (more.exits - less.exits - idle.exits * share_of_idle) / requests};
}

Result measure_exits(const Context& context) {
  RedisServer server(context, Kernel::kDbos);
  const KvmCounters counters(server.id());
  Result result;
  std::vector<double> worse;
  for (const std::string test : {"set", "get"}) {
    Load load = {test, kClients, 1, 0};
    load.requests = std::max(kCountedRequestsMin, requests_for(server, load, context.budget));
    const PerRequest count = exits_per_request(server, counters, load);
    worse.push_back(count.hypercalls);
    result.details[test + "_hypercalls"] = count.hypercalls;
    result.details[test + "_hypercalls_with_redis_timer"] = count.with_timer;
    result.details[test + "_exits_with_those_that_kvm_handles"] = count.exits;
    result.details[test + "_requests"] = static_cast<double>(load.requests);
    result.note += fmt::format(
        "{}{}: {:.2f}, with redis's timer {:.2f}, with what KVM handles {:.2f}",
        result.note.empty() ? "" : "; ", test, count.hypercalls, count.with_timer, count.exits);
  }
  result.dbos = Samples({*std::max_element(worse.begin(), worse.end())});
  return result;
}

}  // namespace

std::vector<Row> redis_rows() {
  return {
      {"redis-exits",
       "exits per redis request, 50 clients, unpipelined",
       "exits",
       {MustKind::kValue, 2.2},
       measure_exits},
      load_row("redis-set", "set", 1),
      load_row("redis-get", "get", 1),
      load_row("redis-set-pipelined", "set", kPipeline),
      load_row("redis-get-pipelined", "get", kPipeline),
  };
}

}  // namespace dbos::bench
