// The rows about calls, threads, processes and first writes to memory.
#include <fmt/core.h>

#include <filesystem>

#include "tools/bench/program_row.h"

namespace dbos::bench {
namespace {

// The same program under dbos while dbos-dbg traces all that it does.
Measured run_traced(const Context& context, const std::string& name) {
  const std::string debugger =
      (std::filesystem::path(context.dbos_run).parent_path() / "dbos-dbg").string();
  const char* const script =
      "dbg=$1; shift; \"$@\" & while kill -0 $! 2>/dev/null && "
      "! \"$dbg\" -p $! trace >/dev/null 2>&1; do sleep 0.1; done; wait $!";
  Command command = {"sh", "-c", script, "traced", debugger};
  const Command program = context.under_dbos({}, measuring(context, name));
  command.insert(command.end(), program.begin(), program.end());
  return run_command(context, name, command);
}

// Under dbos the memory that --prefault made present, at its first use. On Linux memory that was
// used before: its very first use would charge Linux with the faults of an emulated machine.
Row first_write_row(const std::string& name, const std::string& what, Must must) {
  return {
      name, what, "us", must, [name](const Context& context) {
        const Pair pair = run_in_turns(context, {name, name, {"--prefault", "640M"}});
        Result result;
        result.plain = pair.plain.samples.scaled(1 / kNsPerUs);
        result.dbos = pair.dbos.first.scaled(1 / kNsPerUs);
        const double plain_first = pair.plain.first.median() / kNsPerUs;
        const double dbos_again = pair.dbos.samples.median() / kNsPerUs;
        result.details["linux_never_used_us"] = plain_first;
        result.details["dbos_used_before_us"] = dbos_again;
        result.note = fmt::format(
            "memory used before: Linux (the row) {:.2f}, dbos {:.2f}; never used: Linux {:.2f}, "
            "dbos (the row) {:.2f}",
            result.plain.median(), dbos_again, plain_first, result.dbos.median());
        return result;
      }};
}

Row traced_row() {
  return {"traced-call",
          "proxied system call while dbos-dbg traces",
          "us",
          {},
          [](const Context& context) {
            const Programs programs = {"getppid", "getppid", {}};
            Result result;
            Samples plain;
            Samples traced;
            Samples untraced;
            for (int round = 0; round < context.rounds; ++round) {
              plain.add(run_plain(context, programs).samples);
              untraced.add(run_under_dbos(context, programs).samples);
              traced.add(run_traced(context, "getppid").samples);
            }
            result.plain = plain.scaled(1 / kNsPerUs);
            result.dbos = traced.scaled(1 / kNsPerUs);
            result.details["dbos_untraced_us"] = untraced.median() / kNsPerUs;
            result.note =
                fmt::format("under dbos without a trace: {:.2f}", untraced.median() / kNsPerUs);
            return result;
          }};
}

}  // namespace

Samples samples_under_dbos(const Context& context, const std::string& measure) {
  return run_under_dbos(context, {measure, measure, {}}).samples;
}

std::vector<Row> measure_rows() {
  const Must twice = {MustKind::kRatio, 2};
  const Must once = {MustKind::kRatio, 1};
  return {
      simple_row("system-call", "system call handled in the guest (getpid; Linux: getppid)",
                 {"getppid", "getpid", {}}, twice),
      simple_row("proxied-call", "proxied system call (getppid: one exit)",
                 {"getppid", "getppid", {}}),
      traced_row(),
      watch_row(),
      first_write_row("first-write-4k", "first write to a fresh 4 KiB page, arena pre-faulted",
                      once),
      first_write_row("first-write-2m", "the same with 2 MiB pages, per 4 KiB", {}),
      simple_row("thread", "thread created and joined", {"thread", "thread", {}}),
      simple_row("fork-wait", "fork of a small process, exit, wait", {"fork", "fork", {}}),
      simple_row("futex", "futex wake until the other thread runs", {"futex", "futex", {}}),
      simple_row("signal", "kill() of oneself, handler run", {"signal", "signal", {}}),
      simple_row("pipe", "pipe ping-pong with a child, round trip", {"pipe", "pipe", {}}),
  };
}

}  // namespace dbos::bench
