// What a fork that is killed at any of its steps leaves: virtual CPUs and records of processes.
#include "vmm/process/making.h"

#include <catch2/catch.hpp>
#include <cerrno>
#include <string_view>

#include "tests/unit/killed_beside.h"
#include "vmm/debug/stop.h"
#include "vmm/kvm/kvm_api.h"
#include "vmm/log.h"
#include "vmm/machine/machine.h"
#include "vmm/process/handover.h"
#include "vmm/process/host_process.h"
#include "vmm/process/steward.h"
#include "vmm/process/thread_block.h"
#include "vmm/process/thread_reuse.h"
#include "vmm/process/vcpu_thread.h"

namespace {

bool dies_at_handover = false;

}  // namespace

// A machine whose virtual CPUs never run.
namespace dbos::vmm {

Machine& machine() {
  alignas(Machine) static unsigned char nothing[sizeof(Machine)];
  return *reinterpret_cast<Machine*>(nothing);
}
int64_t Machine::initialize_vcpu(KvmVcpu& vcpu, HostLock& /*moves*/) {
  static HypercallPage page;
  static kvm_run run;
  static_cast<Vcpu&>(vcpu).page = &page;
  vcpu.run = &run;
  return 0;
}
bool hand_over(const Vcpu& /*vcpu*/) {
  if (dies_at_handover) die();
  return true;
}
ThreadBlock* take_spare_block() {
  static ThreadBlock block;
  return &block;
}
bool has_spare_block() {
  return true;
}
ThreadBlock* make_thread_block(const HostProcess& /*process*/) {
  return nullptr;
}
ThreadBlock* ask_for_spare_block() {
  return nullptr;
}
void begin_debugging(Vcpu& /*vcpu*/) {}
int64_t set_first_registers(Vcpu& /*vcpu*/) {
  return 0;
}
void write_to_log(std::string_view /*text*/) {}
void write_formatted_line(LogLevel /*level*/, fmt::string_view /*format*/,
                          fmt::format_args /*arguments*/) {}

}  // namespace dbos::vmm

namespace {

using namespace dbos;
using namespace dbos::vmm;

// More than there are virtual CPUs, and records.
constexpr int kKills = 1100;
// Up to here a new one is made where all have been run, as in vcpu.h.
constexpr uint32_t kFreshMax = 48;

struct Program {
  HostProcess* first;
  Vcpu* maker;
  Vcpu* other;  // another thread
};

Vcpu& begin_thread(HostProcess& process) {
  Vcpu& vcpu = *vcpus().acquire(process, nullptr);
  vcpu.process = &process;
  vcpu.state.store(VcpuState::kBusy);
  vcpu.was_run = true;
  vcpu.keeps_thread.store(1);
  vcpu.host_thread.store(own_thread_id());
  vcpu.begin_life();
  return vcpu;
}

const Program& program() {
  static const Program the_program = [] {
    make_vcpu_pool();
    HostProcess& first = *acquire_process(nullptr);
    Program made = {&first, &begin_thread(first), &begin_thread(first)};
    first.record.store(RecordState::kLive);
    return made;
  }();
  return the_program;
}

Vcpu& maker() {
  return *program().maker;
}

struct Child {
  HostProcess* process = nullptr;
  Vcpu* vcpu = nullptr;
};

// The steps of a fork, as vcpu_thread.cpp takes them.
enum class Step { kRecord, kVcpu, kUse, kLive, kAnnounced, kAlive, kDone };

Child fork_up_to(Step last, Vcpu& by) {
  Child child;
  for (int step = 0; step <= static_cast<int>(last); ++step) {
    switch (Step{step}) {
      case Step::kRecord:
        child.process = acquire_process(&by);
        if (child.process == nullptr) return {};
        break;
      case Step::kVcpu:
        child.vcpu = vcpus().acquire(*by.process, &by);
        if (child.vcpu == nullptr) return {};
        break;
      case Step::kUse:
        child.vcpu->process = child.process;
        child.vcpu->was_run = true;
        break;
      case Step::kLive:
        child.process->record.store(RecordState::kLive);
        break;
      case Step::kAnnounced:
        begin_making(by, *child.vcpu, Making::Way::kClone);
        break;
      case Step::kAlive:
        child.vcpu->host_thread.store(kThreadBeingMade);
        child.vcpu->begin_life();
        break;
      case Step::kDone:  // clone(2) has stored the id
        by.making.id.store(1);
        break;
    }
  }
  return child;
}

Step last_step;

void kill_maker_after(Step step) {
  last_step = step;
  start_beside_us([] {
    fork_up_to(last_step, maker());
    die();
  });
}

// What the adopter does, and the guest kernel that makes its call again.
int64_t adopt_maker() {
  give_back_taken(maker());
  return result_of_making(maker());
}

// A whole fork. False: EAGAIN.
bool can_fork() {
  const Child child = fork_up_to(Step::kAlive, *program().other);
  if (child.vcpu == nullptr) return false;
  take_back(*program().other, *child.vcpu);
  return true;
}

}  // namespace

