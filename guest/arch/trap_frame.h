// The registers of the program, or of interrupted kernel code, as entry.S saves them: on a system
// call and on every trap alike.
#pragma once

#include "guest/lib/types.h"
#include "hypercall/debug.h"

namespace dbos {

using TrapFrame = ProgramFrame;

// What iretq takes from the stack.
struct ReturnImage {
  u64 rip, cs, rflags, rsp, ss;
};

// Added to the vector of an exception that the program made with `int n`, where that shows.
inline constexpr u64 kSoftwareInterrupt = 0x200;

// Of rflags, with those of hypercall/debug.h.
inline constexpr u64 kFlagInterrupt = 1 << 9;
inline constexpr u64 kFlagDirection = 1 << 10;

}  // namespace dbos
