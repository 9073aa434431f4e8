// Rows whose program is dbos-bench itself (`--measure NAME`), natively and in ring 0 in turn.
#pragma once

#include <string>

#include "tools/bench/measures.h"
#include "tools/bench/row.h"

namespace dbos::bench {

constexpr double kNsPerUs = 1000;

// What a row measures: under Linux and under dbos the same, or each its own.
struct Programs {
  std::string plain;
  std::string dbos;
  Command options;  // of dbos-run
};

struct Pair {
  Measured plain;
  Measured dbos;
};

// The command line that measures `name`.
Command measuring(const Context& context, const std::string& name);

// All of these throw Failure.
Measured run_command(const Context& context, const std::string& name, const Command& command);
Measured run_plain(const Context& context, const Programs& programs);
Measured run_under_dbos(const Context& context, const Programs& programs);

// They take turns, so that a change of the machine's speed meets both.
Pair run_in_turns(const Context& context, const Programs& programs);

// Its result has the samples in us.
Result result_of(const Pair& pair);

// A row without a note.
Row simple_row(const std::string& name, const std::string& what, const Programs& programs,
               Must must = {});

}  // namespace dbos::bench
