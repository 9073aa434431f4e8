// Starting the program: what execve does in Linux.
#pragma once

#include "guest/lib/types.h"
#include "hypercall/abi.h"

namespace dbos {

// Makes the first process and thread on this vCPU, maps the program and its interpreter, fills the
// initial stack, and starts.
[[noreturn]] void start_program(const BootInformation& boot);

// What the first process was started from, for /proc/self.
const BootInformation& started_program();

// Where things of the program lie, as /proc/self/stat shows them.
struct ProgramLayout {
  u64 code_start, code_end, data_start, data_end;
  u64 brk_start;
  u64 stack_start;
  u64 arguments_start, arguments_end, environment_start, environment_end;
  u64 auxiliary_start, auxiliary_end;
};
const ProgramLayout& program_layout();

}  // namespace dbos
