#include "tools/bench/program_row.h"

#include <fmt/core.h>

#include <nlohmann/json.hpp>

namespace dbos::bench {

Command measuring(const Context& context, const std::string& name) {
  return {context.self, "--measure", name, "--seconds", fmt::format("{}", context.budget.count())};
}

Measured run_command(const Context& context, const std::string& name, const Command& command) {
  const std::string text = output_of(command, context.timeout);
  const auto json = nlohmann::json::parse(text, nullptr, false);
  if (json.is_discarded() || !json.contains("samples") || json["samples"].empty()) {
    throw Failure(fmt::format("{} printed no result: '{}'", name, text.substr(0, 100)));
  }
  return {Samples(json["samples"].get<std::vector<double>>()),
          Samples(json.value("first", std::vector<double>())),
          Samples(json.value("with_writes", std::vector<double>()))};
}

Measured run_plain(const Context& context, const Programs& programs) {
  return run_command(context, programs.plain, measuring(context, programs.plain));
}

Measured run_under_dbos(const Context& context, const Programs& programs) {
  return run_command(context, programs.dbos,
                     context.under_dbos(programs.options, measuring(context, programs.dbos)));
}

Pair run_in_turns(const Context& context, const Programs& programs) {
  Pair pair;
  for (int round = 0; round < context.rounds; ++round) {
    pair.plain.add(run_plain(context, programs));
    pair.dbos.add(run_under_dbos(context, programs));
  }
  return pair;
}

Result result_of(const Pair& pair) {
  Result result;
  result.plain = pair.plain.samples.scaled(1 / kNsPerUs);
  result.dbos = pair.dbos.samples.scaled(1 / kNsPerUs);
  return result;
}

Row simple_row(const std::string& name, const std::string& what, const Programs& programs,
               Must must) {
  return {name, what, "us", must, [programs](const Context& context) {
            return result_of(run_in_turns(context, programs));
          }};
}

}  // namespace dbos::bench
