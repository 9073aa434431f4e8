#include "vmm/process/making.h"

#include <cerrno>

#include "vmm/process/host_process.h"

namespace dbos::vmm {
namespace {

bool has_begun(const Making& making, const Vcpu& child) {
  if (making.way == Making::Way::kClone) return making.id.load() != 0;
  return child.life.load().number != making.life_before;
}

}  // namespace

void begin_making(Vcpu& maker, Vcpu& child, Making::Way way) {
  Making& making = maker.making;
  making.way = way;
  making.life_before = child.life.load().number;
  making.id.store(way == Making::Way::kClone ? 0 : child.host_thread.load());
  making.child.store(&child, std::memory_order_release);
  child.state.store(VcpuState::kBusy);
}

// The calling thread may be killed in here. Up to end_making() all of it is done again; after that
// give_back_taken() does the rest, and the record goes back as that of a process that is gone.
void take_back(Vcpu& maker, Vcpu& child) {
  child.end_life(taken_by(&maker));
  if (maker.making.way == Making::Way::kClone) child.host_thread.store(0);
  end_making(maker);
  // The record first: once the vCPU is free, nothing refers to the record any more.
  if (child.process != maker.process) give_back_record(*child.process);
  child.state.store(VcpuState::kIdle);  // a parked host thread dies with the maker's process
}

int64_t result_of_making(Vcpu& maker) {
  Vcpu* const child = maker.making.child.load();
  if (child == nullptr) return -EINTR;
  if (has_begun(maker.making, *child)) {
    const uint32_t id = maker.making.id.load();
    return id != 0 ? id : 1;  // a parked thread that had died; nobody looks at its id any more
  }
  take_back(maker, *child);
  return -EINTR;
}

void give_back_taken(const Vcpu& maker) {
  for (Vcpu& vcpu : vcpus()) {
    if (&vcpu == maker.making.child.load()) continue;  // result_of_making() takes that back
    VcpuState taken = taken_by(&maker);
    vcpu.state.compare_exchange_strong(taken, VcpuState::kIdle);
  }
  give_back_records(maker);
}

}  // namespace dbos::vmm
