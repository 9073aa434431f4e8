// Lines on the VMM's log. For events that a person should see; never on a hot path.
#pragma once

#include "guest/lib/types.h"
#include "hypercall/abi.h"

namespace dbos {

// A line of at most 240 bytes; what does not fit is cut. Arguments are appended in order.
class LogLine {
 public:
  LogLine& text(const char* value);
  LogLine& hex(u64 value);
  LogLine& number(i64 value);
  // Sends the line, and waits for whoever reads the VMM's standard error. So no lock is held, but
  // in a panic, after which nobody needs it.
  void send(LogSeverity severity = LogSeverity::kWarning);

 private:
  void put(char c) {
    if (size_ < sizeof text_) text_[size_++] = c;
  }
  char text_[240];
  u32 size_ = 0;
};

}  // namespace dbos
