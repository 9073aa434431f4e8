// Counts with latencies: `dbos-dbg calls` and `dbos-dbg exits`.
#include <fmt/core.h>

#include <algorithm>

#include "tools/dbos-dbg/show.h"
#include "tools/dbos-dbg/table.h"

namespace dbos::dbg {
namespace {

// The upper bound of the bucket in which this share of the timed ones lies; bucket i is of what
// took less than 2^(i+1) ns.
std::string quantile(const Json& latency, double share) {
  const auto timed = latency["timed"].get<uint64_t>();
  const double wanted = static_cast<double>(timed) * share;
  double seen = 0;
  size_t bucket = 0;
  for (; bucket < latency["buckets"].size(); ++bucket) {
    seen += static_cast<double>(latency["buckets"][bucket].get<uint64_t>());
    if (seen >= wanted) break;
  }
  return "< " + duration_text(uint64_t{2} << bucket);
}

std::vector<std::string> latency_cells(const Json& latency) {
  const auto timed = latency["timed"].get<uint64_t>();
  if (timed == 0) return {"0", "-", "-", "-", "-"};
  return {fmt::format("{}", timed), duration_text(latency["total_ns"].get<uint64_t>() / timed),
          quantile(latency, 0.5), quantile(latency, 0.99), quantile(latency, 1)};
}

std::string count_text(const Json& count, double interval_s) {
  const auto number = count.get<uint64_t>();
  if (interval_s <= 0) return fmt::format("{}", number);
  return fmt::format("{} ({:.0f}/s)", number, static_cast<double>(number) / interval_s);
}

std::vector<Table::Column> with_latency(std::vector<Table::Column> columns) {
  for (const char* title : {"TIMED", "MEAN", "P50", "P99", "MAX"}) {
    columns.push_back({title, Align::kRight});
  }
  return columns;
}

std::vector<Json> by_count(const Json& list) {
  std::vector<Json> sorted;
  for (const Json& entry : list) {
    if (entry["count"].get<int64_t>() > 0) sorted.push_back(entry);
  }
  std::stable_sort(sorted.begin(), sorted.end(), [](const Json& a, const Json& b) {
    return a["count"].get<uint64_t>() > b["count"].get<uint64_t>();
  });
  return sorted;
}

void append(std::vector<std::string>& row, const std::vector<std::string>& more) {
  row.insert(row.end(), more.begin(), more.end());
}

std::string counts_text(const char* title, const Json& counts, double interval_s) {
  std::string text;
  for (const auto& [name, count] : counts.items()) {
    if (count.get<int64_t>() > 0) {
      text += fmt::format("  {} {}", name, count_text(count, interval_s));
    }
  }
  return text.empty() ? "" : bold(title) + text + "\n";
}

const Json* find_named(const Json& list, const Json& name) {
  for (const Json& entry : list) {
    if (entry.is_object() && entry.value("name", Json()) == name) return &entry;
  }
  return nullptr;
}

}  // namespace

std::string calls_text(const Json& calls, double interval_s) {
  Table table(with_latency({{"CALL", Align::kLeft},
                            {"MADE BY", Align::kLeft},
                            {"COUNT", Align::kRight},
                            {"ERRORS", Align::kRight}}));
  for (const Json& call : by_count(calls["calls"])) {
    std::vector<std::string> row = {call["name"], call["where"],
                                    count_text(call["count"], interval_s),
                                    fmt::format("{}", call["failed"].get<uint64_t>())};
    append(row, latency_cells(call["latency"]));
    table.add(row);
  }
  return table.text();
}

std::string exits_text(const Json& exits, double interval_s) {
  Table table(with_latency({{"EXIT", Align::kLeft}, {"COUNT", Align::kRight}}));
  for (const Json& exit : by_count(exits["exits"])) {
    std::vector<std::string> row = {exit["name"], count_text(exit["count"], interval_s)};
    append(row, latency_cells(exit["latency"]));
    table.add(row);
  }
  return table.text() + counts_text("services", exits["services"], interval_s) +
         counts_text("faults  ", exits["faults"], interval_s) +
         counts_text("events  ", exits["events"], interval_s);
}

Json difference(const Json& after, const Json& before) {
  if (after.is_number() && before.is_number()) {
    return after.get<int64_t>() - before.get<int64_t>();
  }
  Json result = after;
  if (after.is_object() && before.is_object()) {
    for (auto& [key, value] : result.items()) {
      if (before.contains(key)) value = difference(value, before[key]);
    }
  } else if (after.is_array() && before.is_array()) {
    for (size_t i = 0; i < result.size(); ++i) {
      const bool is_named = result[i].is_object() && result[i].contains("name");
      const Json* const old = is_named            ? find_named(before, result[i]["name"])
                              : i < before.size() ? &before[i]
                                                  : nullptr;
      if (old != nullptr) result[i] = difference(result[i], *old);
    }
  }
  return result;
}

}  // namespace dbos::dbg
