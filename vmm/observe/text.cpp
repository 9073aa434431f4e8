#include "vmm/observe/text.h"

namespace dbos::vmm {

Text& Text::digits(uint64_t value, uint64_t base, int digits_min) {
  char reversed[64];
  int count = 0;
  do {
    reversed[count++] = "0123456789abcdef"[value % base];
    value /= base;
  } while (value != 0 || count < digits_min);
  while (count > 0) put(reversed[--count]);
  return *this;
}

Text& Text::decimal(int64_t value) {
  if (value >= 0) return digits(static_cast<uint64_t>(value), 10, 1);
  return put('-').digits(0 - static_cast<uint64_t>(value), 10, 1);
}

Text& Text::unsigned_decimal(uint64_t value, int digits_min) {
  return digits(value, 10, digits_min);
}

Text& Text::hex(uint64_t value) {
  return put("0x").digits(value, 16, 1);
}

Text& Text::octal(uint64_t value) {
  return value == 0 ? put('0') : put('0').digits(value, 8, 1);
}

Text& Text::quoted(const uint8_t* bytes, size_t size) {
  put('"');
  for (size_t i = 0; i < size; ++i) {
    const uint8_t byte = bytes[i];
    switch (byte) {
      case '"':
      case '\\':
        put('\\').put(static_cast<char>(byte));
        break;
      case '\n':
        put("\\n");
        break;
      case '\r':
        put("\\r");
        break;
      case '\t':
        put("\\t");
        break;
      default:
        if (byte >= ' ' && byte < 0x7f) {
          put(static_cast<char>(byte));
        } else {
          put("\\x").digits(byte, 16, 2);
        }
    }
  }
  return put('"');
}

}  // namespace dbos::vmm
