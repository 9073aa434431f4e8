// Which signal is delivered how, and what becomes of the system call that it interrupted.
#include "guest/process/signal.h"

#include <csignal>
#include <cstring>

#include <catch2/catch.hpp>

#include "guest/process/signal_frame.h"
#include "guest/syscalls/signal_calls.h"
#include "tests/unit/process/fake_kernel.h"

namespace dbos {
namespace {

constexpr u64 kHandler = 0x1000;
constexpr u64 kRead = 0;
constexpr u64 kAfterCall = 0x401002;

struct Died {
  u32 signal;
};

// A program's thread in a system call, and a host that keeps its mask.
struct Fixture {
  Process process{};
  fake::ProgramThread self;
  alignas(64) u8 stack[65536] = {};
  TrapFrame frame{};
  u64 host_mask = 0;
  std::vector<Call> calls;
  u32 arrives_with_next_mask = 0;  // a signal that Linux had pending

  Fixture() : self((process.space = fake::space(0), process)) {
    fake::on_hypercall = [this](const Call& call) { return answer(call); };
    enter_call();
  }
  ~Fixture() { fake::on_hypercall = nullptr; }

  void enter_call() {
    frame = TrapFrame{};
    frame.vector = kSystemCallVector;
    frame.error_code = kRead;
    frame.rip = kAfterCall;
    frame.rsp = reinterpret_cast<u64>(stack) + sizeof stack;
  }
  Thread& thread() { return self.thread(); }
  SignalAction& action(u32 signal) { return process.actions[signal - 1]; }
  void handle(u32 signal, u64 flags = 0, u64 mask = 0) {
    action(signal) =
        SignalAction{kHandler, flags | action_flag::kRestorer | action_flag::kSignalInfo, 0, mask};
  }
  void arrive(u32 signal) {
    self.page().signal.number = signal;
    siginfo_t info{};
    info.si_signo = static_cast<int>(signal);
    memcpy(self.page().signal.info, &info, sizeof info);
    host_mask = ~u64{0};
  }
  i64 answer(const Call& call) {
    calls.push_back(call);
    if (is(call, Service::kSignalMask)) {
      if (self.page().signal.number != 0) return kNotStarted;
      host_mask = call.arguments[0];
      if (arrives_with_next_mask != 0) {
        const u32 signal = arrives_with_next_mask;
        arrives_with_next_mask = 0;
        arrive(signal);
      }
      return 0;
    }
    if (is(call, Service::kDie)) throw Died{static_cast<u32>(call.arguments[0])};
    return 0;
  }
  void return_with(i64 result) {
    frame.rax = static_cast<u64>(result);
    deliver_pending_signal(thread(), frame);
  }
  bool runs_handler() const { return frame.rip == kHandler; }
  const SignalFrame& top() const { return *reinterpret_cast<const SignalFrame*>(frame.rsp); }
};

u64 bit(u32 signal) {
  return signal_bit(signal);
}

}  // namespace

TEST_CASE("a handler runs with its mask, and Linux is told") {
  Fixture f;
  f.thread().blocked = bit(SIGUSR2);
  f.handle(SIGUSR1, 0, bit(SIGTERM) | bit(SIGKILL));
  f.arrive(SIGUSR1);
  f.return_with(5);
  REQUIRE(f.runs_handler());
  CHECK(f.thread().blocked == (bit(SIGUSR2) | bit(SIGTERM) | bit(SIGUSR1)));
  CHECK(f.host_mask == f.thread().blocked);
  CHECK(f.top().context.mask == bit(SIGUSR2));
  CHECK(f.top().context.registers.rax == 5);
  CHECK(f.top().context.registers.rip == kAfterCall);
  CHECK(f.frame.vector == kRestoredVector);
}

TEST_CASE("SA_NODEFER leaves the signal open, SA_RESETHAND the default behind") {
  Fixture f;
  f.handle(SIGUSR1, action_flag::kNoDefer | action_flag::kResetHandler);
  f.arrive(SIGUSR1);
  f.return_with(0);
  CHECK(f.thread().blocked == 0);
  CHECK(f.action(SIGUSR1).handler == kHandlerDefault);
  CHECK(f.calls.front().number == static_cast<u32>(Service::kSignalAction));
}

TEST_CASE("an interrupted call is made again or answers EINTR, as on Linux") {
  struct Row {
    i64 result;
    u64 flags;
    bool again;
  };
  const Row row = GENERATE(Row{kInterrupted, 0, false}, Row{kInterrupted, SA_RESTART, true},
                           Row{kNotStarted, 0, true}, Row{kNotStarted, SA_RESTART, true},
                           Row{-EINTR, 0, false}, Row{-EINTR, SA_RESTART, false});
  Fixture f;
  f.handle(SIGUSR1, row.flags);
  f.arrive(SIGUSR1);
  f.return_with(row.result);
  REQUIRE(f.runs_handler());
  const SignalContext& saved = f.top().context.registers;
  CHECK(saved.rip == (row.again ? kAfterCall - 2 : kAfterCall));
  CHECK(static_cast<i64>(saved.rax) == (row.again ? static_cast<i64>(kRead) : -EINTR));
}

TEST_CASE("a call that was interrupted for no handler is made again") {
  Fixture f;
  f.return_with(kInterrupted);
  CHECK(f.frame.rip == kAfterCall - 2);
  CHECK(f.frame.rax == kRead);
  CHECK(f.frame.vector == kRestoredVector);
  f.enter_call();
  f.arrive(SIGCHLD);  // its handler was just removed, and the default is to ignore it
  f.return_with(kInterrupted);
  CHECK(f.frame.rip == kAfterCall - 2);
  CHECK(f.host_mask == 0);
}

TEST_CASE("a signal that comes with the new mask is delivered on top of the first") {
  Fixture f;
  f.handle(SIGUSR1);
  f.handle(SIGUSR2);
  f.arrives_with_next_mask = SIGUSR2;
  f.arrive(SIGUSR1);
  f.return_with(0);
  REQUIRE(f.runs_handler());
  CHECK(f.frame.rdi == SIGUSR2);
  CHECK(f.top().context.registers.rip == kHandler);
  CHECK(f.top().context.registers.rdi == SIGUSR1);
  CHECK(f.top().context.mask == bit(SIGUSR1));
  CHECK(f.host_mask == (bit(SIGUSR1) | bit(SIGUSR2)));
}

TEST_CASE("a call with a mask of its own: its handler has that mask, its frame the old one") {
  Fixture f;
  f.thread().blocked = bit(SIGUSR1);
  f.handle(SIGUSR1);
  const u64 mask = bit(SIGTERM);
  TemporaryMask temporary(f.thread());
  REQUIRE(temporary.read(VirtualAddress(reinterpret_cast<u64>(&mask)), 8).is_ok());
  f.arrive(SIGUSR1);
  f.return_with(temporary.finish(-EINTR));
  REQUIRE(f.runs_handler());
  CHECK(f.top().context.mask == bit(SIGUSR1));
  CHECK(f.thread().blocked == (bit(SIGTERM) | bit(SIGUSR1)));
  CHECK_FALSE(f.thread().has_temporary_mask);
  CHECK(static_cast<i64>(f.top().context.registers.rax) == -EINTR);
}

TEST_CASE("a call with a mask of its own that no handler ended is made again") {
  Fixture f;
  const u64 mask = 0;
  TemporaryMask temporary(f.thread());
  REQUIRE(temporary.read(VirtualAddress(reinterpret_cast<u64>(&mask)), 8).is_ok());
  f.arrive(SIGCHLD);
  f.return_with(temporary.finish(-EINTR));
  CHECK(f.frame.rip == kAfterCall - 2);
  CHECK_FALSE(f.thread().has_temporary_mask);
}

TEST_CASE("a fault runs its handler with the fault's details") {
  Fixture f;
  f.handle(SIGSEGV);
  f.frame.vector = 14;
  f.frame.error_code = 6;
  force_fault_signal(f.thread(), f.frame, SIGSEGV, kCodeSegvMapping, 0x1234, 14, 6);
  REQUIRE(f.runs_handler());
  CHECK(f.top().info.fault_address == 0x1234);
  CHECK(f.top().info.code == SEGV_MAPERR);
  CHECK(f.top().context.registers.fault_address == 0x1234);
  CHECK(f.top().context.registers.trap_number == 14);
  CHECK(f.host_mask == bit(SIGSEGV));
}

TEST_CASE("a fault that is blocked, ignored or not handled ends the process") {
  Fixture f;
  f.frame.vector = 14;
  SECTION("not handled") {}
  SECTION("ignored") {
    f.action(SIGSEGV).handler = kHandlerIgnore;
  }
  SECTION("blocked") {
    f.handle(SIGSEGV);
    f.thread().blocked = bit(SIGSEGV);
  }
  CHECK_THROWS_AS(force_fault_signal(f.thread(), f.frame, SIGSEGV, kCodeSegvAccess, 0x1234, 14, 6),
                  Died);
}

TEST_CASE("the first process of a pid namespace dies of its own faults only") {
  Fixture f;
  f.process.process_id = 1;
  f.arrive(SIGQUIT);
  f.return_with(5);
  CHECK(f.frame.rax == 5);
  CHECK_THROWS_AS(force_fault_signal(f.thread(), f.frame, SIGSEGV, kCodeSegvAccess, 0x1234, 14, 6),
                  Died);
}

TEST_CASE("a signal whose frame can't be built becomes SIGSEGV, and SIGSEGV death") {
  Fixture f;
  f.handle(SIGUSR1);
  f.frame.rsp = 64;
  f.arrive(SIGUSR1);
  SECTION("without a handler for SIGSEGV") {
    CHECK_THROWS_AS(f.return_with(0), Died);
  }
  SECTION("with one on the same stack") {
    f.handle(SIGSEGV);
    CHECK_THROWS_AS(f.return_with(0), Died);
  }
  SECTION("with one on the alternate stack") {
    f.handle(SIGSEGV, action_flag::kOnStack);
    const AlternateStack stack{reinterpret_cast<u64>(f.stack), 0, 0, sizeof f.stack};
    REQUIRE(set_alternate_stack(f.thread(), stack, 64).is_ok());
    f.return_with(0);
    CHECK(f.runs_handler());
    CHECK(f.frame.rdi == SIGSEGV);
  }
}

TEST_CASE("rt_sigreturn restores registers and mask, and waits for a signal that is first") {
  Fixture f;
  f.thread().blocked = bit(SIGUSR2);
  f.handle(SIGUSR1);
  f.arrive(SIGUSR1);
  f.return_with(5);
  f.frame.rsp += 8;
  f.frame.vector = kSystemCallVector;
  const TrapFrame in_handler = f.frame;
  SECTION("nothing else") {
    CHECK(system_rt_sigreturn(f.thread(), f.frame) == 5);
    CHECK(f.frame.rip == kAfterCall);
    CHECK(f.frame.vector == kRestoredVector);
    CHECK(f.thread().blocked == bit(SIGUSR2));
    CHECK(f.host_mask == bit(SIGUSR2));
  }
  SECTION("a signal came before") {
    f.arrive(SIGTERM);
    CHECK(system_rt_sigreturn(f.thread(), f.frame) == kNotStarted);
    CHECK(memcmp(&in_handler, &f.frame, sizeof in_handler) == 0);
  }
  SECTION("a bad frame") {
    f.frame.rsp = 64;
    CHECK_THROWS_AS(system_rt_sigreturn(f.thread(), f.frame), Died);
  }
}

TEST_CASE("rt_sigprocmask changes nothing while a signal waits") {
  Fixture f;
  u64 mask = bit(SIGUSR1) | bit(SIGKILL);
  u64 old = 1;
  const VirtualAddress set(reinterpret_cast<u64>(&mask));
  const VirtualAddress out(reinterpret_cast<u64>(&old));
  CHECK(system_rt_sigprocmask(f.thread(), SIG_BLOCK, set, out, 8) == 0);
  CHECK(f.thread().blocked == bit(SIGUSR1));
  CHECK(old == 0);
  const size_t exits = f.calls.size();
  CHECK(system_rt_sigprocmask(f.thread(), SIG_BLOCK, set, out, 8) == 0);
  CHECK(f.calls.size() == exits);  // no change, no exit
  f.arrive(SIGTERM);
  CHECK(system_rt_sigprocmask(f.thread(), SIG_SETMASK, set, out, 8) == 0);
  CHECK(system_rt_sigprocmask(f.thread(), SIG_UNBLOCK, set, out, 8) == kNotStarted);
  CHECK(f.thread().blocked == bit(SIGUSR1));
  CHECK(system_rt_sigprocmask(f.thread(), 3, set, out, 8) == -EINVAL);
  CHECK(system_rt_sigprocmask(f.thread(), 0, set, out, 4) == -EINVAL);
  CHECK(system_rt_sigprocmask(f.thread(), 3, VirtualAddress(), out, 8) == 0);
}

TEST_CASE("rt_sigaction tells Linux only what Linux must know") {
  Fixture f;
  SignalAction wanted{kHandler, action_flag::kRestorer | 0x400, 7, ~u64{0}};
  SignalAction old{};
  const VirtualAddress in(reinterpret_cast<u64>(&wanted));
  const VirtualAddress out(reinterpret_cast<u64>(&old));
  CHECK(system_rt_sigaction(f.thread(), SIGUSR1, in, out, 8) == 0);
  CHECK(f.calls.size() == 1);
  CHECK(f.calls[0].arguments[1] == static_cast<u64>(SignalDisposition::kCatch));
  wanted.handler = 0x2000;
  CHECK(system_rt_sigaction(f.thread(), SIGUSR1, in, out, 8) == 0);
  CHECK(f.calls.size() == 1);
  CHECK(old.handler == kHandler);
  CHECK(old.flags == action_flag::kRestorer);
  CHECK(old.mask == ~(bit(SIGKILL) | bit(SIGSTOP)));
  wanted.handler = kHandlerIgnore;
  CHECK(system_rt_sigaction(f.thread(), SIGUSR1, in, out, 8) == 0);
  CHECK(f.calls.size() == 2);
  CHECK(system_rt_sigaction(f.thread(), SIGKILL, in, out, 8) == -EINVAL);
  CHECK(system_rt_sigaction(f.thread(), SIGKILL, VirtualAddress(), out, 8) == 0);
  CHECK(system_rt_sigaction(f.thread(), 65, VirtualAddress(), out, 8) == -EINVAL);
  CHECK(system_rt_sigaction(f.thread(), 0, VirtualAddress(), out, 8) == -EINVAL);
  CHECK(system_rt_sigaction(f.thread(), SIGUSR1, in, out, 4) == -EINVAL);
}

TEST_CASE("what dbos-run inherited is the program's") {
  Fixture f;
  BootInformation boot{};
  boot.ignored_signals = bit(SIGPIPE);
  boot.blocked_signals = bit(SIGUSR1) | bit(SIGKILL);
  initialize_signals(f.process, f.thread(), boot);
  CHECK(f.action(SIGPIPE).handler == kHandlerIgnore);
  CHECK(f.action(SIGUSR1).handler == kHandlerDefault);
  CHECK(f.thread().blocked == bit(SIGUSR1));
}

}  // namespace dbos
