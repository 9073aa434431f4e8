// The figures as Prometheus's text format (exposition format 0.0.4).
#pragma once

#include <span>
#include <string>

#include "vmm/observe/figures.h"

namespace dbos::vmm {

struct Metric {
  const char* name;
  const char* type;    // counter, gauge, histogram
  const char* labels;  // their names, for the documentation
  const char* help;
};

// In the order of the text. docs/metrics.md has the same table; a test compares them.
std::span<const Metric> all_metrics();

std::string metrics_text(const Figures& figures, const char* version);

}  // namespace dbos::vmm
