// How long a program takes to start and end, and where the time goes.
#include <fmt/core.h>

#include "tools/bench/row.h"
#include "tools/bench/timing.h"

namespace dbos::bench {
namespace {

constexpr size_t kRunsMin = 5;
constexpr size_t kRunsMax = 100;

// Commands that take turns.
std::vector<Samples> time_commands(const Context& context, const std::vector<Command>& commands) {
  std::vector<std::vector<double>> times(commands.size());
  const double end = now_ns() + 2 * context.budget.count() * context.rounds * 1e9;
  while (times[0].size() < kRunsMax && (times[0].size() < kRunsMin || now_ns() < end)) {
    for (size_t i = 0; i < commands.size(); ++i) {
      times[i].push_back(milliseconds_of(commands[i], context.timeout));
    }
  }
  return {times.begin(), times.end()};
}

Result measure_start(const Context& context) {
  const Command dynamic_program = {"/bin/true"};
  const Command static_program = {"busybox", "true"};
  const std::vector<Samples> times =
      time_commands(context, {dynamic_program,
                              context.under_dbos({}, dynamic_program),
                              static_program,
                              context.under_dbos({}, static_program),
                              {context.dbos_run, "--version"},
                              {context.dbos_run, "--ring-check"}});
  Result result;
  result.plain = times[0];
  result.dbos = times[1];
  const double plain_static = times[2].median();
  const double dbos_static = times[3].median();
  const double process = times[4].median();
  const double machine = times[5].median();
  result.details = {{"linux_static_ms", plain_static},
                    {"dbos_static_ms", dbos_static},
                    {"dbos_run_version_ms", process},
                    {"dbos_run_ring_check_ms", machine}};
  result.note = fmt::format(
      "dbos-run's own process {:.0f} ms, then machine, kernel and ring check {:.0f}, then a static "
      "program {:.0f} (Linux {:.0f}), then dynamic linking {:.0f} (Linux {:.0f})",
      process, machine - process, dbos_static - machine, plain_static,
      times[1].median() - dbos_static, times[0].median() - plain_static);
  return result;
}

}  // namespace

Row start_row() {
  return {"start", "start and end of /bin/true", "ms", {}, measure_start};
}

}  // namespace dbos::bench
