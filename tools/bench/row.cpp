#include "tools/bench/row.h"

#include <fmt/core.h>

#include <algorithm>
#include <iterator>

namespace dbos::bench {

Command Context::under_dbos(const Command& options, const Command& program) const {
  Command command = {dbos_run};
  command.insert(command.end(), options.begin(), options.end());
  command.emplace_back("--");
  command.insert(command.end(), program.begin(), program.end());
  return command;
}

std::vector<Row> all_rows() {
  std::vector<Row> rows = measure_rows();
  for (Row& row : snapshot_rows()) rows.push_back(std::move(row));
  for (Row& row : redis_rows()) rows.push_back(std::move(row));
  rows.push_back(start_row());
  rows.push_back(memory_row());
  return rows;
}

Verdict judge(const Row& row, const Result& result) {
  Verdict verdict;
  const bool measured = result.failure.empty() && !result.dbos.empty();
  const double bound = row.must.kind == MustKind::kOwn ? result.bound : row.must.bound;
  if (measured && !result.plain.empty() && result.plain.median() > 0) {
    verdict.ratio = result.dbos.median() / result.plain.median();
  }
  switch (row.must.kind) {
    case MustKind::kReported:
      if (!result.failure.empty()) verdict.met = false;
      break;
    case MustKind::kRatio:
      verdict.must = fmt::format("<= {} x", bound);
      verdict.met = verdict.ratio.has_value() && *verdict.ratio <= bound;
      break;
    case MustKind::kValue:
    case MustKind::kOwn:
      verdict.must = measured ? fmt::format("<= {:.4g}", bound) : "";
      verdict.met = measured && result.dbos.median() <= bound;
      break;
  }
  return verdict;
}

}  // namespace dbos::bench
