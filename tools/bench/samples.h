// Repeated measurements of one quantity.
#pragma once

#include <cstddef>
#include <vector>

namespace dbos::bench {

class Samples {
 public:
  Samples() = default;
  explicit Samples(std::vector<double> values);  // in any order

  void add(const Samples& more);
  Samples scaled(double factor) const;

  bool empty() const { return sorted_.empty(); }
  size_t count() const { return sorted_.size(); }
  double minimum() const;
  double median() const;
  const std::vector<double>& values() const { return sorted_; }

 private:
  std::vector<double> sorted_;
};

}  // namespace dbos::bench
