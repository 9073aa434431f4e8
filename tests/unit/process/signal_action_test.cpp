// What Linux knows of the program's handlers while threads change them and fork at the same time.
#include "guest/process/signal_actions.h"

#include <csignal>

#include <catch2/catch.hpp>
#include <chrono>
#include <mutex>
#include <stdexcept>
#include <thread>

#include "guest/process/signal.h"
#include "guest/syscalls/signal_calls.h"
#include "tests/unit/process/fake_kernel.h"

namespace dbos {
namespace {

constexpr u64 kHandler = 0x1000;
constexpr u64 kOtherHandler = 0x2000;

// Catch's own checks are not for several threads.
void must_be_done(i64 result) {
  if (result != 0) throw std::runtime_error("sigaction failed");
}

// A program's thread, and a Linux that is told of signals.
struct Fixture {
  Process process{};
  fake::ProgramThread self;
  std::mutex mutex;
  SignalDisposition known[kSignalCount + 1] = {};
  std::vector<u32> told;              // signals, in order
  std::function<void()> before_next;  // the next of these calls takes effect after this

  Fixture() : self((process.space = fake::space(0), process)) {
    fake::on_hypercall = [this](const Call& call) { return answer(call); };
  }
  ~Fixture() { fake::on_hypercall = nullptr; }

  i64 answer(const Call& call) {
    if (!is(call, Service::kSignalAction)) return 0;
    std::unique_lock lock(mutex);
    const std::function<void()> before = std::move(before_next);
    before_next = nullptr;
    lock.unlock();
    if (before) before();
    lock.lock();
    told.push_back(static_cast<u32>(call.arguments[0]));
    known[call.arguments[0]] = static_cast<SignalDisposition>(call.arguments[1]);
    return 0;
  }
  SignalDisposition known_of(u32 signal) {
    const std::lock_guard lock(mutex);
    return known[signal];
  }
  void set(Thread& thread, u32 signal, u64 handler, u64 flags = 0) {
    SignalAction wanted{handler, flags | action_flag::kRestorer, 0, 0};
    const VirtualAddress in(reinterpret_cast<u64>(&wanted));
    must_be_done(system_rt_sigaction(thread, signal, in, VirtualAddress(), 8));
  }
  SignalAction get(Thread& thread, u32 signal) {
    SignalAction action{};
    const VirtualAddress out(reinterpret_cast<u64>(&action));
    must_be_done(system_rt_sigaction(thread, signal, VirtualAddress(), out, 8));
    return action;
  }
};

// Another thread of the program, which gets so long to end before start() returns.
class OtherThread {
 public:
  ~OtherThread() {
    if (thread_.joinable()) thread_.join();
  }
  template <typename Body>
  void start(Process& process, Body body) {
    thread_ = std::thread([this, &process, body] {
      fake::ProgramThread self(process);
      body(self.thread());
      has_ended_ = true;
    });
    using namespace std::chrono_literals;
    for (int i = 0; i < 50 && !has_ended_; ++i) std::this_thread::sleep_for(1ms);
  }
  void join() { thread_.join(); }

