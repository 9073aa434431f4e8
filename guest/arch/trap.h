// Traps.
#pragma once

#include "guest/arch/trap_frame.h"
#include "guest/lib/types.h"
#include "hypercall/abi.h"
#include "hypercall/debug.h"

namespace dbos::arch {

// Interrupt stack table indexes.
inline constexpr u32 kIstTrap = 1;
inline constexpr u32 kIstDoubleFault = 2;
inline constexpr u32 kIstDebug = 3;

inline constexpr u16 kIdtSize = 256 * 16;

// Fills the interrupt descriptor table that all vCPUs share. Once, at boot.
void initialize_interrupt_table();
u64 interrupt_table_address();

enum Vector : u64 {
  kDivideError = 0,
  kDebug = kDebugVector,
  kNonMaskable = 2,
  kBreakpoint = kBreakpointVector,
  kOverflow = 4,
  kBoundRange = 5,
  kInvalidOpcode = 6,
  kDoubleFault = 8,
  kStackFault = 12,
  kGeneralProtection = kGeneralProtectionVector,
  kPageFault = 14,
  kFloatingPoint = 16,
  kAlignmentCheck = 17,
  kMachineCheck = kMachineCheckVector,
  kSimdFloatingPoint = 19,
  kAttention = kAttentionVector,
};

// Page fault error code.
inline constexpr u64 kFaultWrite = 1 << 1;
inline constexpr u64 kFaultUser = 1 << 2;
inline constexpr u64 kFaultReservedBit = 1 << 3;
inline constexpr u64 kFaultFetch = 1 << 4;

// Everything that has to happen before the program runs again: shootdowns, signals, a dying host
// thread.
extern "C" void return_to_program(TrapFrame& frame);
// The code that returns to the program; entry.S.
void declare_return_region();

// Starts the program with these registers; they lie on this vCPU's kernel stack.
extern "C" [[noreturn]] void resume_program(TrapFrame* frame);

// Where a frame lies on this vCPU's kernel stack when the program has entered the kernel.
TrapFrame& top_frame();

// Prints where the guest kernel is and ends the machine.
[[noreturn]] void panic_with_frame(const char* message, const TrapFrame& frame);

}  // namespace dbos::arch
