#include "vmm/observe/metrics.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstring>
#include <iterator>

namespace dbos::vmm {
namespace {

// The upper bounds that are served: 2^8 ns to 2^34 ns (17 s), each four times the one before.
constexpr uint32_t kFirstBit = 8;
constexpr uint32_t kLastBit = 34;
constexpr uint32_t kStep = 2;

constexpr Metric kMetrics[] = {
    {"dbos_build_info", "gauge", "version", "always 1; which dbos-run this is"},
    {"dbos_vcpus", "gauge", "", "virtual CPUs that were made so far"},
    {"dbos_vcpus_busy", "gauge", "",
     "of these, those in use: one for each thread, and the helper's once it runs"},
    {"dbos_window_bytes", "gauge", "",
     "address space of file and shared mappings, of which there are 128 GiB"},
    {"dbos_exits_total", "counter", "kind", "exits from the guest to the VMM"},
    {"dbos_exit_duration_seconds", "histogram", "kind",
     "time from an exit to the next entry, Linux's part included"},
    {"dbos_services_total", "counter", "service", "calls of the VMM's own services"},
    {"dbos_system_calls_total", "counter", "call",
     "system calls of the program, those that the guest kernel did itself included"},
    {"dbos_system_call_errors_total", "counter", "call", "of these, those that answered an error"},
    {"dbos_system_call_duration_seconds", "histogram", "call",
     "time from the program's system call to its return"},
    {"dbos_faults_total", "counter", "kind",
     "page faults by what was done about them; of `copied` one for each page, of which one fault "
     "copies up to 16"},
    {"dbos_exceptions_total", "counter", "", "exceptions of the program, page faults aside"},
    {"dbos_shootdowns_total", "counter", "", "calls of other vCPUs, to flush their TLBs"},
    {"dbos_copy_on_write_bytes_total", "counter", "",
     "memory that was copied because a snapshot or a file shares it"},
    {"dbos_copies_limited_total", "counter", "",
     "faults and calls that copied when snapshots kept more than --cow-limit"},
    {"dbos_copies_delayed_seconds_total", "counter", "",
     "time that such copies were delayed, with --cow-policy throttle"},
    {"dbos_snapshots_ended_total", "counter", "reason",
     "children that were ended: more was kept than --cow-limit, or no memory was left"},
    {"dbos_memory_limit_bytes", "gauge", "", "what --memory allows"},
    {"dbos_memory_bytes", "gauge", "use", "guest memory by its use: pages, tables, kernel or free"},
    {"dbos_memory_retired_bytes", "gauge", "use",
     "of the pages and tables, what is kept for snapshots only"},
    {"dbos_address_spaces", "gauge", "", "address spaces that live, snapshots included"},
    {"dbos_snapshots", "gauge", "", "snapshots that live"},
    {"dbos_snapshots_taken_total", "counter", "", "snapshots taken so far, one for each fork"},
    {"dbos_snapshot_tables_total", "counter", "from",
     "the same by where their page tables came from: shared with the parent, or a ready copy"},
    {"dbos_oldest_snapshot_age_seconds", "gauge", "",
     "age of the oldest snapshot that lives; 0: there is none"},
    {"dbos_trace_lost_events_total", "counter", "", "traced calls that found no place in a ring"},
};

class Writer {
 public:
  void begin(const char* name) {
    for (const Metric& metric : kMetrics) {
      if (std::strcmp(metric.name, name) != 0) continue;
      name_ = metric.name;
      put("# HELP {} {}\n# TYPE {} {}\n", name_, metric.help, name_, metric.type);
    }
  }
  template <typename Value>
  void sample(const Value& value) {
    put("{} {}\n", name_, value);
  }
  template <typename Value>
  void sample(const char* label, std::string_view text, const Value& value) {
    put("{}{{{}=\"{}\"}} {}\n", name_, label, text, value);
  }
  void histogram(const char* label, std::string_view text, const LatencyHistogram& latency) {
    uint64_t below = 0;
    uint32_t bucket = 0;
    for (uint32_t bit = kFirstBit; bit <= kLastBit; bit += kStep) {
      for (; bucket < bit; ++bucket) below += latency.buckets[bucket];
      put("{}_bucket{{{}=\"{}\",le=\"{}\"}} {}\n", name_, label, text,
          static_cast<double>(uint64_t{1} << bit) / 1e9, below);
    }
    const uint64_t count = count_of(latency);
    put("{}_bucket{{{}=\"{}\",le=\"+Inf\"}} {}\n", name_, label, text, count);
    put("{}_sum{{{}=\"{}\"}} {}\n", name_, label, text,
        static_cast<double>(latency.total_ns) / 1e9);
    put("{}_count{{{}=\"{}\"}} {}\n", name_, label, text, count);
  }
  std::string take() { return std::move(text_); }

 private:
  template <typename... Values>
  void put(std::string_view format, const Values&... values) {
    text_ += fmt::vformat(format, fmt::make_format_args(values...));
  }

