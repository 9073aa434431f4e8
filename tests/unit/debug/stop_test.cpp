// Threads that stop for a debugger, and those that come to it when it is going: vmm/debug/hold.cpp
// and stop.cpp, with virtual CPUs that never run.
#include "vmm/debug/stop.h"

#include <sys/mman.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <chrono>
#include <functional>
#include <future>
#include <thread>

#include "vmm/debug/debug_state.h"
#include "vmm/kvm/kvm_api.h"
#include "vmm/process/attention.h"
#include "vmm/process/host_process.h"

namespace {

std::function<void()> on_write;  // of a byte to the program's memory

}  // namespace

namespace dbos::vmm {

VcpuPool& vcpus() {
  alignas(VcpuPool) static unsigned char nothing[sizeof(VcpuPool)];
  return *reinterpret_cast<VcpuPool*>(nothing);
}
void VcpuPool::prepare(const HostProcess& /*process*/, uint32_t wanted, const Vcpu* /*taker*/) {
  count_.store(wanted);
}
int64_t request_attention(Vcpu& /*vcpu*/) {
  return 0;
}
int keep_descriptor(int descriptor) {
  return descriptor;
}
void bring_into_kernel(const Vcpu& /*vcpu*/) {}
bool load_special_registers(const Vcpu& /*vcpu*/, Registers* /*registers*/) {
  return false;
}
void store_special_registers(const Vcpu& /*vcpu*/, const Registers& /*registers*/) {}
void load_debug_registers(const Vcpu& /*vcpu*/, ThreadStop& stop) {
  stop.debug_registers = debug_state().hardware_version;
}
void clear_debug_registers(const Vcpu& /*vcpu*/, ThreadStop& /*stop*/) {}
bool has_debug_registers() {
  return true;
}
void release_agent() {}
size_t transfer_by_agent(DebugOperation /*operation*/, const HostProcess& /*process*/,
                         uint64_t /*address*/, void* /*data*/, size_t size) {
  if (on_write) on_write();
  return size;
}
size_t read_program(uint64_t /*address*/, void* /*destination*/, size_t size) {
  return size;
}

}  // namespace dbos::vmm

namespace {

using namespace dbos;
using namespace dbos::vmm;

constexpr uint32_t kThreads = 3;
constexpr uint64_t kAddress = 0x1000;
constexpr auto kLong = std::chrono::seconds(20);

HostProcess process;
HypercallPage pages[kThreads];
kvm_run runs[kThreads];

// A program of three threads, each in a call of its own, with a debugger: this thread.
class Debugged {
 public:
  Debugged() {
    static const bool is_ready = prepare();
    REQUIRE(is_ready);
    for (uint32_t i = 0; i < kThreads; ++i) {
      thread(i).current_call.store(service_call(Service::kPark));
      thread(i).page->debug = 0;
      thread(i).making.child.store(nullptr);
      program_frame(i) = {};
      stop(i).is_debugged = true;
      stop(i).exit_cause = StopCause::kNone;
      stop(i).held.store(0);
    }
    REQUIRE(attach_debugger("the test").empty());
    REQUIRE(stop_all(0));
  }
  ~Debugged() { detach_debugger(); }
  Debugged(const Debugged&) = delete;
  Debugged& operator=(const Debugged&) = delete;

  static Vcpu& thread(uint32_t i) { return vcpus().at(i); }
  static ThreadStop& stop(uint32_t i) { return debug_state().threads[i]; }
  static uint32_t service_call(Service service) { return static_cast<uint32_t>(service); }

 private:
  static bool prepare() {
    vcpus().prepare(process, kThreads, nullptr);
    for (uint32_t i = 0; i < kThreads; ++i) {
      const uint64_t at = program_frame_address(i) / 4096 * 4096;
      void* const frame =
          mmap(reinterpret_cast<void*>(at), 8192, PROT_READ | PROT_WRITE,
               MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE | MAP_NORESERVE, -1, 0);
      if (frame == MAP_FAILED) return false;
      Vcpu& vcpu = thread(i);
      vcpu.index = i;
      vcpu.process = &process;
      vcpu.page = &pages[i];
      vcpu.run = &runs[i];
      vcpu.state.store(VcpuState::kBusy);
      vcpu.host_thread.store(own_thread_id());
      vcpu.begin_life();
    }
    enable_debugging(thread(0), false);
    return true;
  }
};

Call debug_stop(DebugCause cause, uint64_t argument) {
  Call call = {};
  call.arguments[0] = static_cast<uint64_t>(cause);
  call.arguments[1] = argument;
  return call;
}

// What thread `i` gets that comes to stop, on a host thread of its own.
std::future<int64_t> come_to_stop(uint32_t i, DebugCause cause, uint64_t argument) {
  return std::async(std::launch::async, [=] {
    return hold_for_debugger(Debugged::thread(i), debug_stop(cause, argument));
  });
}

// False: it has not come. Who is held is let go by the end of its Debugged: a future of it is to
// live longer.
bool is_held(uint32_t i) {
  const auto end = std::chrono::steady_clock::now() + kLong;
  while (Debugged::stop(i).held.load() == 0) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::yield();
  }
  return true;
}

