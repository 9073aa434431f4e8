// The rows about what a snapshot costs its parent, and the machine's memory.
#include <fmt/core.h>
#include <sys/sysinfo.h>

#include "tools/bench/program_row.h"

namespace dbos::bench {
namespace {

constexpr double kBytesPerKiB = 1024;
constexpr double kGiB = 1024 * 1024 * 1024;
// Beside the memory that is forked: its page tables, the guest kernel, this program.
constexpr double kSpareGiB = 0.5;

void need_memory(double gib) {
  struct sysinfo machine = {};
  sysinfo(&machine);
  const double there = static_cast<double>(machine.totalram) * machine.mem_unit / kGiB;
  if (there >= gib) return;
  throw Failure(
      fmt::format("the machine has {:.1f} GiB of memory and the row needs {:.1f}; give dbos-vm "
                  "--memory {:.0f}G",
                  there, gib, gib + 1));
}

// Beside it the part of a fork that no snapshot can save: Linux makes a process.
Row fork_stall_row(const std::string& name, const std::string& size, double gib, Must must = {}) {
  return {name, fmt::format("fork() in a process with {} of 4 KiB pages", size), "us", must,
          [name, gib](const Context& context) {
            // dbos-run takes four fifths of the machine's memory, at most.
            need_memory((gib + kSpareGiB) / 0.8);
            Result result = result_of(run_in_turns(context, {name, name, {}}));
            const Samples process =
                run_plain(context, {"process-stall", "", {}}).samples.scaled(1 / kNsPerUs);
            result.details["linux_process_us"] = process.median();
            result.details["linux_process_min_us"] = process.minimum();
            result.note = fmt::format(
                "a process of Linux's without memory of its own takes {:.0f} ({:.0f}) of it",
                process.median(), process.minimum());
            return result;
          }};
}

// The first round is told apart: in an emulated machine the copies' very first use costs its
// emulator, on both sides.
Row write_fault_row(const std::string& name, const std::string& what, Must must = {}) {
  return {name, what, "us", must, [name](const Context& context) {
            const Pair pair = run_in_turns(context, {name, name, {}});
            Result result = result_of(pair);
            const double plain_first = pair.plain.first.median() / kNsPerUs;
            const double dbos_first = pair.dbos.first.median() / kNsPerUs;
            result.details["linux_first_snapshot_us"] = plain_first;
            result.details["dbos_first_snapshot_us"] = dbos_first;
            result.note = fmt::format(
                "the copies in memory that was used before; in the first snapshot, where it was "
                "not: Linux {:.2f}, dbos {:.2f}",
                plain_first, dbos_first);
            return result;
          }};
}

Row idle_row() {
  return {"snapshot-idle",
          "guest memory of a forked child that does nothing",
          "KiB",
          {MustKind::kValue, 100},
          [](const Context& context) {
            Measured measured;
            for (int round = 0; round < context.rounds; ++round) {
              measured.add(run_under_dbos(context, {"", "snapshot-idle", {}}));
            }
            Result result;
            result.dbos = measured.samples.scaled(1 / kBytesPerKiB);
            const double with_writes = measured.with_writes.median() / kBytesPerKiB;
            result.details["with_written_pages_kib"] = with_writes;
            result.note = fmt::format(
                "of a heap of 256 MiB; with the pages that parent and child write on their way out "
                "of fork(): {:.1f}",
                with_writes);
            return result;
          }};
}

}  // namespace

std::vector<Row> snapshot_rows() {
  return {
      fork_stall_row("fork-stall-64m", "64 MiB", 1.0 / 16),
      fork_stall_row("fork-stall-256m", "256 MiB", 1.0 / 4),
      fork_stall_row("fork-stall-1g", "1 GiB", 1, {MustKind::kRatio, 0.01}),
      fork_stall_row("fork-stall-2g", "2 GiB", 2),
      simple_row("fork-next-call", "the first proxied system call after fork(), 64 MiB",
                 {"fork-next-call", "fork-next-call", {}}),
      write_fault_row("write-fault-snapshot", "first write to a page after fork(), the child scans",
                      {MustKind::kRatio, 0.7}),
      write_fault_row("write-fault-random", "the same, a quarter of the pages, at random"),
      idle_row(),
  };
}

}  // namespace dbos::bench
