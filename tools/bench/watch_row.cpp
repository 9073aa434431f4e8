// What it costs that programs can be traced, while nobody traces.
//
// There is no dbos-run without that to compare with. So the row measures, in ring 0, the very code
// that each proxied system call passes for it (begin_watch() and end_watch() in the guest kernel,
// ExitWatch in the VMM), and its bound is a hundredth of what an exit costs: a proxied call less
// one that the guest kernel answers itself.
#include <fmt/core.h>

#include "tools/bench/measures.h"
#include "tools/bench/row.h"
#include "vmm/process/exit_watch.h"

namespace dbos::bench {
namespace {

constexpr double kNsPerUs = 1000;
constexpr double kShareMax = 0.01;
constexpr uint64_t kCallNumber = 110;  // getppid

// As large as in a vCPU's block, and likewise used by one thread.
VcpuCounters counters = {};
ObserveControl control = {};
vmm::ExitStatistics statistics = {};

}  // namespace

Measured measure_watch(Seconds budget) {
  control.ns_multiplier = 1 << 24;
  return {time_batches(budget,
                       [](uint64_t count) {
                         for (uint64_t i = 0; i < count; ++i) {
                           const WatchedCall call = begin_watch(counters, control, kCallNumber);
                           vmm::ExitWatch exit(statistics, vmm::ExitKind::kSystemCall, control);
                           exit.finish();
                           end_watch(counters, control, call, 0);
                           // As if another one might look in between.
                           asm volatile("" : : : "memory");
                         }
                       }),
          {}};
}

Row watch_row() {
  return {"untraced-call",
          "what tracing costs each proxied call while nobody traces",
          "us",
          {MustKind::kOwn},
          [](const Context& context) {
            Samples watch;
            Samples exiting;
            Samples staying;
            for (int round = 0; round < context.rounds; ++round) {
              watch.add(samples_under_dbos(context, "watch"));
              exiting.add(samples_under_dbos(context, "getppid"));
              staying.add(samples_under_dbos(context, "getpid"));
            }
            const double exit_us = (exiting.median() - staying.median()) / kNsPerUs;
            Result result;
            result.dbos = watch.scaled(1 / kNsPerUs);
            result.bound = kShareMax * exit_us;
            result.details["exit_us"] = exit_us;
            result.note = fmt::format("an exit costs {:.2f}: {:.2f} % of it", exit_us,
                                      100 * result.dbos.median() / exit_us);
            return result;
          }};
}

}  // namespace dbos::bench