  std::string text_;
  const char* name_ = "";
};

void put_exits(Writer& out, const ExitStatistics& exits) {
  out.begin("dbos_exits_total");
  for (uint32_t i = 0; i < kExitKindCount; ++i)
    out.sample("kind", kExitKindNames[i], exits.exits[i]);
  out.begin("dbos_exit_duration_seconds");
  for (uint32_t i = 0; i < kExitKindCount; ++i) {
    if (exits.exits[i] != 0) out.histogram("kind", kExitKindNames[i], exits.handling[i]);
  }
  out.begin("dbos_services_total");
  for (uint32_t i = 0; i < kServiceCount; ++i)
    out.sample("service", service_name(i), exits.services[i]);
}

void put_calls(Writer& out, const Figures& figures) {
  const auto each = [&](auto put) {
    for (uint32_t i = 0; i < figures.calls.size(); ++i) {
      if (figures.calls[i].count != 0) put(call_name(i), figures.calls[i]);
    }
  };
  out.begin("dbos_system_calls_total");
  each([&](const char* name, const CallFigures& call) { out.sample("call", name, call.count); });
  out.begin("dbos_system_call_errors_total");
  each([&](const char* name, const CallFigures& call) { out.sample("call", name, call.failed); });
  out.begin("dbos_system_call_duration_seconds");
  each([&](const char* name, const CallFigures& call) {
    if (call.timed() != 0) out.histogram("call", name, call.latency);
  });
}

void put_events(Writer& out, const Figures& figures) {
  out.begin("dbos_faults_total");
  for (const CounterName& counter : counter_names()) {
    if (std::strcmp(counter.family, "faults") != 0) continue;
    out.sample("kind", counter.label, figures.event(counter.counter));
  }
  out.begin("dbos_exceptions_total");
  out.sample(figures.event(Counter::kExceptions));
  out.begin("dbos_shootdowns_total");
  out.sample(figures.event(Counter::kShootdowns));
  out.begin("dbos_copy_on_write_bytes_total");
  out.sample(figures.event(Counter::kFaultCopied) * kPageSize);
  out.begin("dbos_copies_limited_total");
  out.sample(figures.event(Counter::kCopyLimited));
  out.begin("dbos_copies_delayed_seconds_total");
  out.sample(static_cast<double>(figures.event(Counter::kCopyDelayed_ns)) / 1e9);
  out.begin("dbos_snapshots_ended_total");
  out.sample("reason", "limit", figures.event(Counter::kEndedForLimit));
  out.sample("reason", "memory", figures.event(Counter::kEndedForMemory));
}

void put_memory(Writer& out, const Figures& figures) {
  const auto bytes = [&](GaugeName name) {
    return figures.gauge(name) * static_cast<int64_t>(kPageSize);
  };
  out.begin("dbos_memory_limit_bytes");
  out.sample(figures.memory_limit_bytes);
  out.begin("dbos_memory_bytes");
  out.sample("use", "pages", bytes(GaugeName::kFramesPages));
  out.sample("use", "tables", bytes(GaugeName::kFramesNodes));
  out.sample("use", "kernel", bytes(GaugeName::kFramesKernel));
  out.sample("use", "free", free_frames(figures) * static_cast<int64_t>(kPageSize));
  out.begin("dbos_memory_retired_bytes");
  out.sample("use", "pages", bytes(GaugeName::kRetiredPages));
  out.sample("use", "tables", bytes(GaugeName::kRetiredNodes));
}

void put_snapshots(Writer& out, const Figures& figures) {
  uint64_t count = 0;
  uint64_t oldest_ns = 0;
  for (const SpaceView& space : figures.spaces) {
    if (space.departure == 0) continue;
    ++count;
    oldest_ns = std::max(oldest_ns, age_ns(figures, space));
  }
  out.begin("dbos_address_spaces");
  out.sample(figures.spaces.size());
  out.begin("dbos_snapshots");
  out.sample(count);
  out.begin("dbos_snapshots_taken_total");
  out.sample(figures.gauge(GaugeName::kSnapshotsTaken));
  out.begin("dbos_snapshot_tables_total");
  out.sample("from", "shared", figures.event(Counter::kSnapshotShared));
  out.sample("from", "ready", figures.event(Counter::kSnapshotReady));
  out.begin("dbos_oldest_snapshot_age_seconds");
  out.sample(static_cast<double>(oldest_ns) / 1e9);
}

}  // namespace

std::span<const Metric> all_metrics() {
  return kMetrics;
}

std::string metrics_text(const Figures& figures, const char* version) {
  Writer out;
  out.begin("dbos_build_info");
  out.sample("version", version, 1);
  out.begin("dbos_vcpus");
  out.sample(figures.vcpus);
  out.begin("dbos_vcpus_busy");
  out.sample(figures.vcpus_busy);
  out.begin("dbos_window_bytes");
  out.sample(figures.window_bytes);
  put_exits(out, figures.exits);
  put_calls(out, figures);
  put_events(out, figures);
  put_memory(out, figures);
  put_snapshots(out, figures);
  out.begin("dbos_trace_lost_events_total");
  out.sample(figures.lost_trace_events);
  return out.take();
}

}  // namespace dbos::vmm
