// Watching the program's system calls: counts, latencies and, when somebody asked, a trace
// (hypercall/observe.h).
#pragma once

#include "guest/arch/trap_frame.h"
#include "guest/lib/types.h"
#include "hypercall/observe.h"

namespace dbos {

// From a system call's entry to its end.
class CallWatch {
 public:
  explicit CallWatch(const TrapFrame& frame);
  void finish(i64 result) const;

 private:
  void trace(i64 result, u32 flags) const;

  const TrapFrame& frame_;
  u32 number_;
  WatchedCall call_;
};

// A fault of the program that becomes a signal.
void trace_fault(const TrapFrame& frame, u32 signal, u64 address);

}  // namespace dbos
