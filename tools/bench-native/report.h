// The results and the bounds that they must meet, for people and as JSON.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "tools/bench-native/measures.h"
#include "tools/bench/machine_facts.h"

namespace dbos::bench {

// "taking a snapshot at 128 GiB: 7.1 us, at most 20".
struct Bound {
  std::string what;
  std::string unit;
  double value = 0;
  double limit = 0;
  bool is_met() const { return value <= limit; }
};

struct Results {
  MachineFacts machine;
  TablesResult tables;
  std::optional<ForkResult> linux_fork;
};

std::vector<Bound> bounds(const Results& results);
std::string text(const Results& results);
std::string json_text(const Results& results);

}  // namespace dbos::bench
