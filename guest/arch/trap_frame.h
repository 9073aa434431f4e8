// The registers of the program, or of interrupted kernel code, as entry.S saves them: on a system
// call and on every trap alike. The order is that of Linux's pt_regs with the vector added.
#pragma once

#include "guest/lib/types.h"

namespace dbos {

struct TrapFrame {
  u64 r15, r14, r13, r12, rbp, rbx;
  u64 r11, r10, r9, r8, rax, rcx, rdx, rsi, rdi;
  u64 vector;      // 0..255 a trap or interrupt; kSystemCallVector: a system call
  u64 error_code;  // of a trap; for a system call its number (Linux's orig_rax)
  u64 rip, cs, rflags, rsp, ss;
};

// What iretq takes from the stack.
struct ReturnImage {
  u64 rip, cs, rflags, rsp, ss;
};

inline constexpr u64 kSystemCallVector = 0x100;
// A system call whose registers are no longer those that it was made with (a signal handler starts,
// rt_sigreturn, a call that is made again): all of them are restored on the way back.
inline constexpr u64 kRestoredVector = 0x101;

// Added to the vector of an exception that the program made with `int n`, where that shows.
inline constexpr u64 kSoftwareInterrupt = 0x200;

inline constexpr u64 kFlagTrap = 1 << 8;
inline constexpr u64 kFlagInterrupt = 1 << 9;
inline constexpr u64 kFlagDirection = 1 << 10;

}  // namespace dbos
