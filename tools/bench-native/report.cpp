#include "tools/bench-native/report.h"

#include <fmt/core.h>

#include <algorithm>
#include <nlohmann/json.hpp>

namespace dbos::bench {
namespace {

constexpr double kSnapshotLimitUs = 20;
constexpr double kGrowthLimit = 2;    // largest size over 1 GiB
constexpr double kCopyLimit = 1.5;    // over memcpy
constexpr uint64_t kCopyGibMin = 32;  // the tables of less than that stay in the caches

std::string median_and_range(const Samples& samples) {
  return fmt::format("{:.2f} ({:.2f} .. {:.2f})", samples.median(), samples.minimum(),
                     samples.values().back());
}

nlohmann::json json_of(const Samples& samples) {
  return {{"median", samples.median()},
          {"min", samples.minimum()},
          {"max", samples.values().back()},
          {"count", samples.count()}};
}

void bound_time(const char* what, const std::vector<SizeResult>& sizes, Samples SizeResult::*of,
                std::vector<Bound>& bounds) {
  const SizeResult* worst = &sizes.front();
  for (const SizeResult& size : sizes) {
    if ((size.*of).median() > (worst->*of).median()) worst = &size;
  }
  bounds.push_back({fmt::format("{}, worst size ({} GiB)", what, worst->gib), "us",
                    (worst->*of).median(), kSnapshotLimitUs});
}

void bound_growth(const char* what, const std::vector<SizeResult>& sizes, Samples SizeResult::*of,
                  std::vector<Bound>& bounds) {
  bounds.push_back({fmt::format("{}, {} GiB over 1 GiB", what, sizes.back().gib), "times",
                    (sizes.back().*of).median() / (sizes.front().*of).median(), kGrowthLimit});
}

std::vector<FaultResult> all_faults(const Results& results) {
  std::vector<FaultResult> faults = results.tables.faults;
  if (results.linux_fork) {
    const std::vector<FaultResult>& more = results.linux_fork->faults;
    faults.insert(faults.end(), more.begin(), more.end());
  }
  return faults;
}

}  // namespace

std::vector<Bound> bounds(const Results& results) {
  std::vector<Bound> bounds;
  const std::vector<SizeResult>& sizes = results.tables.sizes;
  bound_time("taking a snapshot, shared", sizes, &SizeResult::shared_us, bounds);
  bound_growth("taking a snapshot, shared", sizes, &SizeResult::shared_us, bounds);
  bound_time("handing over a ready copy", sizes, &SizeResult::ready_us, bounds);
  bound_growth("handing over a ready copy", sizes, &SizeResult::ready_us, bounds);
  // Cold caches make it grow, up to what the number of pieces allows.
  bound_time("the same, with all that can be noted to apply", sizes, &SizeResult::noted_us, bounds);
  const SizeResult& largest = sizes.back();
  if (largest.gib >= kCopyGibMin) {
    bounds.push_back({fmt::format("making a copy of {} GiB, over memcpy", largest.gib), "times",
                      largest.copy_ms.median() / largest.memcpy_ms.median(), kCopyLimit});
  }
  return bounds;
}

std::string text(const Results& results) {
  std::string text = results.machine.text() +
                     "Median (minimum .. maximum). The engine's faults are without the trap that "
                     "hardware adds; Linux's are with it.\n\n";
  text += fmt::format("{:>8} {:>10}  {:<24} {:<24} {:<24} {:<28} {:<28}\n", "mapped", "tables",
                      "snapshot, shared, us", "ready, in step, us", "ready, changed, us",
                      "copy made, ms", "memcpy, ms");
  for (const SizeResult& size : results.tables.sizes) {
    text +=
        fmt::format("{:>4} GiB {:>7.1f} MB  {:<24} {:<24} {:<24} {:<28} {:<28}\n", size.gib,
                    static_cast<double>(size.table_bytes) / 1e6, median_and_range(size.shared_us),
                    median_and_range(size.ready_us), median_and_range(size.noted_us),
                    median_and_range(size.copy_ms), median_and_range(size.memcpy_ms));
  }
  text += "\nfirst write of a page after a snapshot, ns\n";
  for (const FaultResult& fault : all_faults(results)) {
    text += fmt::format("  {:<34} {}\n", fault.what, median_and_range(fault.ns));
  }
  if (results.linux_fork) {
    const ForkResult& fork = *results.linux_fork;
    text += fmt::format("\nLinux's fork of {:.1f} GiB in 4 KiB pages: {} ms, {:.1f} ns a page\n",
                        static_cast<double>(fork.pages) / 262144, median_and_range(fork.fork_ms),
                        fork.fork_ms.median() * 1e6 / static_cast<double>(fork.pages));
    text += fmt::format("Linux's making of a process that shares its memory: {} us\n",
                        median_and_range(fork.process_us));
  }
  text += "\n";
  for (const Bound& bound : bounds(results)) {
    text += fmt::format("{:<65} {:>8.2f} {:<5} at most {:<4} {}\n", bound.what, bound.value,
                        bound.unit, bound.limit, bound.is_met() ? "met" : "NOT MET");
  }
  return text;
}

std::string json_text(const Results& results) {
  nlohmann::json sizes = nlohmann::json::array();
  for (const SizeResult& size : results.tables.sizes) {
    sizes.push_back({{"gib", size.gib},
                     {"table_bytes", size.table_bytes},
                     {"shared_us", json_of(size.shared_us)},
                     {"ready_us", json_of(size.ready_us)},
                     {"ready_changed_us", json_of(size.noted_us)},
                     {"copy_ms", json_of(size.copy_ms)},
                     {"memcpy_ms", json_of(size.memcpy_ms)}});
  }
  nlohmann::json faults = nlohmann::json::array();
  for (const FaultResult& fault : all_faults(results)) {
    faults.push_back({{"what", fault.what}, {"ns", json_of(fault.ns)}});
  }
  nlohmann::json limits = nlohmann::json::array();
  for (const Bound& bound : bounds(results)) {
    limits.push_back({{"what", bound.what},
                      {"unit", bound.unit},
                      {"value", bound.value},
                      {"at_most", bound.limit},
                      {"met", bound.is_met()}});
  }
  nlohmann::json json = {{"machine", results.machine.json()},
                         {"sizes", std::move(sizes)},
                         {"faults", std::move(faults)},
                         {"bounds", std::move(limits)},
                         {"linux_fork", nullptr}};
  if (results.linux_fork) {
    json["linux_fork"] = {{"pages", results.linux_fork->pages},
                          {"fork_ms", json_of(results.linux_fork->fork_ms)},
                          {"process_us", json_of(results.linux_fork->process_us)}};
  }
  return json.dump(2);
}

}  // namespace dbos::bench
