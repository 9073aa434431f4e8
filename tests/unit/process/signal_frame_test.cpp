// The signal frame against what the C library and the kernel of the host say that it is.
#include "guest/process/signal_frame.h"

#include <ucontext.h>
#include <unistd.h>
#include <csignal>
#include <cstring>

#include <catch2/catch.hpp>
#include <vector>

#include "guest/process/extended_state.h"
#include "tests/unit/process/fake_kernel.h"

namespace dbos {
namespace {

static_assert(offsetof(UserContext, flags) == offsetof(ucontext_t, uc_flags));
static_assert(offsetof(UserContext, link) == offsetof(ucontext_t, uc_link));
static_assert(offsetof(UserContext, stack) == offsetof(ucontext_t, uc_stack));
static_assert(offsetof(UserContext, registers) == offsetof(ucontext_t, uc_mcontext));
static_assert(offsetof(UserContext, mask) == offsetof(ucontext_t, uc_sigmask));
static_assert(sizeof(SignalContext) == sizeof(mcontext_t));
static_assert(offsetof(SignalContext, rip) == REG_RIP * sizeof(greg_t));
static_assert(offsetof(SignalContext, rflags) == REG_EFL * sizeof(greg_t));
static_assert(offsetof(SignalContext, cs) == REG_CSGSFS * sizeof(greg_t));
static_assert(offsetof(SignalContext, error_code) == REG_ERR * sizeof(greg_t));
static_assert(offsetof(SignalContext, trap_number) == REG_TRAPNO * sizeof(greg_t));
static_assert(offsetof(SignalContext, old_mask) == REG_OLDMASK * sizeof(greg_t));
static_assert(offsetof(SignalContext, fault_address) == REG_CR2 * sizeof(greg_t));
static_assert(offsetof(SignalContext, extended_state) == offsetof(mcontext_t, fpregs));
static_assert(sizeof(SignalInfo) == sizeof(siginfo_t));
static_assert(offsetof(SignalInfo, code) == offsetof(siginfo_t, si_code));
static_assert(offsetof(SignalInfo, fault_address) == offsetof(siginfo_t, si_addr));
static_assert(sizeof(AlternateStack) == sizeof(stack_t));
static_assert(offsetof(AlternateStack, size) == offsetof(stack_t, ss_size));
static_assert(action_flag::kOnStack == SA_ONSTACK && action_flag::kRestart == SA_RESTART);
static_assert(action_flag::kNoDefer == SA_NODEFER && action_flag::kSignalInfo == SA_SIGINFO);
static_assert(action_flag::kResetHandler == static_cast<unsigned>(SA_RESETHAND));
static_assert(action_flag::kNoChildStop == SA_NOCLDSTOP);
static_assert(action_flag::kNoChildWait == SA_NOCLDWAIT);
static_assert(kAlternateStackSizeMin == 2048);

constexpr u64 kHandler = 0x1234560;
constexpr u64 kRestorer = 0x6543210;

// What Linux itself puts into a frame, and where.
struct NativeFrame {
  u64 handler_stack_pointer;
  u64 interrupted_stack_pointer;
  ucontext_t context;
  u32 extended_state_size;
  u8 extended_state[16384];
};
NativeFrame native;

void native_handler(int, siginfo_t*, void* opaque) {
  const auto* context = static_cast<const ucontext_t*>(opaque);
  native.context = *context;
  native.handler_stack_pointer = reinterpret_cast<u64>(opaque) - offsetof(SignalFrame, context);
  native.interrupted_stack_pointer = static_cast<u64>(context->uc_mcontext.gregs[REG_RSP]);
  const auto* state = reinterpret_cast<const u8*>(context->uc_mcontext.fpregs);
  memcpy(&native.extended_state_size, state + 468, sizeof(u32));
  memcpy(native.extended_state, state, native.extended_state_size);
}

const NativeFrame& take_native_frame() {
  struct sigaction action = {};
  action.sa_sigaction = native_handler;
  action.sa_flags = SA_SIGINFO;
  struct sigaction before;
  sigaction(SIGUSR1, &action, &before);
  raise(SIGUSR1);
  sigaction(SIGUSR1, &before, nullptr);
  return native;
}

struct Fixture {
  Process process{};
  fake::ProgramThread self;
  alignas(64) u8 stack[16384] = {};
  TrapFrame frame{};
  SignalAction action{kHandler, action_flag::kRestorer | action_flag::kSignalInfo, kRestorer, 0};
  SignalInfo info{};

