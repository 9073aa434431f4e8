// The per-CPU data: one per vCPU, in its block, found from the kernel stack pointer by a mask. The
// GS base holds it too, but only for the four instructions at the system call entry that need it,
// so that GS stays the program's.
#pragma once

#include <atomic>
#include <cstddef>

#include "guest/arch/registers.h"
#include "guest/lib/types.h"
#include "guest/process/thread.h"
#include "hypercall/observe.h"

namespace dbos::arch {

inline constexpr u16 kCodeSelector = 0x08;
inline constexpr u16 kDataSelector = 0x10;
inline constexpr u16 kTaskSelector = 0x18;

struct [[gnu::packed]] TaskState {
  u32 reserved0;
  u64 rsp[3];
  u64 reserved1;
  u64 ist[7];
  u64 reserved2;
  u16 reserved3;
  u16 io_map_base;
};
static_assert(sizeof(TaskState) == 104);

// Where this vCPU's translations can be used right now.
enum class CpuPlace : u32 {
  kHost,   // in a hypercall or not started: flushes when it comes back
  kGuest,  // runs kernel or program code
};

struct Cpu {
  u64 entry_scratch;     // offset 0: the program's stack pointer during the system call entry
  u64 kernel_stack_top;  // offset 8
  u32 index;
  bool initialized;
  bool no_fault;  // a fault on program memory goes straight to its fixup (peek_program_nofault)

  u64 machine_check_instruction;  // of the last one, see trap.cpp
  u64 machine_check_destination;
  u64 machine_check_ns;  // when a program's came
  u32 machine_checks;    // of the kernel's, at that place

  // TLB shootdowns, see tlb.cpp.
  std::atomic<CpuPlace> place;
  std::atomic<u64> flushes_requested;  // by the others
  std::atomic<u64> flushes_served;     // of these
  AddressSpace* active_space;          // whose VcpuSet has this vCPU

  Thread thread;
  u64 gdt[5];
  TaskState task_state;
  VcpuCounters* counters;
};
static_assert(offsetof(Cpu, entry_scratch) == 0 && offsetof(Cpu, kernel_stack_top) == 8);
static_assert(sizeof(Cpu) <= kVcpuDataSize);

inline u64 cpu_block(u32 index) {
  return kVcpuMapBase + index * kVcpuStride;
}

inline Cpu& cpu_at(u32 index) {
  return *reinterpret_cast<Cpu*>(cpu_block(index) + kVcpuDataOffset);
}

inline Cpu& current_cpu() {
  u64 stack_pointer;
  asm("mov %%rsp, %0" : "=r"(stack_pointer));
  return *reinterpret_cast<Cpu*>(align_down(stack_pointer, kVcpuStride) + kVcpuDataOffset);
}

// Sets this vCPU up: descriptor tables, control registers, system call entry. Once per vCPU; a vCPU
// that is used again keeps all of it.
void initialize_cpu(u32 index, u64 extended_state_mask);

// Makes `space` (never null) the one whose translations this vCPU uses.
void activate_space(AddressSpace& space);
// Makes it use none but the kernel's half, so that its address space can be destroyed.
void leave_space(PhysicalAddress kernel_root);

// Takes a flush that another vCPU asked for. Called wherever this vCPU waits, and before the
// program runs.
void serve_flush_request();

// Once, at boot; 0: unknown. How long a platform::Wait takes before it sleeps is a time.
void prepare_waiting(u64 tsc_khz);

// Around every exit to the host.
void enter_host();
void leave_host();

}  // namespace dbos::arch
