// What the arguments of a traced call point to, cut short: a path, the first bytes of a buffer, a
// small structure.
#pragma once

#include "guest/lib/types.h"
#include "hypercall/observe.h"

namespace dbos {

// Copies from the program's memory what can be had without a page fault, and returns how many
// bytes. (peek_program_bytes; the tests have their own.)
using PeekProgram = u64 (*)(void* destination, VirtualAddress source, u64 size);

// Fills the event's payload from its number, arguments, flags and result.
void capture_payload(TraceEvent& event, PeekProgram peek);

}  // namespace dbos
