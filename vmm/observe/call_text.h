// Traced system calls as text, as strace writes them. Nothing here allocates.
#pragma once

#include "hypercall/observe.h"
#include "vmm/observe/text.h"

namespace dbos::vmm {

// The number of arguments that the call has.
uint32_t argument_count(const TraceEvent& event);

// "read"; "syscall_999" for an unknown number.
void put_call_name(Text& text, uint32_t number);

// One argument: decoded, or as a number. The guest is not trusted: any event will do.
void put_argument(Text& text, const TraceEvent& event, uint32_t index);

// "31", "-1 ENOENT (No such file or directory)", "?".
void put_result(Text& text, const TraceEvent& event);

// "[12] read(5, "GET k\r\n", 16384) = 7 <0.000012>" or
// "[12] --- SIGSEGV {vector 14, address 0x10, instruction 0x401000} ---".
void put_event(Text& text, const TraceEvent& event, uint32_t ns_multiplier);

// Nanoseconds that the call took.
uint64_t duration_ns(const TraceEvent& event, uint32_t ns_multiplier);

}  // namespace dbos::vmm
