#include "tests/unit/process/fake_kernel.h"

#include <ctime>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <memory>
#include <mutex>
#include <stdexcept>

#include "guest/hypercall.h"
#include "guest/memory/address_space.h"
#include "guest/memory/heap.h"
#include "guest/memory/user_copy.h"
#include "guest/process/clock.h"
#include "guest/process/exit.h"
#include "guest/process/futex_memory.h"
#include "guest/process/signal.h"
#include "tests/unit/host_platform.h"

namespace dbos {

namespace {

constexpr u32 kVcpus = 64;

struct Parking {
  std::mutex mutex;
  std::condition_variable changed;
  bool woken = false;
  i64 interrupt = 0;
};
// Not destroyed: threads may still be in it when the test program ends.
Parking* const parking = new Parking[kVcpus];
std::mutex vcpus_mutex;
bool vcpu_used[kVcpus];
Thread* const threads = static_cast<Thread*>(std::calloc(kVcpus, sizeof(Thread)));
HypercallPage pages[kVcpus];

thread_local Thread* this_thread = nullptr;
thread_local HypercallPage* this_page = nullptr;
thread_local bool absent_once = false;

u64 bad_begin = 0;
u64 bad_end = 0;
std::atomic<bool> absent_first{false};

bool is_accessible(u64 address, u64 size) {
  if (address < 4096 || address >= kProgramEnd) return false;
  return (address + size <= bad_begin || address >= bad_end);
}

i64 park(u64 deadline, u64 clock) {
  Parking& own = parking[this_thread->vcpu];
  std::unique_lock lock(own.mutex);
  const auto is_over = [&own] { return own.woken || own.interrupt != 0; };
  if (deadline == UINT64_MAX) {
    own.changed.wait(lock, is_over);
  } else {
    timespec now{};
    clock_gettime(static_cast<clockid_t>(clock), &now);
    const u64 now_ns = static_cast<u64>(now.tv_sec) * 1'000'000'000 + static_cast<u64>(now.tv_nsec);
    const u64 left = deadline > now_ns ? deadline - now_ns : 0;
    own.changed.wait_for(lock, std::chrono::nanoseconds(left), is_over);
  }
  if (own.woken) {
    own.woken = false;
    return 0;
  }
  if (own.interrupt != 0) {
    const i64 result = own.interrupt;
    own.interrupt = 0;
    this_page->signal.number = 10;
    return result;
  }
  return -ETIMEDOUT;
}

i64 wake(u64 vcpu) {
  Parking& other = parking[vcpu];
  {
    const std::lock_guard lock(other.mutex);
    other.woken = true;
  }
  other.changed.notify_one();
  return 0;
}

i64 answer(const Call& call) {
  if (is(call, Service::kPark)) return park(call.arguments[0], call.arguments[1]);
  if (is(call, Service::kWake)) return wake(call.arguments[0]);
  if (!fake::on_hypercall) throw std::runtime_error("an unexpected hypercall");
  return fake::on_hypercall(call);
}

}  // namespace

namespace fake {

std::function<i64(const Call&)> on_hypercall;

ProgramThread::ProgramThread(Process& process, i32 thread_id) {
  const std::lock_guard lock(vcpus_mutex);
  u32 vcpu = 0;
  while (vcpu_used[vcpu]) vcpu++;
  vcpu_used[vcpu] = true;
  thread_ = &threads[vcpu];
  page_ = &pages[vcpu];
  std::memset(static_cast<void*>(thread_), 0, sizeof *thread_);
  *page_ = {};
  thread_->vcpu = vcpu;
  thread_->thread_id = thread_id != 0 ? thread_id : static_cast<i32>(1000 + vcpu);
  thread_->process = &process;
  thread_->space = process.space;
  host::set_vcpu(vcpu);  // a lock is held by the vCPU: without it, by another thread's
  {
    const LockGuard guard(process.lock);
    thread_->next_in_process = process.threads;
    process.threads = thread_;
  }
  thread_->alternate_stack.flags = static_cast<i32>(stack_flag::kDisable);
  this_thread = thread_;
  this_page = page_;
}

ProgramThread::~ProgramThread() {
  {
    const LockGuard guard(thread_->process->lock);
    Thread** link = &thread_->process->threads;
    while (*link != thread_) link = &(*link)->next_in_process;
    *link = thread_->next_in_process;
  }
  const std::lock_guard lock(vcpus_mutex);
  vcpu_used[thread_->vcpu] = false;
  this_thread = nullptr;
}

void ProgramThread::interrupt_next_park(i64 result) {
  Parking& own = parking[thread_->vcpu];
  {
    const std::lock_guard lock(own.mutex);
    own.interrupt = result;
  }
  own.changed.notify_one();
}

AddressSpace* space(u32 number) {
  return reinterpret_cast<AddressSpace*>(u64{0x10000} * (number + 1));
}

void set_inaccessible(const void* address, u64 size) {
  bad_begin = reinterpret_cast<u64>(address);
  bad_end = bad_begin + size;
}
void set_all_accessible() {
  bad_begin = bad_end = 0;
}
void set_absent_first(bool on) {
  absent_first = on;
}

}  // namespace fake

Thread& current_thread() {
  return *this_thread;
}
HypercallPage& current_hypercall_page() {
  return *this_page;
}

i64 hypercall(u32 number, u64 a0, u64 a1, u64 a2, u64 a3, u64 a4, u64 a5) {
  return answer(Call{number, 0, {a0, a1, a2, a3, a4, a5}, 0});
}
u32 hypercall_batch(Call* calls, u32 count) {
  for (u32 i = 0; i < count; ++i) calls[i].result = answer(calls[i]);
  return count;
}

Result<void> copy_from_program(void* destination, VirtualAddress source, u64 size) {
  if (!is_accessible(source.value(), size)) return Error(EFAULT);
  if (size == sizeof(u32)) {  // a futex word, which other threads change
    const u32 value =
        __atomic_load_n(reinterpret_cast<const u32*>(source.value()), __ATOMIC_SEQ_CST);
    std::memcpy(destination, &value, sizeof value);
  } else {
    std::memcpy(destination, reinterpret_cast<const void*>(source.value()), size);
  }
  return {};
}
Result<void> copy_to_program(VirtualAddress destination, const void* source, u64 size) {
  if (!is_accessible(destination.value(), size)) return Error(EFAULT);
  if (size == sizeof(u32)) {
    u32 value;
    std::memcpy(&value, source, sizeof value);
    __atomic_store_n(reinterpret_cast<u32*>(destination.value()), value, __ATOMIC_SEQ_CST);
  } else {
    std::memcpy(reinterpret_cast<void*>(destination.value()), source, size);
  }
  return {};
}
Result<u32> compare_exchange_program(VirtualAddress address, u32 expected, u32 desired) {
  if (!is_accessible(address.value(), sizeof(u32))) return Error(EFAULT);
  __atomic_compare_exchange_n(reinterpret_cast<u32*>(address.value()), &expected, desired, false,
                              __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
  return expected;
}
Result<u32> peek_program_nofault(VirtualAddress address) {
  if (absent_first && (absent_once = !absent_once)) return Error(EFAULT);
  return read_program<u32>(address);
}
Result<u32> compare_exchange_program_nofault(VirtualAddress address, u32 expected, u32 desired) {
  if (absent_first && (absent_once = !absent_once)) return Error(EFAULT);
  return compare_exchange_program(address, expected, desired);
}
Result<PhysicalAddress> shared_futex_address(AddressSpace&, VirtualAddress address, Access,
                                             WindowReference&) {
  return PhysicalAddress(fake::words_are_shared ? address.value() : 0);
}
// There are no windows.
void window_release(WindowObject*) {}

u64 clock_now(u32 clock) {
  timespec now{};
  clock_gettime(static_cast<clockid_t>(clock), &now);
  return static_cast<u64>(now.tv_sec) * 1'000'000'000 + static_cast<u64>(now.tv_nsec);
}

void* heap_allocate(size_t size) {
  return std::malloc(size);
}
void heap_free(void* object, size_t) {
  std::free(object);
}

const MemoryOptions& memory_options() {
  static const MemoryOptions options;
  return options;
}

void die(u32 signal) {
  hypercall(Service::kDie, signal);
  throw std::runtime_error("the host did not end the process");
}

void exit_thread_dying() {
  throw std::runtime_error("the host thread is gone");
}

}  // namespace dbos
