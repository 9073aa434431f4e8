#include "tests/unit/process/life_host.h"

#include <asm/unistd_64.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <ctime>
#include <iterator>
#include <map>
#include <mutex>
#include <thread>

#include "guest/arch/cpu.h"
#include "guest/arch/trap.h"
#include "guest/hypercall.h"
#include "guest/memory/address_space.h"
#include "guest/memory/user_copy.h"
#include "guest/process/clock.h"
#include "guest/process/clone.h"
#include "guest/process/exit.h"
#include "guest/process/extended_state.h"
#include "guest/process/helper.h"
#include "guest/process/process_table.h"
#include "guest/process/robust_list.h"
#include "guest/process/signal.h"
#include "tests/unit/host_platform.h"

namespace dbos::life {

void (*program)() = nullptr;

namespace {

using namespace std::chrono_literals;

constexpr u32 kVcpus = 48;
constexpr u32 kProcessesMax = 16;

// Its host thread has ended: leaves the guest kernel's code.
struct ThreadEnded {};

struct HostProcess {
  u32 threads = 0;
  bool is_killed = false;
  SignalDisposition dispositions[kSignalCount + 1] = {};  // [0] unused
};
struct Vcpu {
  bool is_used = false;
  i32 process_id = 0;
  Thread thread;
  HypercallPage page;
  TrapFrame frame;
  std::mt19937 random;
  bool is_woken = false;
  std::map<u64, i64> made;  // by the start argument: children whose maker does not know of them
};

// All of Linux, with one lock.
std::mutex mutex;
std::condition_variable changed;
Vcpu vcpus[kVcpus];
std::map<i32, HostProcess> processes;
u32 threads_running = 0;
i32 next_id = 0;
u32 master_seed = 0;
u64 helper_start = 0;  // its argument, until the first fork
i32 first_id = 0;
Counts counted = {};

thread_local Vcpu* self = nullptr;

void begin(Vcpu& vcpu, u32 index, i32 process_id, u64 start, void (*enter)(u64));

void enter_thread(u64 start) {
  start_thread(start);
}
void enter_helper(u64) {
  run_helper();
}
void enter_first(u64 argument) {
  Process& first = *reinterpret_cast<Process*>(argument);
  self->thread.process = &first;
  self->thread.space = first.space;
  self->thread.thread_id = static_cast<i32>(self->page.thread_id);
  link_thread(first, self->thread);
  arch::activate_space(*first.space);
  program();
}

// With the lock. Null: no vCPU is left.
Vcpu* make_thread(i32 process_id, u64 start, void (*enter)(u64)) {
  for (u32 i = 0; i < kVcpus; ++i) {
    if (vcpus[i].is_used) continue;
    begin(vcpus[i], i, process_id, start, enter);
    return &vcpus[i];
  }
  return nullptr;
}

void leave(Vcpu& vcpu) {
  const std::lock_guard guard(mutex);
  const auto process = processes.find(vcpu.process_id);
  if (--process->second.threads == 0) processes.erase(process);
  vcpu.is_used = false;
  --threads_running;
  changed.notify_all();
}

void begin(Vcpu& vcpu, u32 index, i32 process_id, u64 start, void (*enter)(u64)) {
  vcpu.is_used = true;
  vcpu.process_id = process_id;
  vcpu.is_woken = false;
  vcpu.made.clear();
  __builtin_memset(static_cast<void*>(&vcpu.thread), 0, sizeof vcpu.thread);
  __builtin_memset(static_cast<void*>(&vcpu.page), 0, sizeof vcpu.page);
  vcpu.thread.vcpu = index;
  vcpu.page.thread_id = static_cast<u32>(++next_id);
  vcpu.page.process_id = static_cast<u32>(process_id);
  vcpu.random.seed(master_seed + static_cast<u32>(next_id));
  ++processes[process_id].threads;
  ++threads_running;
  ++counted.threads;
  std::thread([&vcpu, index, start, enter] {
    self = &vcpu;
    host::set_vcpu(index);
    try {
      enter(start);
    } catch (const ThreadEnded&) {
    }
    leave(vcpu);
  }).detach();
}

bool chance(u32 one_in) {
  return self->random() % one_in == 0;
}

// Whoever is killed is adopted by another host thread, which finds the call unanswered.
i64 adopt() {
  host::is_dying = true;
  return kInterrupted;
}

u64 now_ns(u64 clock) {
  timespec now{};
  clock_gettime(clock == 0 ? CLOCK_REALTIME : CLOCK_MONOTONIC, &now);
  return static_cast<u64>(now.tv_sec) * 1'000'000'000 + static_cast<u64>(now.tv_nsec);
}

bool is_killed_locked() {
  return processes[self->process_id].is_killed;
}

i64 park(std::unique_lock<std::mutex>& lock, u64 until, u64 clock) {
  while (!self->is_woken && !is_killed_locked()) {
    if (now_ns(clock) >= until) return -ETIMEDOUT;
    changed.wait_for(lock, 1ms);
  }
  if (!self->is_woken) return adopt();
  self->is_woken = false;
  return 0;
}

void copy_dispositions(HostProcess& child, const HostProcess& parent) {
  std::copy(std::begin(parent.dispositions), std::end(parent.dispositions), child.dispositions);
}

// Takes a while, so that other threads come in between. It is done also for who is killed: a child
// that is made after it has it.
i64 set_disposition(std::unique_lock<std::mutex>& lock, u64 signal, u64 disposition) {
  lock.unlock();
  std::this_thread::yield();
  lock.lock();
  processes[self->process_id].dispositions[signal] = static_cast<SignalDisposition>(disposition);
  return is_killed_locked() ? adopt() : 0;
}

// The result is the child's id. Who is killed meanwhile may find that the child exists, or not.
i64 make_child(Service service, u64 start) {
  const bool is_process = service == Service::kProcessFork;
  if (is_process && processes.size() >= kProcessesMax) return -EAGAIN;
  if (is_process && helper_start != 0 && processes.count(first_id) != 0) {
    if (make_thread(first_id, helper_start, enter_helper) != nullptr) helper_start = 0;
  }
  const i32 process_id = is_process ? ++next_id : self->process_id;
  Vcpu* const child = make_thread(process_id, start, enter_thread);
  if (child == nullptr) return -EAGAIN;
  if (is_process) copy_dispositions(processes[process_id], processes[self->process_id]);
  counted.processes += is_process;
  return is_process ? process_id : static_cast<i64>(child->page.thread_id);
}

i64 make_child(std::unique_lock<std::mutex>& lock, Service service, u64 start, bool waits) {
  if (const auto found = self->made.find(start); found != self->made.end()) return found->second;
  if (host::is_dying) return -EINTR;
  const bool is_killed_after = is_killed_locked();
  if (is_killed_after && chance(2)) return adopt();
  const i64 id = make_child(service, start);
  if (id > 0 && waits) {
    while (processes.count(static_cast<i32>(id)) != 0 && !is_killed_locked()) {
      changed.wait_for(lock, 1ms);
    }
  }
  if (!is_killed_after && !(waits && is_killed_locked())) return id;
  self->made[start] = id;
  ++counted.killed_while_making;
  return adopt();
}

void end_process(i32 process_id) {
  const auto process = processes.find(process_id);
  if (process == processes.end() || process->second.is_killed) return;
  process->second.is_killed = true;
  ++counted.killed;
  changed.notify_all();
}

// `has_released`: the vCPU holds nothing any more, and ends, unless it is killed just before.
i64 end(bool has_released) {
  if (has_released && (host::is_dying || !chance(4))) throw ThreadEnded{};
  return adopt();
}

i64 answer(Service service, u64 a0, u64 a1, u64 a2) {
  std::unique_lock lock(mutex);
  switch (service) {
    case Service::kPark:
      return park(lock, a0, a1);
    case Service::kWake:
      vcpus[a0].is_woken = true;
      changed.notify_all();
      return 0;
    case Service::kHelper:
      helper_start = a0;
      return 0;
    case Service::kThreadCreate:
      return make_child(lock, service, a0, false);
    case Service::kProcessFork:
      return make_child(lock, service, a0, a2 != 0);
    case Service::kThreadExit:
      return end(true);
    case Service::kExit:
      end_process(self->process_id);
      return end(a1 == 1);
    case Service::kDie:
      end_process(self->process_id);
      return end(false);
    case Service::kSignalAction:
      return set_disposition(lock, a0, a1);
    case Service::kLog:
    case Service::kYield:
    case Service::kMemoryRelease:
      return 0;
    default:
      throw std::runtime_error("an unexpected service");
  }
}

}  // namespace

void run(Process& first, u32 seed) {
  std::unique_lock lock(mutex);
  master_seed = seed;
  first_id = ++next_id;
  first.process_id.store(first_id);
  make_thread(first_id, reinterpret_cast<u64>(&first), enter_first);
  changed.wait(lock, [] { return threads_running == 0; });
  helper_start = 0;
}

std::mt19937& random_numbers() {
  return self->random;
}
TrapFrame& frame() {
  return self->frame;
}

void kill(i32 process_id) {
  const std::lock_guard guard(mutex);
  end_process(process_id);
}
bool is_killed() {
  const std::lock_guard guard(mutex);
  if (is_killed_locked()) (void)adopt();
  return host::is_dying;
}
i32 any_process() {
  const std::lock_guard guard(mutex);
  auto chosen = processes.begin();
  std::advance(chosen, self->random() % processes.size());
  return chosen->first;
}
void wait_for(i32 process_id) {
  std::unique_lock lock(mutex);
  while (processes.count(process_id) != 0 && !is_killed_locked()) changed.wait_for(lock, 1ms);
}
SignalDisposition disposition(u32 signal) {
  const std::lock_guard guard(mutex);
  return processes[self->process_id].dispositions[signal];
}
Counts counts() {
  const std::lock_guard guard(mutex);
  return counted;
}

}  // namespace dbos::life

