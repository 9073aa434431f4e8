// Linux's signal structures and numbers, as the program passes them (x86-64).
#pragma once

#include "guest/lib/types.h"
#include "hypercall/abi.h"

namespace dbos {

struct SignalAction {  // struct sigaction of the rt_sigaction system call
  u64 handler;         // 0: SIG_DFL, 1: SIG_IGN
  u64 flags;
  u64 restorer;
  u64 mask;
};

inline constexpr u64 kHandlerDefault = 0;
inline constexpr u64 kHandlerIgnore = 1;

struct AlternateStack {  // stack_t
  u64 base;
  i32 flags;
  u32 reserved;
  u64 size;
};
static_assert(sizeof(AlternateStack) == 24);

// The numbers that the guest kernel itself must know; <signal.h> is libc's and stays out.
namespace signal_number {
inline constexpr u32 kIll = 4;
inline constexpr u32 kTrap = 5;
inline constexpr u32 kBus = 7;
inline constexpr u32 kFloatingPoint = 8;
inline constexpr u32 kKill = 9;
inline constexpr u32 kSegv = 11;
inline constexpr u32 kChild = 17;
inline constexpr u32 kContinue = 18;
inline constexpr u32 kStop = 19;
inline constexpr u32 kTerminalStop = 20;
inline constexpr u32 kTerminalInput = 21;
inline constexpr u32 kTerminalOutput = 22;
inline constexpr u32 kUrgent = 23;
inline constexpr u32 kWindowChange = 28;
}  // namespace signal_number

// si_code of the signals that the guest kernel makes.
inline constexpr i32 kCodeKernel = 0x80;  // SI_KERNEL
inline constexpr i32 kCodeSegvMapping = 1;
inline constexpr i32 kCodeSegvAccess = 2;
inline constexpr i32 kCodeBusAlignment = 1;
inline constexpr i32 kCodeBusAddress = 2;

namespace action_flag {
inline constexpr u64 kNoChildStop = 0x1;
inline constexpr u64 kNoChildWait = 0x2;
inline constexpr u64 kSignalInfo = 0x4;
inline constexpr u64 kExposeTagBits = 0x800;
inline constexpr u64 kRestorer = 0x04000000;
inline constexpr u64 kOnStack = 0x08000000;
inline constexpr u64 kRestart = 0x10000000;
inline constexpr u64 kNoDefer = 0x40000000;
inline constexpr u64 kResetHandler = 0x80000000;
inline constexpr u64 kKnown = kNoChildStop | kNoChildWait | kSignalInfo | kExposeTagBits |
                              kRestorer | kOnStack | kRestart | kNoDefer | kResetHandler;
}  // namespace action_flag

namespace stack_flag {
inline constexpr u32 kOnStack = 1;
inline constexpr u32 kDisable = 2;
inline constexpr u32 kAutoDisarm = 1u << 31;
}  // namespace stack_flag
inline constexpr AlternateStack kNoAlternateStack = {
    .base = 0, .flags = static_cast<i32>(stack_flag::kDisable), .reserved = 0, .size = 0};
inline constexpr u64 kAlternateStackSizeMin = 2048;  // MINSIGSTKSZ

inline constexpr u64 kUnblockableSignals =
    signal_bit(signal_number::kKill) | signal_bit(signal_number::kStop);

// siginfo_t; the union's part is the one of fault signals.
struct SignalInfo {
  i32 number;
  i32 error;
  i32 code;
  i32 padding;
  u64 fault_address;
  u8 rest[104];
};
static_assert(sizeof(SignalInfo) == 128);

// struct sigcontext.
struct SignalContext {
  u64 r8, r9, r10, r11, r12, r13, r14, r15;
  u64 rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp, rip, rflags;
  u16 cs, gs, fs, ss;
  u64 error_code;
  u64 trap_number;
  u64 old_mask;
  u64 fault_address;
  u64 extended_state;  // pointer to the FXSAVE or XSAVE area, or 0
  u64 reserved[8];
};
static_assert(sizeof(SignalContext) == 256);

// struct ucontext of the kernel: libc's has a longer mask, at the same place.
struct UserContext {
  u64 flags;
  u64 link;
  AlternateStack stack;
  SignalContext registers;
  u64 mask;
};

// uc_flags.
inline constexpr u64 kContextExtendedState = 1;  // UC_FP_XSTATE
inline constexpr u64 kContextStackSegment = 2;   // UC_SIGCONTEXT_SS
inline constexpr u64 kContextStrictStack = 4;    // UC_STRICT_RESTORE_SS

// struct rt_sigframe: what lies on the stack when a handler starts.
struct SignalFrame {
  u64 restorer;
  UserContext context;
  SignalInfo info;
};
static_assert(sizeof(SignalFrame) == 440);

}  // namespace dbos