TEST_CASE("forks that are killed before the child is there take nothing with them") {
  for (const Step step :
       {Step::kRecord, Step::kVcpu, Step::kUse, Step::kLive, Step::kAnnounced, Step::kAlive}) {
    for (int i = 0; i < kKills; ++i) {
      kill_maker_after(step);
      REQUIRE(adopt_maker() == -EINTR);
    }
    CHECK(can_fork());
    CHECK(vcpus().count() <= kFreshMax);
  }
}

TEST_CASE("a child that has come to be stays, however often its maker is adopted") {
  program();
  kill_maker_after(Step::kDone);
  Vcpu& child = *maker().making.child.load();
  for (int i = 0; i < 2; ++i) CHECK(adopt_maker() == 1);
  CHECK(child.state.load() == VcpuState::kBusy);
  CHECK(child.is_alive());
  CHECK(child.process->record.load() == RecordState::kLive);
  take_back(maker(), child);
}

TEST_CASE("what was given back stays with who takes it next, should it be given back again") {
  program();
  kill_maker_after(Step::kVcpu);
  adopt_maker();
  const Child child = fork_up_to(Step::kUse, *program().other);
  REQUIRE(child.vcpu != nullptr);
  adopt_maker();
  CHECK(child.vcpu->is_busy());
  CHECK_FALSE(vcpus().take(*child.vcpu, &maker()));
  CHECK(child.process->record.load() != RecordState::kFree);
  give_back_taken(*program().other);
  CHECK(child.process->record.load() == RecordState::kFree);
  CHECK(vcpus().take(*child.vcpu, nullptr));
  vcpus().release(*child.vcpu);
}

TEST_CASE("whoever is killed where it takes a child back leaves it to be taken back again") {
  program();
  kill_maker_after(Step::kAlive);
  Vcpu& child = *maker().making.child.load();
  // As far as take_back() comes before the end of the making.
  child.end_life(taken_by(&maker()));
  give_back_taken(maker());
  CHECK(child.is_busy());
  CHECK(result_of_making(maker()) == -EINTR);
  CHECK_FALSE(child.is_busy());
  CHECK(child.process->record.load() == RecordState::kFree);
  // And after it.
  kill_maker_after(Step::kAlive);
  Vcpu& next = *maker().making.child.load();
  next.end_life(taken_by(&maker()));
  next.host_thread.store(0);
  end_making(maker());
  CHECK(adopt_maker() == -EINTR);
  CHECK_FALSE(next.is_busy());
  CHECK(can_fork());
}

TEST_CASE("the virtual CPU of a parked thread comes back where its taker was killed") {
  Vcpu& parked = begin_thread(*program().first);
  parked.end_life(VcpuState::kParked);
  start_beside_us([] {
    if (take_parked_thread(maker()) != nullptr) die();
  });
  CHECK(parked.is_busy());
  adopt_maker();
  CHECK_FALSE(vcpus().take(parked, nullptr));  // the parked thread is still there
  parked.host_thread.store(0);
  CHECK(vcpus().take(parked, nullptr));
  vcpus().release(parked);
}

TEST_CASE(
    "a virtual CPU whose thread was killed at the end of its life is adopted, and not taken") {
  for (const VcpuState next : {VcpuState::kIdle, VcpuState::kParked}) {
    static Vcpu* vcpu;
    vcpu = &begin_thread(*program().first);
    vcpu->state.store(next);  // as far as end_life() came
    CHECK_FALSE(vcpus().take_parked(*vcpu, maker()));
    vcpu->host_thread.store(0);
    CHECK_FALSE(vcpus().take(*vcpu, &maker()));
    CHECK(uses_vcpus(*program().first));
    start_beside_us([] {
      if (!vcpu->begin_adoption(own_thread_id())) return;
      vcpu->state.store(VcpuState::kIdle);
      die();
    });
    CHECK_FALSE(vcpus().take(*vcpu, &maker()));
    CHECK(vcpu->begin_adoption(own_thread_id()));
    CHECK(vcpu->state.load() == VcpuState::kBusy);
    vcpu->end_life(VcpuState::kIdle);
    CHECK(vcpus().take(*vcpu, &maker()));
    vcpus().release(*vcpu);
  }
}

TEST_CASE("a virtual CPU that was made ahead is there where its maker was killed right after") {
  const Child child = fork_up_to(Step::kLive, *program().other);
  REQUIRE(child.vcpu != nullptr);
  const uint32_t count = vcpus().count();
  static Vcpu* child_vcpu;
  child_vcpu = child.vcpu;
  child_vcpu->state.store(VcpuState::kBusy);
  dies_at_handover = true;
  start_beside_us([] { vcpus().prepare_one(*child_vcpu, 1); });
  dies_at_handover = false;
  REQUIRE(vcpus().count() == count + 1);
  CHECK(vcpus().at(count).is_busy());
  give_back_taken(*child_vcpu);
  CHECK(vcpus().prepare_one(*child_vcpu, 1));
  CHECK(vcpus().count() == count + 1);
  CHECK(child_vcpu->state.load() == VcpuState::kBusy);
}
