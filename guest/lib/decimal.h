// The decimal digits of a number.
#pragma once

#include "guest/lib/types.h"

namespace dbos {

class Decimal {
 public:
  explicit Decimal(u64 value) {
    do {
      digits_[--first_] = static_cast<char>('0' + value % 10);
      value /= 10;
    } while (value != 0);
  }
  const char* begin() const { return digits_ + first_; }
  const char* end() const { return digits_ + kMax; }
  u32 size() const { return kMax - first_; }

 private:
  static constexpr u32 kMax = 20;
  u32 first_ = kMax;
  char digits_[kMax];
};

}  // namespace dbos
