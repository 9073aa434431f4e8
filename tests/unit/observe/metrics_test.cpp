// The metrics' text: Prometheus's syntax, and the documentation of every name.
#include <algorithm>
#include <catch2/catch.hpp>
#include <fstream>
#include <map>
#include <memory>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <tuple>

#include "vmm/control/figures_json.h"
#include "vmm/control/metrics_page.h"
#include "vmm/network_address.h"
#include "vmm/observe/metrics.h"

namespace dbos::vmm {
namespace {

Figures some_figures() {
  Figures figures{};
  const auto counters = std::make_unique<VcpuCounters>();
  counters->calls[0] = 7;
  counters->failed[0] = 2;
  counters->row_for(0).add(300);
  counters->row_for(0).add(5000);
  counters->row_for(0).add(60'000'000'000);
  counters->calls[kCallIndexCount - 1] = 1;
  counters->count(Counter::kFaultCopied);
  counters->count(Counter::kEndedForMemory);
  counters->add(Counter::kExceptions, 11);
  counters->add(Counter::kShootdowns, 12);
  counters->add(Counter::kCopyLimited, 13);
  counters->add(Counter::kSnapshotShared, 14);
  counters->add(Counter::kSnapshotReady, 15);
  counters->add(Counter::kCopyDelayed_ns, 1'500'000'000);
  add_counters(figures, *counters);
  figures.exits.exits[0] = 9;
  figures.exits.handling[0].add(1500);
  figures.exits.services[0] = 16;
  const auto set = [&](GaugeName name, int64_t value) {
    figures.gauges[static_cast<size_t>(name)] = value;
  };
  set(GaugeName::kFramesTotal, 1000);
  set(GaugeName::kFramesPages, 10);
  set(GaugeName::kFramesNodes, 20);
  set(GaugeName::kFramesKernel, 30);
  set(GaugeName::kRetiredPages, 4);
  set(GaugeName::kRetiredNodes, 5);
  set(GaugeName::kSnapshotsTaken, 29);
  figures.memory_limit_bytes = 1 << 30;
  figures.lost_trace_events = 17;
  figures.vcpus = 2;
  figures.vcpus_busy = 1;
  figures.window_bytes = 8192;
  figures.now_ticks = 5'000'000'000;
  figures.ns_multiplier = 1 << 24;
  SpaceView main{};
  SpaceView snapshot{};
  snapshot.departure = 3;
  snapshot.taken_ticks = 2'000'000'000;
  figures.spaces = {snapshot, main};
  return figures;
}

struct Sample {
  std::string name;
  std::string labels;
  double value;
};

// What promtool would complain of; fills the samples.
void check_syntax(const std::string& text, std::vector<Sample>& samples,
                  std::map<std::string, std::string>& types) {
  static const std::regex kHelp("# HELP ([a-z_:][a-z0-9_:]*) .+");
  static const std::regex kType("# TYPE ([a-z_:][a-z0-9_:]*) (counter|gauge|histogram)");
  static const std::regex kSample(
      R"re(([a-z_:][a-z0-9_:]*)(\{[a-z_]+="[^"\\]*"(,[a-z_]+="[^"\\]*")*\})? (-?[0-9.e+-]+))re");
  std::istringstream lines(text);
  std::string helped;
  for (std::string line; std::getline(lines, line);) {
    std::smatch match;
    if (std::regex_match(line, match, kHelp)) {
      helped = match[1];
    } else if (std::regex_match(line, match, kType)) {
      INFO(line);
      REQUIRE(match[1] == helped);
      REQUIRE(types.emplace(match[1], match[2]).second);  // each family once
    } else {
      INFO(line);
      REQUIRE(std::regex_match(line, match, kSample));
      const std::string name = match[1];
      const std::string& family = helped;
      const bool is_histogram = types[family] == "histogram";
      REQUIRE((name == family ||
               (is_histogram && (name == family + "_bucket" || name == family + "_sum" ||
                                 name == family + "_count"))));
      if (types[family] == "counter") REQUIRE(name.ends_with("_total"));
      samples.push_back({name, match[2], std::stod(match[4])});
    }
  }
}

double value_of(const std::vector<Sample>& samples, const std::string& name,
                const std::string& labels = "") {
  for (const Sample& sample : samples) {
    if (sample.name == name && sample.labels == labels) return sample.value;
  }
  FAIL("no sample " << name << labels);
  return 0;
}

std::string document(const char* path = DBOS_METRICS_DOCUMENT) {
  std::ifstream file(path);
  REQUIRE(file.good());
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

}  // namespace

TEST_CASE("metrics have Prometheus's syntax, each series once") {
  std::vector<Sample> samples;
  std::map<std::string, std::string> types;
  const std::string text = metrics_text(some_figures(), "1.2");
  REQUIRE(text.back() == '\n');
  check_syntax(text, samples, types);
  std::set<std::string> series;
  for (const Sample& sample : samples) REQUIRE(series.insert(sample.name + sample.labels).second);
  REQUIRE(types.size() == all_metrics().size());
  for (const auto& [family, type] : types) {
    INFO(family);
    const std::string name = type == "histogram" ? family + "_count" : family;
    REQUIRE(std::any_of(samples.begin(), samples.end(),
                        [&](const Sample& sample) { return sample.name == name; }));
  }
}

TEST_CASE("metrics say what was counted, in base units") {
  std::vector<Sample> samples;
  std::map<std::string, std::string> types;
  check_syntax(metrics_text(some_figures(), "1.2"), samples, types);
  const std::tuple<const char*, const char*, double> kExpected[] = {
      {"build_info", "{version=\"1.2\"}", 1},
      {"vcpus", "", 2},
      {"vcpus_busy", "", 1},
      {"window_bytes", "", 8192},
      {"exits_total", "{kind=\"system_call\"}", 9},
      {"exit_duration_seconds_count", "{kind=\"system_call\"}", 1},
      {"exit_duration_seconds_sum", "{kind=\"system_call\"}", 1.5e-6},
      {"services_total", "{service=\"log\"}", 16},
      {"system_calls_total", "{call=\"read\"}", 7},
      {"system_calls_total", "{call=\"others\"}", 1},
      {"system_calls_total", "{call=\"clone\"}", 0},  // also before the first
      {"system_call_duration_seconds_count", "{call=\"clone\"}", 0},
      {"system_call_errors_total", "{call=\"read\"}", 2},
      {"faults_total", "{kind=\"copied\"}", 1},
      {"faults_total", "{kind=\"fresh\"}", 0},
      {"exceptions_total", "", 11},
      {"shootdowns_total", "", 12},
      {"copy_on_write_bytes_total", "", 4096},
      {"copies_limited_total", "", 13},
      {"copies_delayed_seconds_total", "", 1.5},
      {"snapshots_ended_total", "{reason=\"limit\"}", 0},
      {"snapshots_ended_total", "{reason=\"memory\"}", 1},
      {"memory_limit_bytes", "", 1 << 30},
      {"memory_bytes", "{use=\"pages\"}", 10 * 4096},
      {"memory_bytes", "{use=\"tables\"}", 20 * 4096},
      {"memory_bytes", "{use=\"kernel\"}", 30 * 4096},
      {"memory_bytes", "{use=\"free\"}", 940 * 4096},
      {"memory_retired_bytes", "{use=\"pages\"}", 4 * 4096},
      {"memory_retired_bytes", "{use=\"tables\"}", 5 * 4096},
      {"address_spaces", "", 2},
      {"snapshots", "", 1},
      {"snapshots_taken_total", "", 29},
      {"snapshot_tables_total", "{from=\"shared\"}", 14},
      {"snapshot_tables_total", "{from=\"ready\"}", 15},
      {"oldest_snapshot_age_seconds", "", 3},
      {"trace_lost_events_total", "", 17},
  };
  for (const auto& [name, labels, value] : kExpected) {
    INFO(name << labels);
    REQUIRE(value_of(samples, std::string("dbos_") + name, labels) == Approx(value));
  }
}

TEST_CASE("a histogram's buckets are cumulative and end with its count") {
  std::vector<Sample> samples;
  std::map<std::string, std::string> types;
  check_syntax(metrics_text(some_figures(), "1.2"), samples, types);
  const std::string name = "dbos_system_call_duration_seconds";
  const auto bucket = [&](const std::string& bound) {
    return value_of(samples, name + "_bucket", "{call=\"read\",le=\"" + bound + "\"}");
  };
  REQUIRE(bucket("2.56e-07") == 0);
  REQUIRE(bucket("1.024e-06") == 1);
  REQUIRE(bucket("4.096e-06") == 1);
  REQUIRE(bucket("1.6384e-05") == 2);
  REQUIRE(bucket("17.179869184") == 2);
  REQUIRE(bucket("+Inf") == 3);
  REQUIRE(value_of(samples, name + "_count", "{call=\"read\"}") == 3);
  REQUIRE(value_of(samples, name + "_sum", "{call=\"read\"}") == Approx(60.0000053));
  REQUIRE(bucket("1.024e-06") <= bucket("17.179869184"));
}

TEST_CASE("the documentation has every metric as it is served") {
  const std::string page = document();
  for (const Metric& metric : all_metrics()) {
    const std::string label = metric.label[0] == 0 ? "" : "`" + std::string(metric.label) + "`";
    const std::string row = "| `" + std::string(metric.name) + "` | " + metric.type + " | " +
                            label + " | " + metric.help + " |";
    INFO(row);
    REQUIRE(page.find(row) != std::string::npos);
  }
}

TEST_CASE("the alerts are of metrics that are served, and the documentation has each") {
  const std::string page = document();
  const std::string rules = document(DBOS_ALERTS);
  const auto each = [&](const char* pattern, auto visit) {
    const std::regex regex(pattern);
    for (std::sregex_iterator i(rules.begin(), rules.end(), regex), end; i != end; ++i) {
      INFO(i->str());
      visit((*i)[1].str());
    }
  };
  each("(dbos_[a-z_]+)", [](const std::string& name) {
    const auto is_of = [&](const Metric& metric) {
      const bool is_histogram = std::string(metric.type) == "histogram";
      return name == metric.name ||
             (is_histogram && (name == std::string(metric.name) + "_bucket" ||
                               name == std::string(metric.name) + "_count"));
    };
    REQUIRE(std::any_of(all_metrics().begin(), all_metrics().end(), is_of));
  });
  int count = 0;
  each("expr: ([^\n]+)", [&](const std::string& expression) {
    REQUIRE(page.find("`" + expression + "`") != std::string::npos);
    ++count;
  });
  REQUIRE(count > 10);
}

TEST_CASE("the documentation has every field of the JSON figures") {
  const std::string page = document();
  const auto check_fields = [&](const Json& object) {
    for (const auto& [field, value] : object.items()) {
      INFO(field);
      REQUIRE(page.find("`" + field + "`") != std::string::npos);
    }
  };
  const Figures figures = some_figures();
  const Json snapshots = snapshots_json(figures);
  const Json exits = exits_json(figures);
  const Json calls = calls_json(figures);
  const Json& call = calls["calls"][0];
  for (const Json& object : {frames_json(figures), snapshots, snapshots["snapshots"][0], exits,
                             exits["exits"][0], calls, call, call["latency"]}) {
    check_fields(object);
  }
}

TEST_CASE("metrics are served to GET /metrics alone") {
  const auto text = [] { return std::string("figures\n"); };
  REQUIRE_FALSE(http_answer("GET /metrics HTTP/1.1\r\nHost: x\r\n", text));
  const std::string page = *http_answer("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", text);
  REQUIRE(page.rfind("HTTP/1.1 200 OK\r\n", 0) == 0);
  REQUIRE(page.find("Content-Length: 8\r\n") != std::string::npos);
  REQUIRE(page.ends_with("\r\n\r\nfigures\n"));
  const auto status = [&](const std::string& request) {
    return http_answer(request, text)->substr(9, 3);
  };
  REQUIRE(status("GET /metrics?x=1 HTTP/1.0\r\n\r\n") == "200");
  REQUIRE(status("GET / HTTP/1.1\r\n\r\n") == "404");
  REQUIRE(status("POST /metrics HTTP/1.1\r\n\r\n") == "405");
  REQUIRE(status("\r\n\r\n") == "400");
  REQUIRE(status("GET\r\n\r\n") == "400");
  REQUIRE(status("GET /metrics\r\n\r\n") == "400");
  REQUIRE(status(std::string(kHttpRequestMax, 'x')) == "431");
}

TEST_CASE("an address of --metrics has a port and perhaps a host") {
  const auto parse = [](const std::string& text) {
    const NetworkAddress address = parse_network_address(text);
    return address.host + " " + address.port;
  };
  REQUIRE(parse("9100") == "127.0.0.1 9100");
  REQUIRE(parse(":9100") == "127.0.0.1 9100");
  REQUIRE(parse("0.0.0.0:9100") == "0.0.0.0 9100");
  REQUIRE(parse("[::1]:9100") == "::1 9100");
  for (const char* text : {"", ":", "x:y", "1.2.3.4", "99999", "0", "::1:9100", "1.2.3.4:", "-1"}) {
    INFO(text);
    REQUIRE_THROWS_AS(parse_network_address(text), std::invalid_argument);
  }
  REQUIRE(is_ip_address("127.0.0.1"));
  REQUIRE(is_ip_address("::1"));
  REQUIRE_FALSE(is_ip_address("localhost"));
}

}  // namespace dbos::vmm
