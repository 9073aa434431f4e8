#include "tools/bench/report.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

namespace dbos::bench {
namespace {

constexpr const char* kColumns = "{:<58} {:<10} {:>18} {:>18} {:>7} {:>9}  {}\n";

// Four significant digits, without an exponent.
std::string number(double value) {
  const double size = std::fabs(value);
  if (size >= 1000) return fmt::format("{:.0f}", value);
  if (size >= 100) return fmt::format("{:.1f}", value);
  if (size >= 1) return fmt::format("{:.2f}", value);
  return fmt::format("{:.3f}", value);
}

std::string median_and_minimum(const Samples& samples) {
  if (samples.empty()) return "-";
  if (samples.count() == 1) return number(samples.median());
  return fmt::format("{} ({})", number(samples.median()), number(samples.minimum()));
}

std::string met_text(const Verdict& verdict) {
  if (!verdict.met.has_value()) return "reported";
  return *verdict.met ? "yes" : "NO";
}

nlohmann::json json_of(const Samples& samples) {
  if (samples.empty()) return nullptr;
  return {{"median", samples.median()}, {"min", samples.minimum()}, {"count", samples.count()}};
}

}  // namespace

bool all_met(const std::vector<Line>& lines) {
  return std::all_of(lines.begin(), lines.end(), [](const Line& line) {
    return judge(line.row, line.result).met.value_or(true);
  });
}

std::string table_head(const MachineFacts& facts) {
  return facts.text() + "Linux and dbos: median (minimum).\n\n" +
         fmt::format(fmt::runtime(kColumns), "what", "unit", "Linux", "dbos", "ratio", "must",
                     "met");
}

std::string table_line(const Line& line) {
  const Verdict verdict = judge(line.row, line.result);
  std::string text =
      fmt::format(fmt::runtime(kColumns), line.row.what, line.row.unit,
                  median_and_minimum(line.result.plain), median_and_minimum(line.result.dbos),
                  verdict.ratio ? number(*verdict.ratio) : "-", verdict.must, met_text(verdict));
  if (!line.result.failure.empty()) text += fmt::format("    failed: {}\n", line.result.failure);
  if (!line.result.note.empty()) text += fmt::format("    {}\n", line.result.note);
  return text;
}

std::string json_text(const MachineFacts& facts, const std::vector<Line>& lines) {
  nlohmann::json rows = nlohmann::json::array();
  for (const Line& line : lines) {
    const Verdict verdict = judge(line.row, line.result);
    nlohmann::json row = {{"name", line.row.name},
                          {"what", line.row.what},
                          {"unit", line.row.unit},
                          {"linux", json_of(line.result.plain)},
                          {"dbos", json_of(line.result.dbos)},
                          {"ratio", nullptr},
                          {"must", nullptr},
                          {"met", nullptr},
                          {"details", line.result.details}};
    if (verdict.ratio) row["ratio"] = *verdict.ratio;
    if (!verdict.must.empty()) row["must"] = verdict.must;
    if (verdict.met) row["met"] = *verdict.met;
    if (!line.result.failure.empty()) row["failure"] = line.result.failure;
    if (!line.result.note.empty()) row["note"] = line.result.note;
    rows.push_back(std::move(row));
  }
  const nlohmann::json json = {
      {"machine", facts.json()}, {"rows", std::move(rows)}, {"all_met", all_met(lines)}};
  return json.dump(2);
}

std::string json_text(const Measure& measure, const Measured& measured) {
  const nlohmann::json json = {{"measure", measure.name},
                               {"unit", measure.unit},
                               {"samples", measured.samples.values()},
                               {"first", measured.first.values()},
                               {"with_writes", measured.with_writes.values()}};
  return json.dump();
}

}  // namespace dbos::bench
