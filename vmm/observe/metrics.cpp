#include "vmm/observe/metrics.h"

#include <asm/unistd.h>
#include <fmt/core.h>

#include <algorithm>
#include <cstring>
#include <utility>

namespace dbos::vmm {
namespace {

double seconds(uint64_t ns) {
  return static_cast<double>(ns) / 1e9;
}

int64_t bytes(int64_t frames) {
  return frames * static_cast<int64_t>(kPageSize);
}

// The upper bounds that are served: 2^8 ns to 2^34 ns (17 s), each four times the one before.
constexpr uint32_t kFirstBit = 8;
constexpr uint32_t kLastBit = 34;
constexpr uint32_t kStep = 2;

}  // namespace

// Writes the samples of one metric after the other.
class MetricsWriter {
 public:
  explicit MetricsWriter(const char* version) : version_(version) {}

  const char* version() const { return version_; }
  void begin(const Metric& metric) {
    metric_ = &metric;
    put("# HELP {} {}\n# TYPE {} {}\n", metric.name, metric.help, metric.name, metric.type);
  }
  template <typename Value>
  void sample(const Value& value) {
    put("{} {}\n", metric_->name, value);
  }
  template <typename Value>
  void sample(std::string_view text, const Value& value) {
    put("{}{{{}=\"{}\"}} {}\n", metric_->name, metric_->label, text, value);
  }
  void histogram(std::string_view text, const LatencyHistogram& latency) {
    const char* const name = metric_->name;
    const char* const label = metric_->label;
    uint64_t below = 0;
    uint32_t bucket = 0;
    for (uint32_t bit = kFirstBit; bit <= kLastBit; bit += kStep) {
      for (; bucket < bit; ++bucket) below += latency.buckets[bucket];
      put("{}_bucket{{{}=\"{}\",le=\"{}\"}} {}\n", name, label, text, seconds(uint64_t{1} << bit),
          below);
    }
    const uint64_t count = count_of(latency);
    put("{}_bucket{{{}=\"{}\",le=\"+Inf\"}} {}\n", name, label, text, count);
    put("{}_sum{{{}=\"{}\"}} {}\n", name, label, text, seconds(latency.total_ns));
    put("{}_count{{{}=\"{}\"}} {}\n", name, label, text, count);
  }
  std::string take() { return std::move(text_); }

 private:
  template <typename... Values>
  void put(std::string_view format, const Values&... values) {
    text_ += fmt::vformat(format, fmt::make_format_args(values...));
  }

