#include "vmm/control/trace_filter.h"

#include <fmt/core.h>

#include <algorithm>

#include "vmm/observe/call_text.h"

namespace dbos::vmm {
namespace {

constexpr size_t kNamesMax = 256;

uint32_t number_of(const std::string& name) {
  for (uint32_t number = 0; number <= syscalls::kNumberMax; ++number) {
    const auto* const call = syscalls::find(number);
    if (call != nullptr && name == call->name) return number;
  }
  throw CommandError(fmt::format("there is no system call '{:.40}'", name));
}

TracedCalls default_calls(bool in_guest) {
  TracedCalls calls{};
  for (uint32_t number = 0; number <= syscalls::kNumberMax; ++number) {
    const auto* const call = syscalls::find(number);
    const bool is_in_guest = call != nullptr && call->placement.where == syscalls::Where::kGuest;
    if (in_guest || !is_in_guest) calls.add(number);
  }
  return calls;
}

}  // namespace

bool TraceFilter::wants(const TraceEvent& event) const {
  if (process_id && *process_id != event.process_id) return false;
  if (thread_id && *thread_id != event.thread_id) return false;
  return !space_root || *space_root == event.space_root;
}

TraceFilter parse_trace_filter(const Json& arguments) {
  TraceFilter filter{};
  filter.process_id = number_argument(arguments, "process");
  filter.thread_id = number_argument(arguments, "thread");
  filter.space_root = number_argument(arguments, "space");
  const auto names = arguments.find("calls");
  if (names == arguments.end() || names->is_null()) {
    filter.calls = default_calls(flag_argument(arguments, "in_guest"));
    return filter;
  }
  if (!names->is_array() || names->empty() || names->size() > kNamesMax) {
    throw CommandError("\"calls\" is not a list of names of system calls");
  }
  for (const Json& name : *names) {
    if (!name.is_string()) throw CommandError("\"calls\" is not a list of names");
    filter.calls.add(number_of(name.get<std::string>()));
  }
  return filter;
}

Json event_json(const TraceEvent& event, uint32_t ns_multiplier, uint64_t now_ticks,
                uint64_t now_ns) {
  const uint64_t age = now_ticks > event.begin_ticks ? now_ticks - event.begin_ticks : 0;
  Text text;
  put_event(text, event, ns_multiplier);
  Json json = {{"event", (event.flags & kTraceFault) != 0 ? "fault" : "call"},
               {"time_ns", now_ns - std::min(now_ns, ns_of(age, ns_multiplier))},
               {"process", event.process_id},
               {"thread", event.thread_id},
               {"space", event.space_root},
               {"result", event.result},
               {"text", text.view()}};
  if ((event.flags & kTraceFault) != 0) return json;
  Text name;
  put_call_name(name, event.number);
  json["name"] = name.view();
  json["duration_ns"] = duration_ns(event, ns_multiplier);
  json["returns"] = (event.flags & kTraceNoResult) == 0;
  Json arguments = Json::array();
  for (uint32_t i = 0; i < argument_count(event); ++i) {
    Text argument;
    put_argument(argument, event, i);
    arguments.push_back(argument.view());
  }
  json["arguments"] = std::move(arguments);
  return json;
}

}  // namespace dbos::vmm