bool ends(std::future<int64_t>& held) {
  return held.wait_for(kLong) == std::future_status::ready;
}

}  // namespace

TEST_CASE("who comes to stop behind a debugger that has gone goes on") {
  { const Debugged program; }
  std::future<int64_t> signal = come_to_stop(0, DebugCause::kSignal, SIGALRM);
  REQUIRE(ends(signal));
  CHECK(signal.get() == SIGALRM);
}

TEST_CASE("what a thread has hit before the debugger went does not hold it afterwards") {
  {
    const Debugged program;
    REQUIRE(insert_breakpoint(BreakpointKind::kHardwareWrite, kAddress, 8).text.empty());
    runs[0].debug.arch.dr6 = 1;
    note_debug_exit(Debugged::thread(0));
    CHECK(Debugged::stop(0).exit_cause == StopCause::kWatchpoint);
  }
  std::future<int64_t> wanted = come_to_stop(0, DebugCause::kWanted, 0);
  REQUIRE(ends(wanted));
  CHECK(Debugged::stop(0).exit_cause == StopCause::kNone);
}

TEST_CASE("a breakpoint that two threads have hit is passed by the one that was told of") {
  std::vector<std::future<int64_t>> held;
  const Debugged program;
  REQUIRE(insert_breakpoint(BreakpointKind::kHardwareExecute, kAddress, 1).text.empty());
  for (const uint32_t i : {0, 1}) {
    runs[i].debug.arch.dr6 = 1;
    note_debug_exit(Debugged::thread(i));
    held.push_back(come_to_stop(i, DebugCause::kWanted, 0));
    REQUIRE(is_held(i));
  }
  const auto event = take_event();
  REQUIRE(event);
  resume({}, Run::kContinue);
  for (std::future<int64_t>& one : held) REQUIRE(ends(one));
  CHECK((program_frame(event->vcpu).rflags & kFlagResume) != 0);
  CHECK((program_frame(1 - event->vcpu).rflags & kFlagResume) == 0);
  REQUIRE(stop_all(0));
}

TEST_CASE("a breakpoint stays in the list until a fork has announced its child") {
  const Debugged program;
  REQUIRE(insert_breakpoint(BreakpointKind::kSoftware, kAddress, 1).text.empty());
  program_frame(1).vector = kSystemCallVector;
  program_frame(1).error_code = __NR_fork;
  std::atomic<bool> is_announced{false};
  std::thread fork([&is_announced] {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    is_announced = true;
    Debugged::thread(1).making.child.store(&Debugged::thread(2));
  });
  bool was_announced = false;
  on_write = [&] { was_announced = is_announced; };
  REQUIRE(remove_breakpoint(BreakpointKind::kSoftware, kAddress, 1).text.empty());
  on_write = nullptr;
  fork.join();
  CHECK(was_announced);
}

// gdb 13 ends with an assertion where it is told of a thread that it has not let go.
TEST_CASE("what a thread has hit is told when the debugger lets that thread go on") {
  std::future<int64_t> hit;
  const Debugged program;
  REQUIRE(insert_breakpoint(BreakpointKind::kHardwareWrite, kAddress, 8).text.empty());
  runs[0].debug.arch.dr6 = 1;
  note_debug_exit(Debugged::thread(0));
  hit = come_to_stop(0, DebugCause::kWanted, 0);
  REQUIRE(is_held(0));
  const ThreadRun other = {1, Run::kContinue, kOwnSignal};
  resume({&other, 1}, Run::kStay);
  CHECK_FALSE(is_stopped());
  CHECK_FALSE(take_event());
  REQUIRE(stop_all(0));
  resume({}, Run::kContinue);
  CHECK(is_stopped());
  const auto event = take_event();
  REQUIRE(event);
  CHECK(event->vcpu == 0);
  CHECK(event->cause == StopCause::kWatchpoint);
  resume({}, Run::kContinue);
  REQUIRE(ends(hit));
  REQUIRE(stop_all(0));
}