  Fixture() : self((process.space = fake::space(0), process)) {
    frame.rsp = reinterpret_cast<u64>(stack) + sizeof stack - 8 * 13;
    frame.rip = 0x401000;
    frame.rflags = 0x246 | kFlagDirection | kFlagTrap;
    frame.rax = 1;
    frame.r15 = 15;
    frame.rcx = 77;
    frame.cs = 8;
    frame.ss = 16;
    info.number = SIGUSR1;
    info.code = SI_USER;
  }
  Thread& thread() { return self.thread(); }
  Result<void> push(u64 mask = 0xf0) {
    return push_signal_frame(thread(), frame, SIGUSR1, action, info, mask);
  }
  const SignalFrame& pushed() const { return *reinterpret_cast<const SignalFrame*>(frame.rsp); }
};

}  // namespace

TEST_CASE("iretq with the selectors that a frame shows takes the registers from the stack") {
  Fixture f;
  alignas(16) const u8 code[2] = {0x48, 0xcf};
  u64 image[5] = {0x402000, 0x33, 0x1 | 0x3000 | 1 << 19, 0x7ff0, 0x2b};  // CF, IOPL, VIF
  f.frame.rip = reinterpret_cast<u64>(code);
  f.frame.rsp = reinterpret_cast<u64>(image);
  f.frame.rflags = 0x246 | kFlagTrap;
  SECTION("as Linux's ring 3 may") {
    REQUIRE(perform_native_return(f.frame));
    CHECK(f.frame.rip == 0x402000);
    CHECK(f.frame.rsp == 0x7ff0);
    CHECK(f.frame.rflags == 0x203);
    CHECK(f.frame.cs == 8);
  }
  SECTION("but not with others, or into the kernel") {
    SECTION("") {
      image[1] = 0x10;
    }
    SECTION("") {
      image[4] = 0x18;
    }
    SECTION("") {
      image[0] = 0xffff'8000'0000'0000;
    }
    const TrapFrame before = f.frame;
    CHECK(!perform_native_return(f.frame));
    CHECK(memcmp(&before, &f.frame, sizeof before) == 0);
  }
  SECTION("and not where another instruction faulted") {
    const u8 halt[2] = {0xf4, 0xcf};
    f.frame.rip = reinterpret_cast<u64>(halt);
    CHECK(!perform_native_return(f.frame));
  }
}

TEST_CASE("the frame has the size, place and flags of Linux's own") {
  const NativeFrame& linux_frame = take_native_frame();
  Fixture f;
  const u64 interrupted = f.frame.rsp;
  f.thread().fault_trap_number = 14;
  f.thread().fault_error_code = 6;
  f.thread().fault_address = 0xdead000;
  REQUIRE(f.push().is_ok());
  const SignalFrame& mine = f.pushed();
  const UserContext& context = mine.context;

  CHECK(f.frame.rsp % 16 == 8);
  CHECK(context.flags == linux_frame.context.uc_flags);
  CHECK(context.registers.cs == (linux_frame.context.uc_mcontext.gregs[REG_CSGSFS] & 0xffff));
  CHECK(context.registers.ss ==
        static_cast<u16>(linux_frame.context.uc_mcontext.gregs[REG_CSGSFS] >> 48));
  CHECK(extended_state_frame_size() == linux_frame.extended_state_size);
  CHECK(context.registers.extended_state % 64 == 0);
  CHECK(context.registers.extended_state + extended_state_frame_size() <= interrupted - 128);
  // The same distance from the interrupted stack, up to the two alignments.
  const u64 linux_distance =
      linux_frame.interrupted_stack_pointer - linux_frame.handler_stack_pointer;
  const u64 distance = interrupted - f.frame.rsp;
  CHECK(distance < linux_distance + 80);
  CHECK(linux_distance < distance + 80);

  // Software bytes (magic, sizes, features) and the second magic number.
  const auto* state = reinterpret_cast<const u8*>(context.registers.extended_state);
  CHECK(memcmp(state + 464, linux_frame.extended_state + 464, 48) == 0);
  const u64 size = extended_state_frame_size();
  CHECK(memcmp(state + size - 4, linux_frame.extended_state + size - 4, 4) == 0);

  CHECK(mine.restorer == kRestorer);
  CHECK(mine.info.number == SIGUSR1);
  CHECK(context.mask == 0xf0);
  CHECK(context.registers.old_mask == 0xf0);
  CHECK(context.registers.rsp == interrupted);
  CHECK(context.registers.rip == 0x401000);
  CHECK(context.registers.r15 == 15);
  CHECK(context.registers.trap_number == 14);
  CHECK(context.registers.error_code == 6);
  CHECK(context.registers.fault_address == 0xdead000);
}

TEST_CASE("a handler starts with Linux's registers") {
  Fixture f;
  REQUIRE(f.push().is_ok());
  CHECK(f.frame.rip == kHandler);
  CHECK(f.frame.rdi == SIGUSR1);
  CHECK(f.frame.rsi == f.frame.rsp + offsetof(SignalFrame, info));
  CHECK(f.frame.rdx == f.frame.rsp + offsetof(SignalFrame, context));
  CHECK(f.frame.rax == 0);
  CHECK((f.frame.rflags & (kFlagDirection | kFlagTrap)) == 0);
  CHECK((f.frame.rflags & kFlagInterrupt) != 0);
  CHECK(f.frame.cs == 8);
  CHECK(f.frame.ss == 16);
}

TEST_CASE("what a handler changes in its frame is what the program goes on with") {
  Fixture f;
  const TrapFrame before = f.frame;
  REQUIRE(f.push(0x80).is_ok());
  auto& frame = const_cast<SignalFrame&>(f.pushed());
  frame.context.registers.rax = 99;
  frame.context.registers.cs = 0;                  // ignored
  frame.context.registers.rflags |= u64{3} << 12;  // IOPL is not the program's to set
  f.frame.rsp += 8;                                // the handler's ret
  CHECK(signal_frame_mask(f.frame).value() == 0x80);
  REQUIRE(pop_signal_frame(f.thread(), f.frame).is_ok());
  CHECK(f.frame.rax == 99);
  CHECK(f.frame.rsp == before.rsp);
  CHECK(f.frame.rip == before.rip);
  CHECK(f.frame.rcx == before.rcx);
  CHECK(f.frame.r15 == before.r15);
  CHECK((f.frame.rflags & (u64{3} << 12)) == 0);
  CHECK((f.frame.rflags & kFlagDirection) != 0);
  CHECK(f.frame.cs == before.cs);
}

TEST_CASE("an extended state that the CPU would refuse is a bad frame") {
  Fixture f;
  REQUIRE(f.push().is_ok());
  auto* state = reinterpret_cast<u8*>(f.pushed().context.registers.extended_state);
  f.frame.rsp += 8;
  const TrapFrame in_handler = f.frame;
  SECTION("reserved bits of MXCSR") {
    memset(state + 24, 0xff, 4);
  }
  SECTION("an unknown feature in the header") {
    memset(state + 512 + 7, 0x40, 1);
  }
  SECTION("a compacted header") {
    memset(state + 512 + 15, 0x80, 1);
  }
  CHECK(pop_signal_frame(f.thread(), f.frame).is_error());
  CHECK(f.frame.rip == in_handler.rip);
}

TEST_CASE("a frame without magic numbers is restored as FXSAVE's part alone") {
  Fixture f;
  REQUIRE(f.push().is_ok());
  auto* state = reinterpret_cast<u8*>(f.pushed().context.registers.extended_state);
  memset(state + 464, 0, 48);
  memset(state + 512, 0xff, 64);  // not looked at
  f.frame.rsp += 8;
  CHECK(pop_signal_frame(f.thread(), f.frame).is_ok());
}

TEST_CASE("a handler with SA_ONSTACK runs on the alternate stack, a nested one stays there") {
  Fixture f;
  std::vector<u8> alternate(32768);
  const u64 base = reinterpret_cast<u64>(alternate.data());
  const AlternateStack stack{base, 0, 0, alternate.size()};
  REQUIRE(set_alternate_stack(f.thread(), stack, f.frame.rsp).is_ok());
  f.action.flags |= action_flag::kOnStack;
  REQUIRE(f.push().is_ok());
  const u64 outer = f.frame.rsp;
  CHECK(outer > base);
  CHECK(outer < base + alternate.size());
  CHECK(alternate_stack_flags(f.thread(), outer) == stack_flag::kOnStack);
  CHECK(set_alternate_stack(f.thread(), stack, outer).error() == Error(EPERM));
  REQUIRE(f.push().is_ok());
  CHECK(f.frame.rsp < outer);
  CHECK(f.frame.rsp > outer - 8192);
}

TEST_CASE("a frame that does not fit on the alternate stack is refused") {
  Fixture f;
  std::vector<u8> alternate(2048 + 64);
  const AlternateStack stack{reinterpret_cast<u64>(alternate.data()), 0, 0, 2048};
  REQUIRE(set_alternate_stack(f.thread(), stack, f.frame.rsp).is_ok());
  f.action.flags |= action_flag::kOnStack;
  if (extended_state_frame_size() > 2048) CHECK(f.push().is_error());
}

TEST_CASE("SS_AUTODISARM takes the alternate stack away until the handler returns") {
  Fixture f;
  std::vector<u8> alternate(32768);
  const AlternateStack stack{reinterpret_cast<u64>(alternate.data()),
                             static_cast<i32>(stack_flag::kAutoDisarm), 0, alternate.size()};
  REQUIRE(set_alternate_stack(f.thread(), stack, f.frame.rsp).is_ok());
  f.action.flags |= action_flag::kOnStack;
  REQUIRE(f.push().is_ok());
  CHECK(f.thread().alternate_stack.size == 0);
  CHECK(f.pushed().context.stack.size == alternate.size());
  f.frame.rsp += 8;
  REQUIRE(pop_signal_frame(f.thread(), f.frame).is_ok());
  CHECK(f.thread().alternate_stack.size == alternate.size());
}

TEST_CASE("sigaltstack answers Linux's errors") {
  Fixture f;
  const u64 here = f.frame.rsp;
  CHECK(set_alternate_stack(f.thread(), {0x1000, 0, 0, 2047}, here).error() == Error(ENOMEM));
  CHECK(set_alternate_stack(f.thread(), {0x1000, 4, 0, 4096}, here).error() == Error(EINVAL));
  CHECK(set_alternate_stack(f.thread(), {0x1000, 3, 0, 4096}, here).error() == Error(EINVAL));
  CHECK(set_alternate_stack(f.thread(), {0x1000, 1, 0, 4096}, here).is_ok());
  CHECK(set_alternate_stack(f.thread(), {0x1000, 2, 0, 4096}, here).is_ok());
  CHECK(alternate_stack_flags(f.thread(), here) == stack_flag::kDisable);
}

TEST_CASE("no frame without a restorer, or where the stack can't be written") {
  Fixture f;
  const TrapFrame before = f.frame;
  f.action.flags &= ~action_flag::kRestorer;
  CHECK(f.push().is_error());
  f.action.flags |= action_flag::kRestorer;
  // However short the processor's extended state is.
  fake::set_inaccessible(f.stack, f.frame.rsp - 512 - reinterpret_cast<u64>(f.stack));
  CHECK(f.push().is_error());
  fake::set_all_accessible();
  CHECK(memcmp(&before, &f.frame, sizeof before) == 0);
}

}  // namespace dbos
