// Text that nobody vouches for, on its way to a terminal or into the log: what a terminal obeys
// (control characters, C1's in UTF-8 among them) and what is no UTF-8 becomes '?'.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace dbos::vmm {

// The bytes of the printable character that `text` begins with; 0: it begins with none.
inline size_t printable_length(std::string_view text) {
  const auto byte = [text](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char first = byte(0);
  if (first < 0x80) return first >= 0x20 && first != 0x7f ? 1 : 0;
  const size_t length = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
  if (first < 0xc2 || first > 0xf4 || length > text.size()) return 0;
  uint32_t code = first & (0x7fu >> length);
  for (size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return 0;
    code = code << 6 | (byte(i) & 0x3f);
  }
  // C1 ends below U+00A0; what could be written shorter is no UTF-8 either.
  constexpr uint32_t kSmallest[] = {0xa0, 0x800, 0x10000};
  return code >= kSmallest[length - 2] ? length : 0;
}

// In place. `kept`: a control character that stays nevertheless.
inline void make_printable(char* text, size_t size, char kept = ' ') {
  for (size_t at = 0; at < size;) {
    const size_t length = text[at] == kept ? 1 : printable_length({text + at, size - at});
    if (length == 0) text[at] = '?';
    at += length == 0 ? 1 : length;
  }
}

inline std::string printable(std::string_view text) {
  std::string result(text);
  make_printable(result.data(), result.size());
  return result;
}

}  // namespace dbos::vmm
