#include "guest/syscalls/trace.h"

#include "guest/lib/log.h"
#include "guest/memory/user_copy.h"
#include "guest/process/thread.h"
#include "hypercall/syscall_table.h"

namespace dbos {
namespace {

bool is_enabled = false;

// Descriptors, sizes and small flags are read as decimal, addresses as hexadecimal.
void put_argument(LogLine& line, u64 value) {
  constexpr u64 kSmall = 1 << 16;
  const auto number = static_cast<i64>(value);
  if (value < kSmall || (number < 0 && number > -4096)) {
    line.number(number);
  } else {
    line.hex(value);
  }
}

// The return address of a call to nowhere.
u64 top_of_stack(const TrapFrame& frame) {
  const auto word = read_program<u64>(VirtualAddress(frame.rsp));
  return word.is_ok() ? word.value() : 0;
}

}  // namespace

void enable_trace() {
  is_enabled = true;
}

void trace_call(const TrapFrame& frame, i64 result) {
  if (!is_enabled) return;
  LogLine line;
  line.text("[").number(current_thread().thread_id).text("] ");
  const auto number = static_cast<u32>(frame.error_code);
  const syscalls::SystemCall* const call = syscalls::find(number);
  if (call == nullptr) {
    line.text("call ").number(number);
  } else {
    line.text(call->name);
  }
  const u64 arguments[] = {frame.rdi, frame.rsi, frame.rdx, frame.r10, frame.r8, frame.r9};
  const u32 count = call == nullptr ? 6 : call->argument_count;
  line.text("(");
  for (u32 i = 0; i < count; ++i) {
    if (i != 0) line.text(", ");
    put_argument(line, arguments[i]);
  }
  line.text(") = ");
  line.number(result).send();
}

void trace_fault(const TrapFrame& frame, u32 signal, u64 address) {
  if (!is_enabled) return;
  LogLine()
      .text("[")
      .number(current_thread().thread_id)
      .text("] --- signal ")
      .number(signal)
      .text(" at instruction ")
      .hex(frame.rip)
      .text(", address ")
      .hex(address)
      .text(", vector ")
      .number(static_cast<i64>(frame.vector))
      .text(", stack ")
      .hex(frame.rsp)
      .text(" -> ")
      .hex(top_of_stack(frame))
      .text(" ---")
      .send();
}

}  // namespace dbos
