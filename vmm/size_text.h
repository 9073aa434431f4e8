// Sizes as people write them: 4096, 512M, 2GiB, 80%.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string_view>

namespace dbos::vmm {

// what(): a sentence that says what is wrong with the size, and how to write one.
class SizeError : public std::invalid_argument {
 public:
  using std::invalid_argument::invalid_argument;
};

// Bytes. K, M, G, T, also as KiB and so on and in small letters, are powers of 1024; a percentage
// is one of `whole`, at most 100. Throws SizeError.
uint64_t parse_size(std::string_view text, uint64_t whole);

}  // namespace dbos::vmm