TEST_CASE("a thread that was held for long when the debugger goes is the next one's as well") {
  std::future<int64_t> held;
  {
    const Debugged program;
    held = come_to_stop(0, DebugCause::kSignal, SIGALRM);
    REQUIRE(is_held(0));
    // It looks after a second, when the debugger is on its way.
    const HostLockGuard guard(debug_state().lock);
    debug_state().holds.store(false);
    std::this_thread::sleep_for(std::chrono::milliseconds(1200));
    Debugged::stop(0).held.store(0);
    Debugged::stop(0).go.store(1);
  }
  REQUIRE(ends(held));
  CHECK(Debugged::stop(0).is_debugged);
}

TEST_CASE("a thread that begins when the program is stopped, or was, does as the others do") {
  Vcpu& child = Debugged::thread(1);
  ThreadStop& stop = Debugged::stop(1);
  const auto make = [&] {
    child.end_life(VcpuState::kBusy);
    prepare_debugging(child, Debugged::thread(0), Birth::kThread);
  };
  const auto begin = [&] {
    child.begin_life();
    begin_debugging(child);
  };
  {
    const Debugged program;
    make();
    begin();
    CHECK(stop.is_wanted);
    CHECK((pages[1].debug & kDebugTraps) != 0);
    CHECK((pages[1].debug & kDebugStopWanted) != 0);
    make();
    resume({}, Run::kContinue);
    begin();
    CHECK_FALSE(stop.is_wanted);
    CHECK((pages[1].debug & kDebugTraps) != 0);
    REQUIRE(stop_all(0));
    const ThreadRun alone = {0, Run::kContinue, kOwnSignal};
    make();
    resume({&alone, 1}, Run::kStay);
    begin();
    CHECK(stop.is_wanted);
    CHECK(stop.stays);
    REQUIRE(stop_all(0));
    make();
  }
  begin();
  CHECK_FALSE(stop.is_wanted);
  CHECK((pages[1].debug & kDebugTraps) == 0);
  make();
  const Debugged program;
  begin();
  CHECK((pages[1].debug & kDebugTraps) != 0);
}

TEST_CASE("who was taken over a breakpoint hits the one behind it") {
  std::future<int64_t> hit, step;
  std::future<void> going;
  const Debugged program;
  REQUIRE(insert_breakpoint(BreakpointKind::kSoftware, kAddress, 1).text.empty());
  program_frame(0).rip = kAddress + 1;
  hit = come_to_stop(0, DebugCause::kTrap, kBreakpointVector);
  REQUIRE(is_held(0));
  REQUIRE(take_event());
  Debugged::thread(0).current_call.store(kNoCall);
  going = std::async(std::launch::async, [] { resume({}, Run::kContinue); });
  REQUIRE(ends(hit));
  program_frame(0).rip = kAddress + 4;
  program_frame(0).rflags = 0;
  step = come_to_stop(0, DebugCause::kTrap, kDebugVector);
  REQUIRE(going.wait_for(kLong) == std::future_status::ready);
  REQUIRE(ends(step));
  CHECK((program_frame(0).rflags & kFlagResume) == 0);
  Debugged::thread(0).current_call.store(Debugged::service_call(Service::kPark));
  REQUIRE(stop_all(0));
}

TEST_CASE("the signal that a thread gets at a breakpoint is the debugger's, and comes once") {
  std::future<int64_t> held;
  std::future<void> going;
  const Debugged program;
  REQUIRE(insert_breakpoint(BreakpointKind::kSoftware, kAddress, 1).text.empty());
  program_frame(0) = {};
  program_frame(0).rip = kAddress;
  held = come_to_stop(0, DebugCause::kSignal, SIGALRM);
  REQUIRE(is_held(0));
  REQUIRE(take_event());
  Debugged::thread(0).current_call.store(kNoCall);
  const ThreadRun suppressed = {0, Run::kContinue, 0};
  going = std::async(std::launch::async, [&] { resume({&suppressed, 1}, Run::kContinue); });
  REQUIRE(ends(held));
  CHECK(held.get() == 0);
  held = come_to_stop(0, DebugCause::kTrap, kDebugVector);
  REQUIRE(going.wait_for(kLong) == std::future_status::ready);
  REQUIRE(ends(held));
  CHECK(Debugged::stop(0).signal_to_come == 0);
  Debugged::thread(0).current_call.store(Debugged::service_call(Service::kPark));
  REQUIRE(stop_all(0));
}
