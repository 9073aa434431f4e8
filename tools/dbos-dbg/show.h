// The answers of the control socket, for people.
#pragma once

#include <string>

#include "tools/dbos-dbg/connection.h"

namespace dbos::dbg {

std::string processes_text(const Json& processes);
std::string maps_text(const Json& maps);
std::string walk_text(const Json& walk);
std::string frames_text(const Json& frames);
std::string snapshots_text(const Json& snapshots);

// `interval_s`: over how long the counts are; 0: since the program's start.
std::string calls_text(const Json& calls, double interval_s);
std::string exits_text(const Json& exits, double interval_s);

// What `after` has more than `before`: numbers are subtracted, lists and objects matched by name.
Json difference(const Json& after, const Json& before);

}  // namespace dbos::dbg
