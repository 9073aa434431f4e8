#include "guest/syscalls/trace.h"

#include "guest/lib/log.h"
#include "guest/memory/user_copy.h"
#include "guest/process/thread.h"
#include "hypercall/syscall_table.h"

namespace dbos {
namespace {

bool is_enabled = false;

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
  line.text("(")
      .hex(frame.rdi)
      .text(", ")
      .hex(frame.rsi)
      .text(", ")
      .hex(frame.rdx)
      .text(", ")
      .hex(frame.r10)
      .text(", ")
      .hex(frame.r8)
      .text(", ")
      .hex(frame.r9)
      .text(") = ");
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
