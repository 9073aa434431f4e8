#include "guest/process/signal_frame.h"

#include "guest/memory/user_copy.h"
#include "guest/process/extended_state.h"

namespace dbos {

namespace {

constexpr u64 kRedZone = 128;
constexpr u64 kFrameAlignment = 16;

// What a native program sees. Ours runs with the kernel's selectors, so they are not taken back.
constexpr u16 kNativeCodeSelector = 0x33;
constexpr u16 kNativeStackSelector = 0x2b;

// The flags that rt_sigreturn restores: AC OF DF TF SF ZF AF PF CF RF (FIX_EFLAGS).
constexpr u64 kRestorableFlags = 0x50dd5;

bool lies_on_alternate_stack(const Thread& thread, u64 stack_pointer) {
  const AlternateStack& stack = thread.alternate_stack;
  return stack_pointer > stack.base && stack_pointer - stack.base <= stack.size;
}

struct FramePlace {
  u64 extended_state;
  u64 frame;
};

Result<FramePlace> place_frame(const Thread& thread, const TrapFrame& frame,
                               const SignalAction& action) {
  const bool nested = is_on_alternate_stack(thread, frame.rsp);
  bool entering = false;
  u64 stack_pointer = frame.rsp - kRedZone;
  if ((action.flags & action_flag::kOnStack) != 0 &&
      alternate_stack_flags(thread, stack_pointer) == 0) {
    stack_pointer = thread.alternate_stack.base + thread.alternate_stack.size;
    entering = true;
  }
  FramePlace place;
  place.extended_state =
      align_down(stack_pointer - extended_state_frame_size(), kExtendedStateAlignment);
  place.frame = align_down(place.extended_state - sizeof(SignalFrame), kFrameAlignment) - 8;
  // A frame that leaves the alternate stack would overwrite what lies below it.
  if ((nested || entering) && !lies_on_alternate_stack(thread, place.frame)) return Error(EFAULT);
  return place;
}

SignalContext save_registers(const Thread& thread, const TrapFrame& frame, u64 mask) {
  SignalContext saved{};
  saved.r8 = frame.r8;
  saved.r9 = frame.r9;
  saved.r10 = frame.r10;
  saved.r11 = frame.r11;
  saved.r12 = frame.r12;
  saved.r13 = frame.r13;
  saved.r14 = frame.r14;
  saved.r15 = frame.r15;
  saved.rdi = frame.rdi;
  saved.rsi = frame.rsi;
  saved.rbp = frame.rbp;
  saved.rbx = frame.rbx;
  saved.rdx = frame.rdx;
  saved.rax = frame.rax;
  saved.rcx = frame.rcx;
  saved.rsp = frame.rsp;
  saved.rip = frame.rip;
  saved.rflags = frame.rflags | kFlagInterrupt;
  saved.cs = kNativeCodeSelector;
  saved.ss = kNativeStackSelector;
  saved.error_code = thread.fault_error_code;
  saved.trap_number = thread.fault_trap_number;
  saved.fault_address = thread.fault_address;
  saved.old_mask = mask;
  return saved;
}

void restore_flags(TrapFrame& frame, u64 rflags) {
  frame.rflags = (frame.rflags & ~kRestorableFlags) | (rflags & kRestorableFlags) | kFlagInterrupt;
}

void restore_registers(TrapFrame& frame, const SignalContext& saved) {
  frame.r8 = saved.r8;
  frame.r9 = saved.r9;
  frame.r10 = saved.r10;
  frame.r11 = saved.r11;
  frame.r12 = saved.r12;
  frame.r13 = saved.r13;
  frame.r14 = saved.r14;
  frame.r15 = saved.r15;
  frame.rdi = saved.rdi;
  frame.rsi = saved.rsi;
  frame.rbp = saved.rbp;
  frame.rbx = saved.rbx;
  frame.rdx = saved.rdx;
  frame.rax = saved.rax;
  frame.rcx = saved.rcx;
  frame.rsp = saved.rsp;
  frame.rip = saved.rip;
  restore_flags(frame, saved.rflags);
}

Result<void> write_extended_state(u64 address) {
  ExtendedStateBuffer buffer;
  save_extended_state(buffer);
  return copy_to_program(VirtualAddress(address), buffer.bytes, extended_state_frame_size());
}

Result<void> read_extended_state(u64 address) {
  if (address == 0) {
    reset_extended_state();
    return {};
  }
  // XRSTOR of an unaligned area raises #GP, which a native program sees as SIGSEGV.
  if (has_xsave() && !is_aligned(address, kExtendedStateAlignment)) return Error(EFAULT);
  ExtendedStateBuffer buffer;
  DBOS_RETURN_IF_ERROR(
      copy_from_program(buffer.bytes, VirtualAddress(address), kExtendedStateLegacySize));
  const u64 size = extended_state_size_of(buffer);
  __builtin_memset(buffer.bytes + kExtendedStateLegacySize, 0,
                   sizeof buffer.bytes - kExtendedStateLegacySize);
  DBOS_RETURN_IF_ERROR(copy_from_program(buffer.bytes + kExtendedStateLegacySize,
                                         VirtualAddress(address + kExtendedStateLegacySize),
                                         size - kExtendedStateLegacySize));
  if (!restore_extended_state(buffer)) return Error(EFAULT);
  return {};
}

// The handler's `ret` has taken the return address from the frame.
u64 frame_to_end(const TrapFrame& frame) {
  return frame.rsp - sizeof(SignalFrame::restorer);
}

}  // namespace

bool is_on_alternate_stack(const Thread& thread, u64 stack_pointer) {
  const u32 flags = static_cast<u32>(thread.alternate_stack.flags);
  return (flags & stack_flag::kAutoDisarm) == 0 && lies_on_alternate_stack(thread, stack_pointer);
}

u32 alternate_stack_flags(const Thread& thread, u64 stack_pointer) {
  if (thread.alternate_stack.size == 0) return stack_flag::kDisable;
  return is_on_alternate_stack(thread, stack_pointer) ? stack_flag::kOnStack : 0;
}

Result<void> set_alternate_stack(Thread& thread, const AlternateStack& wanted, u64 stack_pointer) {
  if (is_on_alternate_stack(thread, stack_pointer)) return Error(EPERM);
  const u32 mode = static_cast<u32>(wanted.flags) & ~stack_flag::kAutoDisarm;
  if (mode != 0 && mode != stack_flag::kOnStack && mode != stack_flag::kDisable)
    return Error(EINVAL);
  const AlternateStack& current = thread.alternate_stack;
  if (current.base == wanted.base && current.size == wanted.size && current.flags == wanted.flags)
    return {};
  AlternateStack taken = wanted;
  taken.reserved = 0;
  if (mode == stack_flag::kDisable) {
    taken.base = 0;
    taken.size = 0;
  } else if (wanted.size < kAlternateStackSizeMin) {
    return Error(ENOMEM);
  }
  thread.alternate_stack = taken;
  return {};
}

Result<void> push_signal_frame(Thread& thread, TrapFrame& frame, u32 signal,
                               const SignalAction& action, const SignalInfo& info,
                               u64 interrupted_mask) {
  // Without a restorer there is nothing to return to, as on every x86-64 Linux.
  if ((action.flags & action_flag::kRestorer) == 0) return Error(EFAULT);
  if (action.handler >= kProgramEnd) return Error(EFAULT);
  const FramePlace place = DBOS_TRY(place_frame(thread, frame, action));
  DBOS_RETURN_IF_ERROR(write_extended_state(place.extended_state));

  SignalFrame pushed{};
  pushed.restorer = action.restorer;
  pushed.context.flags =
      (has_xsave() ? kContextExtendedState : 0) | kContextStackSegment | kContextStrictStack;
  pushed.context.stack = thread.alternate_stack;
  pushed.context.registers = save_registers(thread, frame, interrupted_mask);
  pushed.context.registers.extended_state = place.extended_state;
  pushed.context.mask = interrupted_mask;
  const bool with_info = (action.flags & action_flag::kSignalInfo) != 0;
  if (with_info) pushed.info = info;
  const u64 size = with_info ? sizeof pushed : offsetof(SignalFrame, info);
  DBOS_RETURN_IF_ERROR(copy_to_program(VirtualAddress(place.frame), &pushed, size));

  frame.rdi = signal;
  frame.rax = 0;
  frame.rsi = place.frame + offsetof(SignalFrame, info);
  frame.rdx = place.frame + offsetof(SignalFrame, context);
  frame.rip = action.handler;
  frame.rsp = place.frame;
  frame.rflags &= ~(kFlagDirection | kFlagTrap | kFlagResume);
  frame.rflags |= kFlagInterrupt;
  reset_extended_state();
  if ((static_cast<u32>(thread.alternate_stack.flags) & stack_flag::kAutoDisarm) != 0) {
    thread.alternate_stack = kNoAlternateStack;
  }
  return {};
}

Result<u64> signal_frame_mask(const TrapFrame& frame) {
  return read_program<u64>(VirtualAddress(frame_to_end(frame) + offsetof(SignalFrame, context) +
                                          offsetof(UserContext, mask)));
}

Result<void> pop_signal_frame(Thread& thread, TrapFrame& frame) {
  const UserContext context = DBOS_TRY(read_program<UserContext>(
      VirtualAddress(frame_to_end(frame) + offsetof(SignalFrame, context))));
  // iretq to such an address would fault in the kernel; the program's own jump there is a SIGSEGV.
  if (context.registers.rip >= kProgramEnd) return Error(EFAULT);
  DBOS_RETURN_IF_ERROR(read_extended_state(context.registers.extended_state));
  restore_registers(frame, context.registers);
  // As Linux: an unusable alternate stack in the frame is no reason to fail.
  static_cast<void>(set_alternate_stack(thread, context.stack, frame.rsp).is_ok());
  return {};
}

bool perform_native_return(TrapFrame& frame) {
  constexpr u16 kReturnInstruction = 0xcf48;  // 48 cf: iretq
  ReturnImage image;
  const Result<u16> instruction = read_program<u16>(VirtualAddress(frame.rip));
  if (instruction.is_error() || instruction.value() != kReturnInstruction) return false;
  if (copy_from_program(&image, VirtualAddress(frame.rsp), sizeof image).is_error()) return false;
  const bool is_native = static_cast<u16>(image.cs) == kNativeCodeSelector &&
                         static_cast<u16>(image.ss) == kNativeStackSelector;
  if (!is_native || image.rip >= kProgramEnd) return false;
  frame.rip = image.rip;
  frame.rsp = image.rsp;
  restore_flags(frame, image.rflags);
  return true;
}

}  // namespace dbos
