// dbos-bench: what guest ring 0 costs and saves, beside plain Linux in the same machine.
#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <string>
#include <vector>

#include "tools/bench/bench_main.h"
#include "tools/bench/measures.h"
#include "tools/bench/report.h"

namespace dbos::bench {
namespace {

constexpr const char* kDescription =
    R"(Measures what a program pays and gains in guest ring 0, beside plain Linux in the same machine and
the same run, and says which of the project's bounds are met.

It needs a KVM that runs ring 0 on the processor, as dbos-run does, and root for KVM's counters.
tools/dbos-vm gives both, on any host:
  tools/dbos-vm run --timeout 1800 -- build/tools/dbos-bench)";

constexpr const char* kExamples =
    R"(Examples (in the machine, that is after 'tools/dbos-vm run --'):
  build/tools/dbos-bench --list
  build/tools/dbos-bench --only system-call --only first-write-4k
  build/tools/dbos-bench --only redis --seconds 5 --rounds 3
      'redis' selects all rows whose names begin with it.
  build/tools/dbos-bench --json > bench.json

Reading the table: time is for one operation, the median and (the minimum). 'ratio' is dbos / Linux:
below 1 dbos is faster, but for requests/s it is slower. 'met' is yes or NO where there is a bound
('must'). On an emulated machine absolute numbers mean nothing.

Exit status: 0 all bounds met, 1 a bound not met or a row failed, 2 wrong options, 128 + N if ended
by signal N. Progress goes to standard error.)";

struct Options {
  std::vector<std::string> only;
  std::string measure;
  std::string dbos_run;
  double seconds = 1;
  double timeout_s = 120;
  int rounds = 2;
  bool list = false;
  bool json = false;
  bool version = false;
};

void declare(CLI::App& app, Options& options) {
  app.set_help_flag("-h,--help", "Print this text and exit");
  app.footer(kExamples);
  app.add_flag("--version", options.version, "Print the version and exit");
  app.add_flag("--list", options.list, "Print the rows' names and exit");
  app.add_option("--only", options.only,
                 "Measure only this row, or those whose names begin with NAME-; may be repeated")
      ->type_name("NAME")
      ->allow_extra_args(false);
  app.add_flag("--json", options.json, "Print JSON instead of the table");
  app.add_option("--seconds", options.seconds,
                 "How long one measurement goes on, roughly (default 1)")
      ->type_name("S")
      ->check(CLI::Range(0.01, 600.0));
  app.add_option("--rounds", options.rounds,
                 "How often Linux and dbos take turns in a row (default 2)")
      ->type_name("N")
      ->check(CLI::Range(1, 100));
  app.add_option("--timeout", options.timeout_s,
                 "The longest that one command may take; its row then fails (default 120)")
      ->type_name("S")
      ->check(CLI::Range(1.0, 86400.0));
  app.add_option("--dbos-run", options.dbos_run, "The dbos-run to measure (default: beside us)")
      ->type_name("FILE");
  app.add_option("--measure", options.measure,
                 "Measure one thing here, in this very process, and print JSON: what the rows run "
                 "natively and under dbos-run")
      ->type_name("NAME");
}

int print_measure(const Options& options) {
  for (const Measure& measure : measures()) {
    if (measure.name != options.measure) continue;
    fmt::print("{}\n", json_text(measure, measure.run(Seconds(options.seconds))));
    return 0;
  }
  std::string names;
  for (const Measure& measure : measures()) names += fmt::format(" {}", measure.name);
  fmt::print(stderr, "dbos-bench: there is no measure '{}'; there are:{}\n", options.measure,
             names);
  return kUsage;
}

bool is_selected(const Row& row, const std::string& name) {
  return row.name == name || row.name.rfind(name + "-", 0) == 0;
}

// The rows to measure. Throws Failure for a name that selects none.
std::vector<Row> select(const std::vector<std::string>& names) {
  std::vector<Row> rows = all_rows();
  if (names.empty()) return rows;
  for (const std::string& name : names) {
    if (std::none_of(rows.begin(), rows.end(),
                     [&](const Row& row) { return is_selected(row, name); })) {
      throw Failure(fmt::format("there is no row '{}'; 'dbos-bench --list' names them", name));
    }
  }
  std::vector<Row> selected;
  for (const Row& row : rows) {
    if (std::any_of(names.begin(), names.end(),
                    [&](const std::string& name) { return is_selected(row, name); })) {
      selected.push_back(row);
    }
  }
  return selected;
}

Result measure_row(const Row& row, const Context& context) {
  try {
    return row.measure(context);
  } catch (const std::exception& error) {
    Result result;
    result.failure = error.what();
    return result;
  }
}

// Shows each line of the table as soon as it is there: a run that is cut short is not lost.
std::vector<Line> measure_all(const std::vector<Row>& rows, const Context& context, bool show) {
  std::vector<Line> lines;
  for (const Row& row : rows) {
    fmt::print(stderr, "[{}/{}] {}\n", lines.size() + 1, rows.size(), row.name);
    lines.push_back({row, measure_row(row, context)});
    if (show) fmt::print("{}", table_line(lines.back()));
    std::fflush(stdout);
  }
  return lines;
}

int run(const Options& options) {
  if (options.version) {
    fmt::print("dbos-bench {}\n", DBOS_VERSION);
    return 0;
  }
  if (!options.measure.empty()) return print_measure(options);
  const std::vector<Row> rows = select(options.only);
  if (options.list) {
    for (const Row& row : rows) fmt::print("{:<20} {}\n", row.name, row.what);
    return 0;
  }
  const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe");
  const std::string beside = (self.parent_path() / "dbos-run").string();
  const Context context = {self.string(), options.dbos_run.empty() ? beside : options.dbos_run,
                           Seconds(options.seconds), Seconds(options.timeout_s), options.rounds};
  end_children_with_us();
  const MachineFacts facts = machine_facts();
  if (!options.json) fmt::print("{}", table_head(facts));
  const std::vector<Line> lines = measure_all(rows, context, !options.json);
  if (options.json) fmt::print("{}\n", json_text(facts, lines));
  return all_met(lines) ? 0 : kNotMet;
}

}  // namespace
}  // namespace dbos::bench

int main(int argc, char** argv) {
  using namespace dbos::bench;
  return bench_main(argc, argv, "dbos-bench", kDescription, declare, run);
}
