// What a client wants to see of the traced calls, and how it gets them.
#pragma once

#include <optional>

#include "vmm/control/control_request.h"
#include "vmm/observe/observation.h"

namespace dbos::vmm {

// What the client wants to see; nothing: everything.
struct TraceFilter {
  TracedCalls calls;
  std::optional<uint64_t> process_id;
  std::optional<uint64_t> thread_id;
  std::optional<uint64_t> space_root;

  bool wants(const TraceEvent& event) const;
};

// From a request: "calls" (names), "in_guest" (also those that need no exit), "process", "thread",
// "space" (a root). Throws CommandError.
TraceFilter parse_trace_filter(const Json& arguments);

// One traced call as the client gets it. `now_*`: the same moment.
Json event_json(const TraceEvent& event, uint32_t ns_multiplier, uint64_t now_ticks,
                uint64_t now_ns);

}  // namespace dbos::vmm
