// The commands that stop the program, from the command line or from a session's prompt.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tools/dbos-dbg/connection.h"

namespace dbos::dbg {

struct DebugOptions {
  uint64_t thread = 0;  // 0: the program's first
  uint64_t stops = 1;   // of break and watch: let the program go after so many
  bool json = false;
};

// Whether a command is one that waits until the program comes to a place: "break" and so on.
bool waits_for_stops(const std::string& command);

// One command (debug_commands.h), for which the program is stopped; after it, it runs on. "break"
// and "watch" wait until they stop it, and show the call chain. Throws Failure.
void debug_once(const Address& address, const std::vector<std::string>& words,
                const DebugOptions& options);

// `commands`, one after the other; without any, those that come on standard input. The first one
// that fails ends it, by Failure; at a terminal it is only told of.
void debug_session(const Address& address, const std::vector<std::string>& commands,
                   const DebugOptions& options);

}  // namespace dbos::dbg
