// The stack that a program starts with: arguments, environment, auxiliary vector.
#pragma once

#include "guest/lib/result.h"
#include "guest/process/program_start.h"

namespace dbos {

class AddressSpace;

struct StackImage {
  u64 top;               // the stack's mapping ends here
  u64 program_headers;   // AT_PHDR
  u64 entry;             // AT_ENTRY
  u64 interpreter_base;  // AT_BASE
  u64 vdso;              // AT_SYSINFO_EHDR; 0: none
};

// Maps the stack of `space`, which must be the active one, fills it, and returns the stack pointer.
// Notes in `layout` where the pieces lie.
Result<u64> write_initial_stack(AddressSpace& space, const BootInformation& boot,
                                const StackImage& image, ProgramLayout& layout);

}  // namespace dbos
