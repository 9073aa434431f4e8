// What the guest kernel and the VMM's debugger share.
//
// A debugger stops a program thread only between the guest kernel and the program: there the guest
// kernel calls Service::kDebugStop and holds no lock, and the program's registers lie in its
// ProgramFrame. A thread that is in a host call is left in it; it stops when it comes back.
//
// Memory that the host can't reach through the tables (a page that is not there yet, one that the
// address space shares with a snapshot) is read and written by a debug agent: a vCPU that belongs
// to no thread of the program and enters the guest kernel to perform one DebugRequest.
#pragma once

#include <cstdint>

#include "hypercall/layout.h"

namespace dbos {

// HypercallPage::debug; written by the VMM alone.
inline constexpr uint32_t kDebugStopWanted = 1 << 0;  // call kDebugStop before the program runs on
inline constexpr uint32_t kDebugTraps = 1 << 1;       // and for its int3, #DB and signals
inline constexpr uint32_t kDebugAgent = 1 << 2;       // this vCPU performs a DebugRequest

inline constexpr uint64_t kDebugVector = 1;  // #DB: a step, or a debug register
inline constexpr uint64_t kBreakpointVector = 3;

// The first argument of Service::kDebugStop; the second is the vector or the signal.
enum class DebugCause : uint64_t {
  kWanted,  // kDebugStopWanted. The result has no meaning
  kTrap,    // result: kDebugTaken, or kDebugPassed: the program's own, which becomes SIGTRAP
  kSignal,  // result: the signal that the program gets instead, 0: none
};
inline constexpr int64_t kDebugPassed = 0;
inline constexpr int64_t kDebugTaken = 1;

// The program's registers while its thread is in the guest kernel: at the top of the kernel stack.
// The order is that of Linux's pt_regs with the vector added.
struct ProgramFrame {
  uint64_t r15, r14, r13, r12, rbp, rbx;
  uint64_t r11, r10, r9, r8, rax, rcx, rdx, rsi, rdi;
  uint64_t vector;      // kSystemCallVector, kRestoredVector, or 0..255: a trap's
  uint64_t error_code;  // of a trap; for a system call its number (Linux's orig_rax)
  uint64_t rip, cs, rflags, rsp, ss;
};
static_assert(sizeof(ProgramFrame) == 22 * 8);
inline constexpr uint64_t kSystemCallVector = 0x100;
// A system call whose registers are no longer those that it was made with (a signal handler starts,
// rt_sigreturn, a call that is made again): all of them are restored on the way back.
inline constexpr uint64_t kRestoredVector = 0x101;
// Of rflags.
inline constexpr uint64_t kFlagTrap = 1 << 8;
inline constexpr uint64_t kFlagResume = 1 << 16;  // no execution breakpoint at the next instruction

// Guest-physical address of the frame of vCPU `index`.
constexpr uint64_t program_frame_address(uint32_t index) {
  return vcpu_block(index) + kVcpuStackTop - sizeof(ProgramFrame);
}

enum class DebugOperation : uint32_t {
  kRead,
  kWrite,     // also where the program may not: such a page is made private first
  kMappings,  // the mappings from `address` on, as DebugMapping
};

// Lies at the start of the agent's bounce buffer, with the data behind it.
struct DebugRequest {
  DebugOperation operation;
  uint32_t process_id;  // whose address space; nothing is moved if the guest has no such process
  uint64_t address;
  uint64_t length;  // at most kDebugDataMax
  uint64_t done;    // result: bytes that were moved
};

inline constexpr uint32_t kMappingShared = 1 << 0;
inline constexpr uint32_t kMappingDontDump = 1 << 1;  // MADV_DONTDUMP

// One mapping of the program's, as /proc/self/maps tells it.
struct DebugMapping {
  uint64_t begin;
  uint64_t end;
  uint64_t file_offset;
  uint32_t protection;  // PROT_...
  uint32_t flags;       // kMapping...
  char path[256];       // a file's, or "[heap]" and so on; empty: none
};
inline constexpr uint64_t kDebugDataMax = kVcpuBounceSize - sizeof(DebugRequest);

}  // namespace dbos
