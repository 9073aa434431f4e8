// One line of the table: what is measured, what it must reach, and what came out.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "tools/bench/command.h"
#include "tools/bench/samples.h"

namespace dbos::bench {

enum class MustKind {
  kReported,  // there is no bound
  kRatio,     // dbos / Linux, at most
  kValue,     // the value under dbos, at most
  kOwn,       // the row works out its bound: Result::bound, in the row's unit
};

struct Must {
  MustKind kind = MustKind::kReported;
  double bound = 0;
};

struct Result {
  Samples plain;  // Linux; empty: it has no such thing
  Samples dbos;
  double bound = 0;
  std::string note;                       // what else was seen, for the reader
  std::map<std::string, double> details;  // the same, for programs
  std::string failure;                    // empty: measured
};

struct Context {
  std::string self;      // this program, for --measure
  std::string dbos_run;  // its path
  Seconds budget;        // for one measurement
  Seconds timeout;       // for one command
  int rounds;            // how often Linux and dbos take turns

  Command under_dbos(const Command& options, const Command& program) const;
};

struct Row {
  std::string name;
  std::string what;
  std::string unit;
  Must must;
  std::function<Result(const Context&)> measure;  // throws Failure
};

// In the order of the table.
std::vector<Row> all_rows();

std::vector<Row> measure_rows();
std::vector<Row> snapshot_rows();
std::vector<Row> redis_rows();
Row watch_row();
Row start_row();
Row memory_row();

// Of `dbos-bench --measure MEASURE`, run under dbos-run once. Throws Failure.
Samples samples_under_dbos(const Context& context, const std::string& measure);

struct Verdict {
  std::optional<double> ratio;  // dbos / Linux
  std::string must;             // as text; empty: only reported
  std::optional<bool> met;
};

Verdict judge(const Row& row, const Result& result);

}  // namespace dbos::bench