 private:
  std::thread thread_;
  std::atomic<bool> has_ended_{false};
};

}  // namespace

TEST_CASE("Linux knows a handler when sigaction returns, whoever was about to tell of another") {
  Fixture f;
  OtherThread other;
  SignalDisposition at_return{};
  f.before_next = [&] {
    other.start(f.process, [&](Thread& thread) {
      f.set(thread, SIGUSR1, kOtherHandler);
      at_return = f.known_of(SIGUSR1);
    });
  };
  f.set(f.self.thread(), SIGUSR1, kHandler);
  other.join();
  CHECK(at_return == SignalDisposition::kCatch);
  CHECK(f.told.size() == 1);
  CHECK(f.process.actions[SIGUSR1 - 1].handler == kOtherHandler);
}

TEST_CASE("whoever sees another thread's handler may rely on it") {
  Fixture f;
  OtherThread other;
  SignalDisposition at_return{};
  u64 seen = 0;
  f.before_next = [&] {
    other.start(f.process, [&](Thread& thread) {
      seen = f.get(thread, SIGUSR1).handler;
      at_return = f.known_of(SIGUSR1);
    });
  };
  f.set(f.self.thread(), SIGUSR1, kHandler);
  other.join();
  CHECK(seen == kHandler);
  CHECK(at_return == SignalDisposition::kCatch);
}

TEST_CASE("Linux learns last what the table says last") {
  Fixture f;
  OtherThread other;
  f.before_next = [&] {
    other.start(f.process, [&](Thread& thread) { f.set(thread, SIGUSR1, kHandlerIgnore); });
  };
  f.set(f.self.thread(), SIGUSR1, kHandler);
  other.join();
  CHECK(f.known_of(SIGUSR1) == SignalDisposition::kIgnore);
  CHECK(f.told == std::vector<u32>{SIGUSR1, SIGUSR1});
}

TEST_CASE("a handler that is set while SA_RESETHAND takes one away stays") {
  Fixture f;
  f.set(f.self.thread(), SIGUSR1, kHandler, action_flag::kResetHandler);
  OtherThread other;
  f.before_next = [&] {
    other.start(f.process, [&](Thread& thread) { f.set(thread, SIGUSR1, kOtherHandler); });
  };
  std::vector<u8> stack(65536);
  TrapFrame frame{};
  frame.vector = kSystemCallVector;
  frame.rsp = reinterpret_cast<u64>(stack.data()) + stack.size();
  f.self.page().signal.number = SIGUSR1;
  deliver_pending_signal(f.self.thread(), frame);
  other.join();
  CHECK(frame.rip == kHandler);
  CHECK(f.process.actions[SIGUSR1 - 1].handler == kOtherHandler);
  CHECK(f.known_of(SIGUSR1) == SignalDisposition::kCatch);
}

TEST_CASE("a child tells Linux nothing where its parent's threads changed nothing") {
  Fixture f;
  f.set(f.self.thread(), SIGUSR1, kHandler);
  f.told.clear();
  Process child{};
  InheritedActions inherited;
  begin_inheritance(child, f.process, inherited);
  end_inheritance(f.process, inherited);
  f.set(f.self.thread(), SIGUSR2, kHandler);  // too late for the child
  f.told.clear();
  tell_uncertain(child, inherited);
  CHECK(f.told.empty());
  CHECK(child.actions[SIGUSR1 - 1].handler == kHandler);
  CHECK(child.actions[SIGUSR2 - 1].handler == kHandlerDefault);
}

TEST_CASE("a child tells Linux of what its parent's threads told meanwhile") {
  Fixture f;
  f.set(f.self.thread(), SIGUSR1, kHandler);
  Process child{};
  InheritedActions inherited;
  SECTION("after the table was copied") {
    begin_inheritance(child, f.process, inherited);
    f.set(f.self.thread(), SIGUSR1, kHandlerIgnore);
  }
  SECTION("before, and Linux knows later") {
    f.before_next = [&] { begin_inheritance(child, f.process, inherited); };
    f.set(f.self.thread(), SIGUSR1, kHandlerIgnore);
  }
  SECTION("before, and Linux does not know") {
    {
      LockGuard guard(f.process.signal_lock);
      set_action(f.process, SIGUSR1, SignalAction{kHandlerIgnore, 0, 0, 0});
    }
    begin_inheritance(child, f.process, inherited);
  }
  const u64 handler = child.actions[SIGUSR1 - 1].handler;
  end_inheritance(f.process, inherited);
  CHECK(f.process.heirs == nullptr);
  f.told.clear();
  tell_uncertain(child, inherited);
  CHECK(f.told == std::vector<u32>{SIGUSR1});
  CHECK(f.known_of(SIGUSR1) ==
        (handler == kHandler ? SignalDisposition::kCatch : SignalDisposition::kIgnore));
  CHECK(child.untold_signals == 0);
}

TEST_CASE("several children that are being made at once are each told of") {
  Fixture f;
  Process children[3] = {};
  InheritedActions inherited[3];
  for (int i = 0; i < 3; ++i) begin_inheritance(children[i], f.process, inherited[i]);
  end_inheritance(f.process, inherited[1]);
  f.set(f.self.thread(), SIGUSR1, kHandler);
  CHECK(inherited[0].uncertain == signal_bit(SIGUSR1));
  CHECK(inherited[1].uncertain == 0);
  CHECK(inherited[2].uncertain == signal_bit(SIGUSR1));
  end_inheritance(f.process, inherited[2]);
  end_inheritance(f.process, inherited[0]);
  CHECK(f.process.heirs == nullptr);
}

TEST_CASE("a child without handlers keeps what is ignored") {
  Fixture f;
  f.set(f.self.thread(), SIGUSR1, kHandler);
  f.set(f.self.thread(), SIGUSR2, kHandlerIgnore);
  Process child{};
  InheritedActions inherited;
  begin_inheritance(child, f.process, inherited);
  end_inheritance(f.process, inherited);
  f.told.clear();
  clear_handlers(child);
  tell_uncertain(child, inherited);
  CHECK(f.told == std::vector<u32>{SIGUSR1});
  CHECK(f.known_of(SIGUSR1) == SignalDisposition::kDefault);
  CHECK(child.actions[SIGUSR1 - 1].handler == kHandlerDefault);
  CHECK(child.actions[SIGUSR2 - 1].handler == kHandlerIgnore);
}

}  // namespace dbos
