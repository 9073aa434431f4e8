// What Linux says a descriptor is open on.
#pragma once

#include <asm/unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "vmm/host/host_call.h"

namespace dbos::vmm {

inline void append_number(char*& end, int number) {
  char digits[12];
  int count = 0;
  do {
    digits[count++] = static_cast<char>('0' + number % 10);
    number /= 10;
  } while (number != 0);
  while (count > 0) *end++ = digits[--count];
  *end = 0;
}

constexpr size_t kDescriptorLinkMax = 32;

inline void name_descriptor_link(int descriptor, char (&path)[kDescriptorLinkMax]) {
  static constexpr char kFolder[] = "/proc/self/fd/";
  std::memcpy(path, kFolder, sizeof kFolder);
  char* end = path + sizeof kFolder - 1;
  append_number(end, descriptor);
}

// As much of the link in /proc/self/fd as there is room for. False: it can't be read.
template <size_t kSize>
bool read_descriptor_link(int descriptor, char (&target)[kSize]) {
  char link[kDescriptorLinkMax];
  name_descriptor_link(descriptor, link);
  const int64_t length = raw_call(__NR_readlink, reinterpret_cast<uint64_t>(link),
                                  reinterpret_cast<uint64_t>(target), kSize - 1);
  target[length < 0 ? 0 : length] = 0;
  return length >= 0;
}

}  // namespace dbos::vmm
