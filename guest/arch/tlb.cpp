// TLB shootdowns between vCPUs.
//
// A vCPU that is in the host cannot use a translation before it comes back, so it is left alone: it
// looks for a request on its way back. The order matters, and both sides use sequentially
// consistent operations for it:
//   requester: set flush_requested and attention, then read place     -> kHost: done
//   target:    set place = kGuest, then read flush_requested
// One of the two sees the other's write. The others are interrupted (Service::kInterrupt). A target
// in the guest kernel serves the request before it returns to the program, and wherever it waits:
// it may wait for the requester, in a spin lock or a shootdown of its own.
#include "guest/arch/cpu.h"
#include "guest/arch/hypercall.h"
#include "guest/lib/assert.h"
#include "guest/memory/address_space.h"
#include "guest/platform.h"

namespace dbos::arch {
namespace {

// Above this many pages a whole flush costs less than the single ones.
constexpr u64 kSinglePagesMax = 32;

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

bool has_flushed(const Cpu& target) {
  return target.flush_requested.load() == 0 || target.place.load() == CpuPlace::kHost;
}

}  // namespace

void serve_flush_request() {
  Cpu& cpu = current_cpu();
  if (cpu.flush_requested.load(std::memory_order_relaxed) == 0) return;
  cpu.flush_requested.exchange(0);
  flush_tlb();
}

void enter_host() {
  current_cpu().place.store(CpuPlace::kHost);
}

void leave_host() {
  current_cpu().place.store(CpuPlace::kGuest);
  serve_flush_request();
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
  VcpuSet waiting;
  space.vcpus().for_each([&](u32 index) {
    if (index == self) return;
    Cpu& target = cpu_at(index);
    target.flush_requested.store(1);
    __atomic_store_n(&page_of(index).attention, 1, __ATOMIC_SEQ_CST);
    if (target.place.load() == CpuPlace::kHost) return;
    hypercall(Service::kInterrupt, index);
    counters().count(Counter::kShootdowns);
    waiting.add(index);
  });
  waiting.for_each([](u32 index) {
    for (u32 turns = 1; !has_flushed(cpu_at(index)); ++turns) relax(turns);
  });
}

}  // namespace dbos::platform
