#include "tools/bench/samples.h"

#include <algorithm>
#include <cassert>
#include <utility>

namespace dbos::bench {

Samples::Samples(std::vector<double> values) : sorted_(std::move(values)) {
  std::sort(sorted_.begin(), sorted_.end());
}

void Samples::add(const Samples& more) {
  sorted_.insert(sorted_.end(), more.sorted_.begin(), more.sorted_.end());
  std::sort(sorted_.begin(), sorted_.end());
}

Samples Samples::scaled(double factor) const {
  std::vector<double> values = sorted_;
  for (double& value : values) value *= factor;
  return Samples(std::move(values));
}

double Samples::minimum() const {
  assert(!empty());
  return sorted_.front();
}

double Samples::median() const {
  assert(!empty());
  const size_t middle = sorted_.size() / 2;
  if (sorted_.size() % 2 != 0) return sorted_[middle];
  return (sorted_[middle - 1] + sorted_[middle]) / 2;
}

}  // namespace dbos::bench
