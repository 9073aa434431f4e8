#include "vmm/control/figures_json.h"

#include <cstring>

namespace dbos::vmm {
namespace {

// Buckets up to the last that is not empty: bucket i counts what took less than 2^(i+1) ns.
Json latency_json(const LatencyHistogram& latency) {
  uint32_t used = LatencyHistogram::kBuckets;
  while (used > 0 && latency.buckets[used - 1] == 0) --used;
  return {{"timed", count_of(latency)},
          {"total_ns", latency.total_ns},
          {"buckets", std::vector<uint64_t>(latency.buckets, latency.buckets + used)}};
}

const char* where_of(uint32_t index) {
  const auto* const call = syscalls::find(index);
  if (call == nullptr) return "refused";
  switch (call->placement.where) {
    case syscalls::Where::kGuest:
      return "guest";
    case syscalls::Where::kRefused:
      return "refused";
    case syscalls::Where::kProxied:
      return "linux";
    case syscalls::Where::kFiltered:
      return "both";
  }
  return "";
}

const SpaceView* space_of_line(const Figures& figures, uint64_t line) {
  for (const SpaceView& space : figures.spaces) {
    if (space.line == line) return &space;
  }
  return nullptr;
}

}  // namespace

Json frames_json(const Figures& figures) {
  return {{"frame_bytes", kPageSize},
          {"limit", figures.memory_limit_bytes / kPageSize},
          {"total", figures.gauge(GaugeName::kFramesTotal)},
          {"free", free_frames(figures)},
          {"pages", figures.gauge(GaugeName::kFramesPages)},
          {"tables", figures.gauge(GaugeName::kFramesNodes)},
          {"kernel", figures.gauge(GaugeName::kFramesKernel)},
          {"retired_pages", figures.gauge(GaugeName::kRetiredPages)},
          {"retired_tables", figures.gauge(GaugeName::kRetiredNodes)}};
}

Json snapshots_json(const Figures& figures) {
  Json list = Json::array();
  for (const SpaceView& space : figures.spaces) {
    if (space.departure == 0) continue;
    const SpaceView* const parent = space_of_line(figures, space.parent_line);
    Json json = {{"space", space.root},
                 {"epoch", space.departure},
                 {"age_ns", age_ns(figures, space)},
                 {"state", parent == nullptr ? "orphaned" : "live"},
                 {"pages", space.pages},
                 {"tables", space.nodes},
                 {"retired_pages", space.retired_pages},
                 {"retired_tables", space.retired_nodes},
                 {"copied_pages", space.copied_pages}};
    if (parent != nullptr) {
      json["parent"] = parent->root;
      json["parent_copied_pages"] = parent->copied_pages - space.parent_copied_pages;
    }
    list.push_back(std::move(json));
  }
  return {{"epoch", figures.gauge(GaugeName::kEpoch)},
          {"taken", figures.gauge(GaugeName::kSnapshotsTaken)},
          {"address_spaces", figures.spaces.size()},
          {"copied_pages", figures.event(Counter::kFaultCopied)},
          {"snapshots", std::move(list)}};
}

Json exits_json(const Figures& figures) {
  Json kinds = Json::array();
  for (uint32_t i = 0; i < kExitKindCount; ++i) {
    kinds.push_back({{"name", kExitKindNames[i]},
                     {"count", figures.exits.exits[i]},
                     {"latency", latency_json(figures.exits.handling[i])}});
  }
  Json services = Json::object();
  for (uint32_t i = 0; i < kServiceCount; ++i) {
    if (figures.exits.services[i] != 0) services[service_name(i)] = figures.exits.services[i];
  }
  Json result = {{"exits", std::move(kinds)}, {"services", std::move(services)}};
  for (const CounterName& counter : counter_names()) {
    const bool is_one_of_some = *counter.label != '\0';
    Json& group = result[is_one_of_some ? counter.family : "events"];
    group[is_one_of_some ? counter.label : counter.family] = figures.event(counter.counter);
  }
  return result;
}

Json calls_json(const Figures& figures) {
  Json list = Json::array();
  for (uint32_t i = 0; i < figures.calls.size(); ++i) {
    const CallFigures& call = figures.calls[i];
    if (call.count == 0) continue;
    list.push_back({{"name", call_name(i)},
                    {"where", where_of(i)},
                    {"count", call.count},
                    {"failed", call.failed},
                    {"latency", latency_json(call.latency)}});
  }
  return {{"calls", std::move(list)}, {"others", latency_json(figures.other_calls)}};
}

}  // namespace dbos::vmm
