// Text from a file that nobody vouches for, on its way into a message: only printable characters
// reach the terminal.
#pragma once

#include <algorithm>
#include <string>
#include <string_view>

namespace dbos::vmm {

inline std::string printable(std::string_view text) {
  std::string result(text);
  std::replace_if(
      result.begin(), result.end(), [](unsigned char c) { return c < 0x20 || c == 0x7f; }, '?');
  return result;
}

}  // namespace dbos::vmm
