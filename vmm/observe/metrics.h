// The figures as Prometheus's text format (exposition format 0.0.4).
#pragma once

#include <span>
#include <string>

#include "vmm/observe/figures.h"

namespace dbos::vmm {

class MetricsWriter;

struct Metric {
  const char* name;
  const char* type;   // counter, gauge, histogram
  const char* label;  // its name; empty: there is one sample
  const char* help;
  void (*put_samples)(MetricsWriter& out, const Figures& figures);
};

// In the order of the text. docs/metrics.md has the same table; a test compares them.
std::span<const Metric> all_metrics();

std::string metrics_text(const Figures& figures, const char* version);

}  // namespace dbos::vmm
