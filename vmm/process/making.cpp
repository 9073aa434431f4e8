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
}

// The record of its process first: once the vCPU is free, nothing refers to the record any more.
void take_back(const Vcpu& maker, Vcpu& child, Making::Way way) {
  child.end_life();
  if (child.process != maker.process) {
    child.process->record.store(RecordState::kFree);
  }
  if (way == Making::Way::kRestart) {
    child.state.store(VcpuState::kEnded);  // its host thread dies with the maker's process
    return;
  }
  child.host_thread.store(0);
  vcpus().release(child);
}

int64_t result_of_making(Vcpu& maker) {
  Vcpu* const child = maker.making.child.exchange(nullptr);
  if (child == nullptr) return -EINTR;
  if (has_begun(maker.making, *child)) {
    const uint32_t id = maker.making.id.load();
    return id != 0 ? id : 1;  // a parked thread that had died; nobody looks at its id any more
  }
  take_back(maker, *child, maker.making.way);
  return -EINTR;
}

}  // namespace dbos::vmm