  const char* version_;
  std::string text_;
  const Metric* metric_ = nullptr;
};

namespace {

// put(name, CallFigures) for each call that was made, and for clone: what only comes to be with the
// first fork does not increase by it, and alerts on forks would miss that one.
template <typename Put>
void for_each_call(const Figures& figures, Put put) {
  for (uint32_t i = 0; i < figures.calls.size(); ++i) {
    const bool is_shown = figures.calls[i].count != 0 || i == call_index(__NR_clone);
    if (is_shown) put(call_name(i), figures.calls[i]);
  }
}

bool is_snapshot(const SpaceView& space) {
  return space.departure != 0;
}

uint64_t oldest_snapshot_ns(const Figures& figures) {
  uint64_t oldest_ns = 0;
  for (const SpaceView& space : figures.spaces) {
    if (is_snapshot(space)) oldest_ns = std::max(oldest_ns, age_ns(figures, space));
  }
  return oldest_ns;
}

constexpr Metric kMetrics[] = {
    {"dbos_build_info", "gauge", "version", "always 1; which dbos-run this is",
     [](auto& out, auto&) { out.sample(out.version(), 1); }},
    {"dbos_vcpus", "gauge", "", "virtual CPUs that were made so far",
     [](auto& out, auto& figures) { out.sample(figures.vcpus); }},
    {"dbos_vcpus_busy", "gauge", "",
     "of these, those in use: one for each thread, and the helper's once it runs",
     [](auto& out, auto& figures) { out.sample(figures.vcpus_busy); }},
    {"dbos_window_bytes", "gauge", "",
     "address space of file and shared mappings, of which there are 128 GiB",
     [](auto& out, auto& figures) { out.sample(figures.window_bytes); }},
    {"dbos_exits_total", "counter", "kind", "exits from the guest to the VMM",
     [](auto& out, auto& figures) {
       for (uint32_t i = 0; i < kExitKindCount; ++i)
         out.sample(kExitKindNames[i], figures.exits.exits[i]);
     }},
    {"dbos_exit_duration_seconds", "histogram", "kind",
     "time from an exit to the next entry, Linux's part included",
     [](auto& out, auto& figures) {
       for (uint32_t i = 0; i < kExitKindCount; ++i) {
         if (figures.exits.exits[i] != 0)
           out.histogram(kExitKindNames[i], figures.exits.handling[i]);
       }
     }},
    {"dbos_services_total", "counter", "service", "calls of the VMM's own services",
     [](auto& out, auto& figures) {
       for (uint32_t i = 0; i < kServiceCount; ++i)
         out.sample(service_name(i), figures.exits.services[i]);
     }},
    {"dbos_system_calls_total", "counter", "call",
     "system calls of the program, those that the guest kernel did itself included",
     [](auto& out, auto& figures) {
       for_each_call(figures, [&](auto* name, auto& call) { out.sample(name, call.count); });
     }},
    {"dbos_system_call_errors_total", "counter", "call", "of these, those that answered an error",
     [](auto& out, auto& figures) {
       for_each_call(figures, [&](auto* name, auto& call) { out.sample(name, call.failed); });
     }},
    {"dbos_system_call_duration_seconds", "histogram", "call",
     "time from the program's system call to its return",
     [](auto& out, auto& figures) {
       for_each_call(figures, [&](auto* name, auto& call) {
         if (call.timed() != 0 || call.count == 0) out.histogram(name, call.latency);
       });
     }},
    {"dbos_faults_total", "counter", "kind",
     "page faults by what was done about them; of `copied` one for each page, of which one fault "
     "copies up to 16",
     [](auto& out, auto& figures) {
       for (const CounterName& counter : counter_names()) {
         if (std::strcmp(counter.family, "faults") != 0) continue;
         out.sample(counter.label, figures.event(counter.counter));
       }
     }},
    {"dbos_exceptions_total", "counter", "", "exceptions of the program, page faults aside",
     [](auto& out, auto& figures) { out.sample(figures.event(Counter::kExceptions)); }},
    {"dbos_shootdowns_total", "counter", "", "calls of other vCPUs, to flush their TLBs",
     [](auto& out, auto& figures) { out.sample(figures.event(Counter::kShootdowns)); }},
    {"dbos_copy_on_write_bytes_total", "counter", "",
     "memory that was copied because a snapshot or a file shares it",
     [](auto& out, auto& figures) {
       out.sample(figures.event(Counter::kFaultCopied) * kPageSize);
     }},
    {"dbos_copies_limited_total", "counter", "",
     "faults and calls that copied when snapshots kept more than --cow-limit",
     [](auto& out, auto& figures) { out.sample(figures.event(Counter::kCopyLimited)); }},
    {"dbos_copies_delayed_seconds_total", "counter", "",
     "time that such copies were delayed, with --cow-policy throttle",
     [](auto& out, auto& figures) {
       out.sample(seconds(figures.event(Counter::kCopyDelayed_ns)));
     }},
    {"dbos_snapshots_ended_total", "counter", "reason",
     "children that were ended: more was kept than --cow-limit, or no memory was left",
     [](auto& out, auto& figures) {
       out.sample("limit", figures.event(Counter::kEndedForLimit));
       out.sample("memory", figures.event(Counter::kEndedForMemory));
     }},
    {"dbos_memory_limit_bytes", "gauge", "", "what --memory allows",
     [](auto& out, auto& figures) { out.sample(figures.memory_limit_bytes); }},
    {"dbos_memory_bytes", "gauge", "use", "guest memory by its use: pages, tables, kernel or free",
     [](auto& out, auto& figures) {
       out.sample("pages", bytes(figures.gauge(GaugeName::kFramesPages)));
       out.sample("tables", bytes(figures.gauge(GaugeName::kFramesNodes)));
       out.sample("kernel", bytes(figures.gauge(GaugeName::kFramesKernel)));
       out.sample("free", bytes(free_frames(figures)));
     }},
    {"dbos_memory_retired_bytes", "gauge", "use",
     "of the pages and tables, what is kept for snapshots only",
     [](auto& out, auto& figures) {
       out.sample("pages", bytes(figures.gauge(GaugeName::kRetiredPages)));
       out.sample("tables", bytes(figures.gauge(GaugeName::kRetiredNodes)));
     }},
    {"dbos_address_spaces", "gauge", "", "address spaces that live, snapshots included",
     [](auto& out, auto& figures) { out.sample(figures.spaces.size()); }},
    {"dbos_snapshots", "gauge", "", "snapshots that live",
     [](auto& out, auto& figures) {
       out.sample(std::count_if(figures.spaces.begin(), figures.spaces.end(), is_snapshot));
     }},
    {"dbos_snapshots_taken_total", "counter", "", "snapshots taken so far, one for each fork",
     [](auto& out, auto& figures) { out.sample(figures.gauge(GaugeName::kSnapshotsTaken)); }},
    {"dbos_snapshot_tables_total", "counter", "from",
     "the same by where their page tables came from: shared with the parent, or a ready copy",
     [](auto& out, auto& figures) {
       out.sample("shared", figures.event(Counter::kSnapshotShared));
       out.sample("ready", figures.event(Counter::kSnapshotReady));
     }},
    {"dbos_oldest_snapshot_age_seconds", "gauge", "",
     "age of the oldest snapshot that lives; 0: there is none",
     [](auto& out, auto& figures) { out.sample(seconds(oldest_snapshot_ns(figures))); }},
    {"dbos_trace_lost_events_total", "counter", "", "traced calls that found no place in a ring",
     [](auto& out, auto& figures) { out.sample(figures.lost_trace_events); }},
};

}  // namespace

std::span<const Metric> all_metrics() {
  return kMetrics;
}

std::string metrics_text(const Figures& figures, const char* version) {
  MetricsWriter out(version);
  for (const Metric& metric : kMetrics) {
    out.begin(metric);
    metric.put_samples(out, figures);
  }
  return out.take();
}

}  // namespace dbos::vmm
