// dbos-bench-native: what snapshots cost on this host, without a machine around the engine.
#include <fmt/core.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <bit>
#include <cstdio>
#include <string>

#include "tools/bench-native/report.h"
#include "tools/bench/bench_main.h"

namespace dbos::bench {
namespace {

constexpr uint64_t kGiB = uint64_t{1} << 30;

constexpr const char* kDescription =
    R"(Measures the snapshot engine natively, with page tables of up to 128 GiB in 4 KiB pages: the tables
are real, most of the memory behind them is not, so 3 GiB of memory are enough. Linux's fork of as much
memory as fits is measured in the same run. Needs no KVM and no root.)";

constexpr const char* kExamples =
    R"(Examples:
  build/tools/dbos-bench-native
  build/tools/dbos-bench-native --gib 8 --rounds 2 --fork-gib 0.25
  build/tools/dbos-bench-native --json > native.json

Exit status: 0 all bounds met, 1 a bound not met, 2 wrong options or no memory.)";

struct Options {
  TablesOptions tables;
  double fork_gib = -1;  // as much as fits
  bool json = false;
  bool version = false;
};

void declare(CLI::App& app, Options& options) {
  app.set_help_flag("-h,--help", "Print this text and exit");
  app.footer(kExamples);
  app.add_flag("--version", options.version, "Print the version and exit");
  app.add_flag("--json", options.json, "Print JSON instead of the table");
  app.add_option("--gib", options.tables.gib_max, "The largest size, a power of two (default 128)")
      ->type_name("N")
      ->check(CLI::Range(1, 256));
  app.add_option("--rounds", options.tables.rounds, "How often each is measured (default 5)")
      ->type_name("N")
      ->check(CLI::Range(1, 1000));
  app.add_option(
         "--fork-gib", options.fork_gib,
         "Memory for Linux's fork; 0 leaves it out (default: half of what is free, at most 8)")
      ->type_name("SIZE")
      ->check(CLI::Range(0.0, 1024.0));
}

uint64_t fork_bytes(const Options& options) {
  if (options.fork_gib >= 0)
    return static_cast<uint64_t>(options.fork_gib * static_cast<double>(kGiB));
  const uint64_t free = static_cast<uint64_t>(sysconf(_SC_AVPHYS_PAGES)) *
                        static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  return std::min(free / 2, 8 * kGiB);
}

int run(const Options& options) {
  if (options.version) {
    fmt::print("dbos-bench-native {}\n", DBOS_VERSION);
    return 0;
  }
  if (!std::has_single_bit(options.tables.gib_max)) {
    fmt::print(stderr, "dbos-bench-native: --gib {} is not a power of two; write 1, 2, 4 ... 256\n",
               options.tables.gib_max);
    return kUsage;
  }
  Results results;
  results.machine = machine_facts();
  // Before the engine: its memory would be forked too.
  const uint64_t bytes = fork_bytes(options);
  if (bytes != 0) results.linux_fork = measure_linux_fork(bytes, options.tables.rounds);
  results.tables = measure_tables(options.tables);
  if (options.json) {
    fmt::print("{}\n", json_text(results));
  } else {
    fmt::print("{}", text(results));
  }
  const std::vector<Bound> all = bounds(results);
  const bool is_met =
      std::all_of(all.begin(), all.end(), [](const Bound& b) { return b.is_met(); });
  return is_met ? 0 : kNotMet;
}

}  // namespace
}  // namespace dbos::bench

int main(int argc, char** argv) {
  using namespace dbos::bench;
  return bench_main(argc, argv, "dbos-bench-native", kDescription, declare, run);
}