// ---- What the guest kernel's code finds below it ----

namespace dbos {

Thread& current_thread() {
  return life::self->thread;
}
HypercallPage& current_hypercall_page() {
  return life::self->page;
}
i64 hypercall(u32 number, u64 a0, u64 a1, u64 a2, u64, u64, u64) {
  if (static_cast<Service>(number) != Service::kEndFork) {
    return life::answer(static_cast<Service>(number), a0, a1, a2);
  }
  life::kill(static_cast<i32>(a0));
  return 0;
}
u64 clock_now(u32 clock) {
  return life::now_ns(clock);
}

// Delivery of signals and futexes have tests of their own.
void inherit_signal_state(Thread&, const Thread&, bool) {}
void release_futexes(Thread&) {}
Result<void> copy_from_program(void*, VirtualAddress, u64) {
  return Error(EFAULT);
}
Result<void> copy_to_program(VirtualAddress, const void*, u64) {
  return Error(EFAULT);
}
void save_extended_state(ExtendedStateBuffer&) {}
bool restore_extended_state(ExtendedStateBuffer&) {
  return true;
}

namespace arch {

void activate_space(AddressSpace& space) {
  space.vcpus().add(current_thread().vcpu);
}
void leave_space(PhysicalAddress) {
  current_thread().space->vcpus().remove(current_thread().vcpu);
}
TrapFrame& top_frame() {
  return life::frame();
}
void return_to_program(TrapFrame&) {
  if (life::is_killed()) exit_thread_dying();
}
void resume_program(TrapFrame*) {
  life::program();
  __builtin_unreachable();
}

}  // namespace arch
}  // namespace dbos
