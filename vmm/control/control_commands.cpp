#include "vmm/control/control_commands.h"

#include <fmt/core.h>
#include <unistd.h>

#include "vmm/control/figures_json.h"
#include "vmm/control/process_list.h"
#include "vmm/observe/metrics.h"
#include "vmm/observe/page_walk.h"
#include "vmm/process/exit_watch.h"
#include "vmm/process/vcpu.h"

namespace dbos::vmm {
namespace {

// "space": a root, a process id, or nothing for the program's first address space.
SpaceView chosen_space(ControlContext& context, const Json& arguments) {
  const KernelReader kernel(context.machine().memory());
  const std::vector<SpaceView> spaces = kernel.spaces();
  if (spaces.empty()) throw CommandError("the guest kernel has no address space yet");
  const uint64_t name = number_argument(arguments, "space").value_or(0);
  const bool is_process = name != 0 && name < kArenaBase;
  const uint64_t root = is_process ? root_of_process(name) : name;
  const SpaceView* const space = is_process && root == 0 ? nullptr : find_space(spaces, root);
  if (space != nullptr) return *space;
  throw CommandError(is_process ? fmt::format("no process {} runs in this machine", name)
                                : fmt::format("there is no address space {:#x}", name));
}

Json hello(ControlContext& context, ControlSession&, const Json&) {
  return {{"protocol", kControlProtocol},
          {"version", DBOS_VERSION},
          {"process", getpid()},
          {"vcpus", vcpus().count()},
          {"memory_limit_bytes", context.machine().arena_size_max()}};
}

Json processes(ControlContext&, ControlSession&, const Json&) {
  return process_list();
}

Json maps(ControlContext& context, ControlSession&, const Json& arguments) {
  const SpaceView space = chosen_space(context, arguments);
  Json list = Json::array();
  for (const VmaView& vma : KernelReader(context.machine().memory()).vmas(space)) {
    const bool is_shared = vma.kind == VmaKind::kWindowShared;
    const char protection[] = {(vma.protection & 1) != 0 ? 'r' : '-',
                               (vma.protection & 2) != 0 ? 'w' : '-',
                               (vma.protection & 4) != 0 ? 'x' : '-', is_shared ? 's' : 'p', 0};
    list.push_back({{"begin", vma.begin},
                    {"end", vma.end},
                    {"protection", protection},
                    {"offset", vma.file_offset},
                    {"name", vma.name}});
  }
  return {{"space", space.root}, {"mappings", std::move(list)}};
}

Json page_walk(ControlContext& context, ControlSession&, const Json& arguments) {
  const auto address = number_argument(arguments, "address");
  if (!address) throw CommandError("\"address\" is missing");
  const SpaceView space = chosen_space(context, arguments);
  const PageWalk walk = walk_page_table(context.machine().memory(), space.root, *address);
  Json steps = Json::array();
  for (const WalkStep& step : walk.steps) {
    steps.push_back({{"level", step.level},
                     {"entry_address", step.entry_address},
                     {"entry", step.entry},
                     {"target", step.entry & 0x000f'ffff'ffff'f000},
                     {"flags", flag_names(step.entry, step.level)}});
  }
  return {{"space", space.root},          {"address", *address},
          {"steps", std::move(steps)},    {"mapped", walk.is_mapped},
          {"writable", walk.is_writable}, {"executable", walk.is_executable},
          {"physical", walk.physical},    {"page_bytes", walk.page_size}};
}

Json frames(ControlContext& context, ControlSession&, const Json&) {
  return frames_json(collect_figures(context.machine()));
}

Json snapshots(ControlContext& context, ControlSession&, const Json&) {
  Json json = snapshots_json(collect_figures(context.machine()));
  for (Json& snapshot : json["snapshots"]) {
    const uint64_t process = process_of_root(snapshot["space"]);
    if (process != 0) snapshot["process"] = process;
  }
  return json;
}

Json exits(ControlContext& context, ControlSession&, const Json&) {
  return exits_json(collect_figures(context.machine()));
}

Json calls(ControlContext& context, ControlSession&, const Json&) {
  return calls_json(collect_figures(context.machine()));
}

Json metrics(ControlContext& context, ControlSession&, const Json&) {
  return metrics_text(collect_figures(context.machine()), DBOS_VERSION);
}

Json time_all(ControlContext& context, ControlSession& session, const Json& arguments) {
  context.time_all(session, flag_argument(arguments, "on"));
  return true;
}

Json trace(ControlContext& context, ControlSession& session, const Json& arguments) {
  TraceFilter filter = parse_trace_filter(arguments);
  if (filter.space_root) filter.space_root = chosen_space(context, arguments).root;
  context.trace().start(session, filter);
  return true;
}

Json trace_stop(ControlContext& context, ControlSession& session, const Json&) {
  context.trace().stop(session);
  return true;
}

struct Command {
  const char* name;
  Json (*perform)(ControlContext& context, ControlSession& session, const Json& arguments);
};
constexpr Command kCommands[] = {
    {"hello", hello},     {"ps", processes},        {"maps", maps},   {"pt", page_walk},
    {"frames", frames},   {"snapshots", snapshots}, {"exits", exits}, {"calls", calls},
    {"metrics", metrics}, {"time_all", time_all},   {"trace", trace}, {"trace_stop", trace_stop},
};

}  // namespace

Json perform_command(ControlContext& context, ControlSession& session,
                     const ControlRequest& request) {
  for (const Command& command : kCommands) {
    if (request.command == command.name) {
      return command.perform(context, session, request.arguments);
    }
  }
  throw CommandError("there is no such command");
}

}  // namespace dbos::vmm
