// `dbos-dbg trace`: the program's system calls as they end.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tools/dbos-dbg/connection.h"

namespace dbos::dbg {

inline constexpr uint32_t kTraceSecondsMax = 1'000'000'000;

struct TraceOptions {
  std::vector<std::string> calls;  // none: all
  bool in_guest = false;
  bool shows_time = false;
  uint64_t process = 0;  // 0: all, here and below
  uint64_t thread = 0;
  uint64_t space = 0;
  uint64_t count = 0;  // end after so many calls
  double seconds = 0;  // ... or after that long
  bool json = false;
};

// Goes on until that, the program's end, SIGINT or SIGTERM. Prints calls on standard output, and at
// the end how many were lost on standard error. Throws Failure.
void trace(Connection& connection, const TraceOptions& options);

}  // namespace dbos::dbg
