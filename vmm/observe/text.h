// A line of text in a buffer of fixed size: no allocation, so that it can be written in processes
// that share the VMM's memory and may be killed at any instruction. What does not fit is cut.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace dbos::vmm {

class Text {
 public:
  static constexpr size_t kCapacity = 1000;

  std::string_view view() const { return {data_, size_}; }

  Text& put(char c) {
    if (size_ < kCapacity) data_[size_++] = c;
    return *this;
  }
  Text& put(std::string_view text) {
    for (const char c : text) put(c);
    return *this;
  }
  Text& decimal(int64_t value);
  Text& unsigned_decimal(uint64_t value, int digits_min = 1);
  Text& hex(uint64_t value);
  Text& octal(uint64_t value);
  // As in C, between quotation marks.
  Text& quoted(const uint8_t* bytes, size_t size);

 private:
  Text& digits(uint64_t value, uint64_t base, int digits_min);

  char data_[kCapacity];
  size_t size_ = 0;
};

}  // namespace dbos::vmm
