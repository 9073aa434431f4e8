// The table, for people and as JSON.
#pragma once

#include <string>
#include <vector>

#include "tools/bench/machine_facts.h"
#include "tools/bench/measures.h"
#include "tools/bench/row.h"

namespace dbos::bench {

struct Line {
  Row row;
  Result result;
};

// Whether all that must be met is met, and nothing failed.
bool all_met(const std::vector<Line>& lines);

// The table in pieces, so that a line can be shown as soon as it is measured.
std::string table_head(const MachineFacts& facts);
std::string table_line(const Line& line);
// As JSON.
std::string json_text(const MachineFacts& facts, const std::vector<Line>& lines);
// What `--measure` prints, for samples_under_dbos().
std::string json_text(const Measure& measure, const Measured& measured);

}  // namespace dbos::bench
