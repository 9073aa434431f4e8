// Traps, as ordered cases. The one that nothing explains is fatal and explains itself.
#include "guest/arch/trap.h"

#include <linux/mman.h>
#include <time.h>

#include "guest/arch/cpu.h"
#include "guest/arch/debug.h"
#include "guest/hypercall.h"
#include "guest/lib/log.h"
#include "guest/memory/address_space.h"
#include "guest/process/clock.h"
#include "guest/process/exit.h"
#include "guest/process/signal.h"
#include "guest/process/signal_frame.h"
#include "guest/process/trace.h"

extern "C" {
struct Fixup {
  dbos::u64 instruction;
  dbos::u64 target;
};
extern const Fixup fixups_begin[];
extern const Fixup fixups_end[];
extern const char kernel_text_end[];
extern const char return_instruction[];
extern const char return_region_begin[];
extern const char return_region_end[];
extern const char return_restart[];
}

namespace dbos::arch {
namespace {

// A jump to beyond the kernel's code (to -1, say) is the program's as well.
bool is_in_program(const TrapFrame& frame) {
  return frame.rip < kKernelImageBase || frame.rip >= reinterpret_cast<u64>(kernel_text_end);
}

// Kernel code that touches the program's memory says where to go on when that fails.
bool apply_fixup(TrapFrame& frame) {
  for (const Fixup* fixup = fixups_begin; fixup != fixups_end; ++fixup) {
    if (fixup->instruction != frame.rip) continue;
    frame.rip = fixup->target;
    return true;
  }
  return false;
}

// The program's new instruction pointer (after rt_sigreturn, or a handler's address) is not
// canonical: iretq failed in the kernel, with the frame that it should have loaded on the stack.
bool is_failed_return(const TrapFrame& frame) {
  return frame.rip == reinterpret_cast<u64>(return_instruction);
}

[[noreturn]] void send_failed_return(const TrapFrame& frame) {
  const auto& image = *reinterpret_cast<const ReturnImage*>(frame.rsp);
  TrapFrame program = frame;
  program.rip = image.rip;
  program.rflags = image.rflags;
  program.rsp = image.rsp;
  TrapFrame& top = top_frame();
  top = program;
  force_fault_signal(current_thread(), top, signal_number::kSegv, kCodeKernel, 0,
                     kGeneralProtection, 0);
  return_to_program(top);
  resume_program(&top);
}

Access access_of(u64 error_code) {
  if ((error_code & kFaultFetch) != 0) return Access::kExecute;
  return (error_code & kFaultWrite) != 0 ? Access::kWrite : Access::kRead;
}

struct SignalOfFault {
  u32 signal;
  i32 code;
};

SignalOfFault signal_of(FaultKind fault) {
  switch (fault) {
    case FaultKind::kNoMapping:
      return {signal_number::kSegv, kCodeSegvMapping};
    case FaultKind::kNoAccess:
      return {signal_number::kSegv, kCodeSegvAccess};
    case FaultKind::kBusError:
      return {signal_number::kBus, kCodeBusAddress};
    case FaultKind::kOutOfMemory:
    case FaultKind::kResolved:
    case FaultKind::kNeedsPopulate:
      break;
  }
  return {0, 0};
}

void count_refused(FaultKind fault) {
  platform::counters().count(fault == FaultKind::kBusError ? Counter::kFaultBusError
                                                           : Counter::kFaultNoMapping);
}

// The error code that Linux's ring 3 would have seen.
u64 shown_error_code(u64 error_code) {
  return error_code | kFaultUser;
}

void handle_page_fault(TrapFrame& frame) {
  const VirtualAddress address(read_cr2());
  // Taken for one that is resolved already, it would come again for ever.
  if ((frame.error_code & kFaultReservedBit) != 0) {
    panic_with_frame("a reserved bit in a page table", frame);
  }
  const bool in_program = is_in_program(frame);
  const bool may_resolve = address.value() < kProgramEnd && !current_cpu().no_fault;
  FaultKind fault = FaultKind::kNoMapping;
  if (in_program) current_thread().copies_delayed_ns = 0;
  if (may_resolve) {
    fault = current_thread().space->handle_fault(address, access_of(frame.error_code));
    if (fault == FaultKind::kResolved) return;
  }
  // A debugger's access is not the program's.
  if (fault == FaultKind::kOutOfMemory && !is_debug_agent()) kill_for_memory();
  if (!in_program) {
    if (apply_fixup(frame)) return;
    panic_with_frame("page fault in the guest kernel", frame);
  }
  if (fault == FaultKind::kOutOfMemory) exit_thread_dying();
  count_refused(fault);
  const SignalOfFault signal = signal_of(fault);
  trace_fault(frame, signal.signal, address.value());
  force_fault_signal(current_thread(), frame, signal.signal, signal.code, address.value(),
                     kPageFault, shown_error_code(frame.error_code));
}

// Signals of the other exceptions (Linux: arch/x86/kernel/traps.c, idtentry handlers).
struct ExceptionSignal {
  u64 vector;
  u32 signal;
  i32 code;
  bool shows_instruction;  // si_addr is the instruction
};
constexpr i32 kCodeIntegerDivide = 1;   // FPE_INTDIV
constexpr i32 kCodeTrace = 2;           // TRAP_TRACE
constexpr i32 kCodeIllegalOperand = 2;  // ILL_ILLOPN
constexpr ExceptionSignal kExceptionSignals[] = {
    {kDivideError, signal_number::kFloatingPoint, kCodeIntegerDivide, true},
    {kDebug, signal_number::kTrap, kCodeTrace, true},
    {kBreakpoint, signal_number::kTrap, kCodeKernel, false},
    {kOverflow, signal_number::kSegv, kCodeKernel, false},
    {kBoundRange, signal_number::kSegv, kCodeKernel, false},
    {kInvalidOpcode, signal_number::kIll, kCodeIllegalOperand, true},
    {kStackFault, signal_number::kBus, kCodeKernel, false},
    {kGeneralProtection, signal_number::kSegv, kCodeKernel, false},
    {kAlignmentCheck, signal_number::kBus, kCodeBusAlignment, false},
    {kMachineCheck, signal_number::kBus, kCodeBusAddress, false},
};

// Bits: invalid operation, denormal, divide by zero, overflow, underflow, precision.
i32 floating_point_code(u32 raised) {
  if ((raised & 0x01) != 0) return 7;  // FPE_FLTINV
  if ((raised & 0x04) != 0) return 3;  // FPE_FLTDIV
  if ((raised & 0x08) != 0) return 4;  // FPE_FLTOVF
  if ((raised & 0x12) != 0) return 5;  // FPE_FLTUND
  if ((raised & 0x20) != 0) return 6;  // FPE_FLTRES
  return 0;
}

// Exceptions that are raised and not masked, x87's or SSE's.
u32 raised_exceptions(u64 vector) {
  if (vector == kSimdFloatingPoint) {
    u32 mxcsr;
    asm volatile("stmxcsr %0" : "=m"(mxcsr));
    return ~(mxcsr >> 7) & mxcsr & 0x3f;
  }
  u16 control;
  u16 status;
  asm volatile("fnstcw %0; fnstsw %1" : "=m"(control), "=m"(status));
  return status & ~u32{control} & 0x3f;
}

// The VMM's word for a page of a file mapping that went while it was mapped. The translations of
// all shared mappings are dropped, so that the access faults again, with its address, and becomes
// SIGBUS; what comes a second time, and at once, is in a private mapping, and its address stays
// unknown.
bool drops_file_translations(TrapFrame& frame) {
  constexpr u64 kAtOnce_ns = 1'000'000'000;
  arch::Cpu& cpu = current_cpu();
  const u64 now_ns = clock_now(CLOCK_MONOTONIC);
  const bool is_second =
      cpu.machine_check_instruction == frame.rip && now_ns - cpu.machine_check_ns < kAtOnce_ns;
  cpu.machine_check_instruction = is_second ? 0 : frame.rip;
  cpu.machine_check_ns = now_ns;
  if (is_second) return false;
  AddressSpace& space = *current_thread().space;
  VmaInfo info;
  for (VirtualAddress from; space.next_vma(from, &info); from = info.range.end) {
    if (info.kind != VmaKind::kWindowShared) continue;
    (void)space.advise(info.range.begin, info.range.size(), MADV_DONTNEED);
  }
  return true;
}

// In the kernel's own memory: Linux had none to give, and a page fault of its own would have waited
// for it. The VMM waits for a millisecond each time. A string instruction that comes further is
// another access.
bool tries_again(const TrapFrame& frame) {
  constexpr u32 kAttemptsMax = 1000;
  arch::Cpu& cpu = current_cpu();
  const bool is_same =
      cpu.machine_check_instruction == frame.rip && cpu.machine_check_destination == frame.rdi;
  cpu.machine_check_instruction = frame.rip;
  cpu.machine_check_destination = frame.rdi;
  cpu.machine_checks = is_same ? cpu.machine_checks + 1 : 1;
  return cpu.machine_checks < kAttemptsMax;
}

// The kernel may hold the address space's lock there: it says itself what is to be done.
bool handles_machine_check(TrapFrame& frame) {
  if (is_in_program(frame)) return drops_file_translations(frame);
  return apply_fixup(frame) || tries_again(frame);
}

// `int n`, whose gate Linux has closed to ring 3: a general protection fault at the instruction,
// with the gate's number.
void refuse_interrupt(TrapFrame& frame) {
  constexpr u64 kInstructionLength = 2;
  constexpr u64 kOfInterruptTable = 2;
  frame.rip -= kInstructionLength;
  force_fault_signal(current_thread(), frame, signal_number::kSegv, kCodeKernel, 0,
                     kGeneralProtection, (frame.vector & 0xff) << 3 | kOfInterruptTable);
}

void handle_exception(TrapFrame& frame) {
  if (frame.vector == kMachineCheck && handles_machine_check(frame)) return;
  if (!is_in_program(frame)) {
    if (is_failed_return(frame)) send_failed_return(frame);
    if (apply_fixup(frame)) return;
    if (frame.vector == kDebug) return;  // a trap flag that the program set right before it entered
    panic_with_frame("exception in the guest kernel", frame);
  }
  if (frame.vector == kDebug) write_dr6_clear();
  if (is_debugger_trap(frame)) return;
  platform::counters().count(Counter::kExceptions);
  if (frame.vector == kGeneralProtection && perform_native_return(frame)) return;
  Thread& thread = current_thread();
  if (frame.vector == kFloatingPoint || frame.vector == kSimdFloatingPoint) {
    force_fault_signal(thread, frame, signal_number::kFloatingPoint,
                       floating_point_code(raised_exceptions(frame.vector)), frame.rip,
                       frame.vector, 0);
    return;
  }
  for (const ExceptionSignal& entry : kExceptionSignals) {
    if (entry.vector != frame.vector) continue;
    trace_fault(frame, entry.signal, 0);
    force_fault_signal(thread, frame, entry.signal, entry.code,
                       entry.shows_instruction ? frame.rip : 0, frame.vector, frame.error_code);
    return;
  }
  refuse_interrupt(frame);
}

}  // namespace

void declare_return_region() {
  hypercall(Service::kAttentionRegion, reinterpret_cast<u64>(return_region_begin),
            reinterpret_cast<u64>(return_region_end), reinterpret_cast<u64>(return_restart));
}

TrapFrame& top_frame() {
  return *reinterpret_cast<TrapFrame*>(current_cpu().kernel_stack_top - sizeof(TrapFrame));
}

extern "C" void handle_trap(TrapFrame* frame) {
  const bool in_program = is_in_program(*frame);
  if (in_program) current_thread().frame = frame;
  if (frame->vector == kPageFault) {
    handle_page_fault(*frame);
  } else if (frame->vector == kAttention) {
    if (!in_program) panic_with_frame("attention in the guest kernel", *frame);
  } else if (frame->vector >= 32) {
    if (!in_program) panic_with_frame("an interrupt, and there are none", *frame);
    refuse_interrupt(*frame);
  } else {
    handle_exception(*frame);
  }
  if (in_program) return_to_program(*frame);
}

extern "C" void return_to_program(TrapFrame& frame) {
  Thread& thread = current_thread();
  HypercallPage& page = current_hypercall_page();
  // First the flag, then what it stands for: entry.S looks at the flag once more.
  if (__atomic_load_n(&page.attention, __ATOMIC_RELAXED) != 0) {
    __atomic_exchange_n(&page.attention, 0, __ATOMIC_SEQ_CST);
    serve_flush_request();
  }
  do {
    while (has_signal_work(thread, frame)) deliver_pending_signal(thread, frame);
  } while (stop_for_debugger(frame));
}

void panic_with_frame(const char* message, const TrapFrame& frame) {
  LogLine()
      .text("panic: ")
      .text(message)
      .text(": vector ")
      .number(static_cast<i64>(frame.vector))
      .text(" error ")
      .hex(frame.error_code)
      .text(" rip ")
      .hex(frame.rip)
      .text(" rsp ")
      .hex(frame.rsp)
      .text(" cr2 ")
      .hex(read_cr2())
      .send(LogSeverity::kError);
  LogLine()
      .text("  rax ")
      .hex(frame.rax)
      .text(" rbx ")
      .hex(frame.rbx)
      .text(" rcx ")
      .hex(frame.rcx)
      .text(" rdx ")
      .hex(frame.rdx)
      .text(" rsi ")
      .hex(frame.rsi)
      .text(" rdi ")
      .hex(frame.rdi)
      .text(" rbp ")
      .hex(frame.rbp)
      .text(" cr3 ")
      .hex(read_cr3())
      .send(LogSeverity::kError);
  hypercall(Service::kPanic, host_pointer(message), __builtin_strlen(message));
  __builtin_unreachable();
}

}  // namespace dbos::arch

namespace dbos {

void panic(const char* message, const char* file, int line) {
  LogLine()
      .text("panic: ")
      .text(message)
      .text(" (")
      .text(file)
      .text(":")
      .number(line)
      .text(")")
      .send(LogSeverity::kError);
  hypercall(Service::kPanic, host_pointer(message), __builtin_strlen(message));
  __builtin_unreachable();
}

}  // namespace dbos
