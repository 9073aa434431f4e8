// The child that a thread is making, should the thread be killed in the middle.
//
// Whoever is killed in a call is adopted (steward.h), and its guest kernel repeats the call. For
// Service::kThreadCreate and kProcessFork it must learn the truth: a child that exists runs with
// what its maker prepared for it, or is adopted itself; one that does not exist never will.
//
// A vCPU for it is never without an owner: its maker has taken it (VcpuState::kTaken), then it is
// Making::child, and at last it has a life of its own.
#pragma once

#include <cstdint>

#include "vmm/process/vcpu.h"

namespace dbos::vmm {

// Announces `child`, which the maker has taken, before it begins a life: by clone(2), or on its
// parked host thread.
void begin_making(Vcpu& maker, Vcpu& child, Making::Way way);

// After the guest has been given the call's result.
inline void end_making(Vcpu& maker) {
  maker.making.child.store(nullptr, std::memory_order_release);
}

// Takes back all that was prepared for the child that `maker` announced and that has not come to
// be, and ends the making.
void take_back(Vcpu& maker, Vcpu& child);

// Of an adopted vCPU whose guest repeats the call: the child's id, or -EINTR if there is none, when
// all that was prepared for it has been taken back. Before end_making() it answers the same again.
int64_t result_of_making(Vcpu& maker);

// Of an adopted vCPU: what its call had taken and neither announced nor released is free again, a
// parked thread's vCPU as soon as that has died with its process. Sound to do again: until the
// adoption ends, `maker` takes nothing.
void give_back_taken(const Vcpu& maker);

}  // namespace dbos::vmm
