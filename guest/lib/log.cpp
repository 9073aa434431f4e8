#include "guest/lib/log.h"

#include "guest/hypercall.h"
#include "guest/lib/decimal.h"

namespace dbos {

LogLine& LogLine::text(const char* value) {
  while (*value != 0) put(*value++);
  return *this;
}

LogLine& LogLine::hex(u64 value) {
  text("0x");
  int shift = 60;
  while (shift > 0 && (value >> shift) == 0) shift -= 4;
  for (; shift >= 0; shift -= 4) put("0123456789abcdef"[(value >> shift) & 15]);
  return *this;
}

LogLine& LogLine::number(i64 value) {
  u64 magnitude = static_cast<u64>(value);
  if (value < 0) {
    put('-');
    magnitude = 0 - magnitude;
  }
  for (const char digit : Decimal(magnitude)) put(digit);
  return *this;
}

void LogLine::send(LogSeverity severity) {
  hypercall(Service::kLog, host_pointer(text_), size_, static_cast<u64>(severity));
}

}  // namespace dbos
