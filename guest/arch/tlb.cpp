// TLB shootdowns between vCPUs.
//
// A vCPU that is in the host cannot use a translation before it comes back, so it is left alone: it
// looks for a request on its way back. The order matters, and both sides use sequentially
// consistent operations for it:
//   requester: count flushes_requested up, set attention, then read place     -> kHost: done
//   target:    set place = kGuest, then read flushes_requested
// One of the two sees the other's write. A target says that it has flushed when it has, and for the
// requests that it saw before. The others are interrupted (Service::kInterrupt). A target
// in the guest kernel serves the request before it returns to the program, and wherever it waits:
// it may wait for the requester, in a spin lock or a shootdown of its own.
#include "guest/arch/cpu.h"
#include "guest/hypercall.h"
#include "guest/lib/assert.h"
#include "guest/memory/address_space.h"
#include "guest/platform.h"

namespace dbos::arch {
namespace {

// Above this many pages a whole flush costs less than the single ones.
constexpr u64 kSinglePagesMax = 32;

// Turns of waiting before a vCPU is interrupted once more: a millisecond or so.
constexpr u32 kTurnsBeforeAnother = 1 << 14;

void flush_range(VirtualRange range) {
  if (range.size() > kSinglePagesMax * kPageSize) {
    flush_tlb();
    return;
  }
  for (VirtualAddress page = range.begin; page < range.end; page = page + kPageSize) {
    invalidate_page(page);
  }
}

HypercallPage& page_of(u32 index) {
  return *reinterpret_cast<HypercallPage*>(cpu_block(index) + kVcpuHypercallOffset);
}

bool has_flushed(const Cpu& target, u64 request) {
  return target.flushes_served.load() >= request || target.place.load() == CpuPlace::kHost;
}

// Asks all that use the space for a flush; adds those that have to be waited for.
void interrupt_users(AddressSpace& space, u32 self, VcpuSet& waiting) {
  CallBatch interrupts;
  space.vcpus().for_each([&](u32 index) {
    if (index == self) return;
    Cpu& target = cpu_at(index);
    target.flushes_requested.fetch_add(1);
    const bool is_called = __atomic_exchange_n(&page_of(index).attention, 1, __ATOMIC_SEQ_CST) != 0;
    if (target.place.load() == CpuPlace::kHost) return;
    waiting.add(index);
    // It comes into the kernel, or is there and looks before it leaves.
    if (is_called) return;
    interrupts.add(Service::kInterrupt, index);
    platform::counters().count(Counter::kShootdowns);
  });
}

}  // namespace

void serve_flush_request() {
  Cpu& cpu = current_cpu();
  const u64 requested = cpu.flushes_requested.load();
  if (cpu.flushes_served.load(std::memory_order_relaxed) == requested) return;
  flush_tlb();
  cpu.flushes_served.store(requested);
}

void enter_host() {
  current_cpu().place.store(CpuPlace::kHost);
}

void leave_host() {
  current_cpu().place.store(CpuPlace::kGuest);
  serve_flush_request();
  // No load of what comes next may have begun with a translation from before.
  asm volatile("lfence" : : : "memory");
}

void activate_space(AddressSpace& space) {
  Cpu& cpu = current_cpu();
  cpu.active_space = &space;
  space.vcpus().add(cpu.index);
  cpu.counters->space_root = space.root().value();
  write_cr3(space.root().value());
}

void leave_space(PhysicalAddress kernel_root) {
  Cpu& cpu = current_cpu();
  write_cr3(kernel_root.value());
  cpu.active_space->vcpus().remove(cpu.index);
  cpu.active_space = nullptr;
  cpu.counters->space_root = 0;
}

}  // namespace dbos::arch

namespace dbos::platform {

using namespace dbos::arch;  // NOLINT: this file is the platform's side of the arch

void flush_local(VirtualAddress address) {
  invalidate_page(address);
}

void shootdown(AddressSpace& space, VirtualRange range) {
  const u32 self = current_vcpu();
  if (current_cpu().active_space == &space) flush_range(range);
  // What was changed in the tables is seen by whoever is not in the set yet.
  std::atomic_thread_fence(std::memory_order_seq_cst);
  VcpuSet waiting;
  interrupt_users(space, self, waiting);
  waiting.for_each([](u32 index) {
    const Cpu& target = cpu_at(index);
    const u64 request = target.flushes_requested.load();
    Wait wait;
    for (u32 turns = 1; !has_flushed(target, request); ++turns) {
      wait.turn();
      // Whoever set attention may not have come to the call.
      if (turns % kTurnsBeforeAnother == 0) hypercall(Service::kInterrupt, index);
    }
  });
}

}  // namespace dbos::platform
