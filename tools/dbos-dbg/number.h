// Numbers as people write them: decimal, or hexadecimal with 0x. A zero in front means nothing.
#pragma once

#include <charconv>
#include <cstdint>
#include <optional>
#include <string_view>

namespace dbos::dbg {

// Nothing: it is something else, or has more than 64 bits.
inline std::optional<uint64_t> number_in(std::string_view text) {
  int base = 10;
  if (text.substr(0, 2) == "0x" || text.substr(0, 2) == "0X") {
    base = 16;
    text.remove_prefix(2);
  }
  const char* const end = text.data() + text.size();
  uint64_t value = 0;
  const auto [rest, error] = std::from_chars(text.data(), end, value, base);
  if (error != std::errc() || rest != end) return std::nullopt;
  return value;
}

}  // namespace dbos::dbg
