// The five functions that compilers call behind a program's back. The string instructions need no
// vector registers, which hold the program's state while the kernel runs.
#include <cstddef>

#include "guest/lib/types.h"

extern "C" {

void* memcpy(void* __restrict destination, const void* __restrict source, size_t size) {
  void* d = destination;
  const void* s = source;
  size_t words = size / 8;
  size_t rest = size % 8;
  asm volatile("rep movsq" : "+D"(d), "+S"(s), "+c"(words) : : "memory");
  asm volatile("rep movsb" : "+D"(d), "+S"(s), "+c"(rest) : : "memory");
  return destination;
}

void* memmove(void* destination, const void* source, size_t size) {
  auto* d = static_cast<char*>(destination);
  const auto* s = static_cast<const char*>(source);
  if (d <= s || d >= s + size) return memcpy(destination, source, size);
  for (size_t i = size; i > 0; --i) d[i - 1] = s[i - 1];
  return destination;
}

void* memset(void* destination, int value, size_t size) {
  void* d = destination;
  dbos::u64 pattern = 0x0101010101010101u * static_cast<unsigned char>(value);
  size_t words = size / 8;
  size_t rest = size % 8;
  asm volatile("rep stosq" : "+D"(d), "+c"(words) : "a"(pattern) : "memory");
  asm volatile("rep stosb" : "+D"(d), "+c"(rest) : "a"(pattern) : "memory");
  return destination;
}

int memcmp(const void* left, const void* right, size_t size) {
  const auto* l = static_cast<const unsigned char*>(left);
  const auto* r = static_cast<const unsigned char*>(right);
  for (size_t i = 0; i < size; ++i) {
    if (l[i] != r[i]) return l[i] < r[i] ? -1 : 1;
  }
  return 0;
}

size_t strlen(const char* text) {
  size_t length = 0;
  while (text[length] != 0) ++length;
  return length;
}
}
