// What processes leave that are killed at any time: records, and virtual CPUs that they adopted.
#include "vmm/process/host_process.h"

#include <catch2/catch.hpp>
#include <chrono>
#include <string_view>
#include <thread>

#include "tests/unit/killed_beside.h"
#include "vmm/log.h"
#include "vmm/process/steward_post.h"
#include "vmm/process/thread_making.h"
#include "vmm/process/vcpu.h"

namespace {

// What happens where the records are looked at: how often until then, and what.
int looks_left = 0;
void (*at_that_look)() = nullptr;

}  // namespace

namespace dbos::vmm {

// There are none, unless a test wants some.
VcpuPool& vcpus() {
  alignas(VcpuPool) static unsigned char nothing[sizeof(VcpuPool)];
  if (looks_left > 0 && --looks_left == 0) at_that_look();
  return *reinterpret_cast<VcpuPool*>(nothing);
}
void write_to_log(std::string_view /*text*/) {}
void VcpuPool::prepare(const HostProcess& /*process*/, uint32_t wanted, const Vcpu* /*taker*/) {
  count_.store(wanted);
}
bool VcpuPool::take(Vcpu& /*vcpu*/, const Vcpu* /*taker*/) {
  return false;
}

}  // namespace dbos::vmm

namespace {

using namespace dbos::vmm;

constexpr int kRecords = 1024;  // as in host_process.cpp
constexpr int kLooks = 3;       // of one fork that takes records back

void arm(int looks, void (*what)()) {
  at_that_look = what;
  looks_left = looks;
}

HostProcess& first() {
  static HostProcess& process = *acquire_process(nullptr);
  process.record.store(RecordState::kLive);
  return process;
}

HostProcess* last_child = nullptr;

// A child of the first; null: there is no record for it.
HostProcess* acquire_child() {
  static Vcpu maker = {};
  maker.process = &first();
  HostProcess* const process = acquire_process(&maker);
  if (process == nullptr) return nullptr;
  process->record.store(RecordState::kLive);
  return last_child = process;
}

// A record for a process that is gone at once: no virtual CPU is its own.
bool take_one() {
  return acquire_child() != nullptr;
}

// Until whoever wants one more has to take all of them back.
void take_all() {
  for (arm(1, [] {}); looks_left != 0;) REQUIRE(take_one());
  arm(1, [] {});
  for (int i = 0; i < kRecords - 2; ++i) REQUIRE(take_one());  // the first's, and the last taken
  REQUIRE(looks_left == 1);
}

HostProcess& child_with_id(uint32_t id) {
  HostProcess* const process = acquire_child();
  REQUIRE(process != nullptr);
  process->process_id = id;
  return *process;
}

// A virtual CPU that a thread of the process runs on, until the test ends.
class UsedVcpu {
 public:
  UsedVcpu(HostProcess& process, uint32_t thread) : vcpu_(vcpus().at(vcpus().count())) {
    vcpu_.process = &process;
    vcpu_.state.store(VcpuState::kBusy);
    vcpu_.host_thread.store(thread);
    vcpu_.begin_life();
    vcpus().prepare(process, vcpus().count() + 1, nullptr);
  }
  ~UsedVcpu() {
    vcpu_.end_life(VcpuState::kIdle);
    vcpus().prepare(*vcpu_.process, vcpus().count() - 1, nullptr);
  }
  UsedVcpu(const UsedVcpu&) = delete;
  UsedVcpu& operator=(const UsedVcpu&) = delete;
  Vcpu* operator->() { return &vcpu_; }

 private:
  Vcpu& vcpu_;
};

uint32_t self() {
  return own_thread_id();
}

HostLock lock;
Vcpu vcpu = {};
std::thread other;
bool has_other_taken = false;

}  // namespace

TEST_CASE("records come back where a fork was killed that took them back") {
  for (int looks = 1; looks <= kLooks; ++looks) {
    take_all();
    arm(looks, die);
    start_beside_us([] { take_one(); });
    CHECK(take_one());
  }
}

TEST_CASE("a fork waits for another that takes records back") {
  take_all();
  arm(2, [] {
    other = std::thread([] { has_other_taken = take_one(); });
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  });
  CHECK(take_one());
  other.join();
  CHECK(has_other_taken);
}

TEST_CASE("a fork that fails leaves a record to another that takes it back meanwhile") {
  take_all();
  static HostProcess* child;
  static RecordState given_back;
  child = last_child;
  arm(2, [] {
    give_back_record(*child);
    given_back = child->record.load();
  });
  CHECK(take_one());
  CHECK(given_back == RecordState::kEnding);
  child = last_child;
  give_back_record(*child);
  CHECK(child->record.load() == RecordState::kFree);
}

TEST_CASE("a lock is waited for as long as its holder lives, or for so long") {
  CHECK(lock.lock_within(0));
  CHECK_FALSE(lock.lock_within(0));
  CHECK_FALSE(lock.lock_within(1'000'000));
  lock.unlock();
  start_beside_us([] {
    lock.lock();
    die();
  });
  CHECK(lock.lock_within(0));
  lock.unlock();
}

TEST_CASE("the end of a process waits for threads that are being made, and these for an execve") {
  HostProcess& process = first();
  {
    const ThreadMaking making(process);
    CHECK(making.is_safe());
    CHECK_FALSE(process.thread_making.lock_within(0));
  }
  process.ended_by_itself.fetch_add(kExecutes);
  stop_thread_making(process);
  CHECK_FALSE(ThreadMaking(process, 0).is_safe());
  CHECK(process.thread_making.lock_within(0));  // for exit_group, while Linux keeps the execve
  process.thread_making.unlock();
  other = std::thread([&process] {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    process.ended_by_itself.fetch_sub(kExecutes);
  });
  CHECK(ThreadMaking(process, 60'000'000'000).is_safe());
  other.join();
}

TEST_CASE("the steward's post is vacant again where it or its maker was killed") {
  static StewardPost post;
  CHECK(post.is_vacant());
  start_beside_us([] {
    if (post.claim()) die();
  });
  CHECK(post.claim());
  CHECK_FALSE(post.is_vacant());
  CHECK_FALSE(post.claim());
  post.give_up();
  CHECK(post.claim());
  start_beside_us([] {
    if (post.take() && !post.is_vacant() && !post.claim()) die();
  });
  CHECK(post.is_vacant());
  // One steward alone where the maker of the first ended before that came so far.
  start_beside_us([] {
    if (post.claim()) die();
  });
  CHECK(post.claim());
  start_beside_us([] {
    if (!post.take()) return;
    post.give_up();
    if (!post.take() && !post.is_vacant()) die();
  });
}

TEST_CASE("a virtual CPU whose adopter was killed is adopted by another") {
  vcpu.state.store(VcpuState::kBusy);
  vcpu.host_thread.store(1);
  vcpu.begin_life();
  CHECK_FALSE(vcpu.begin_adoption(self()));  // its thread lives
  vcpu.host_thread.store(0);
  start_beside_us([] {
    if (vcpu.begin_adoption(self())) die();
  });
  CHECK_FALSE(vcpu.is_alive());
  CHECK(vcpu.begin_adoption(self()));
  CHECK_FALSE(vcpu.begin_adoption(self()));  // its adopter lives
  vcpu.end_life(VcpuState::kIdle);
  CHECK_FALSE(vcpu.begin_adoption(self()));
  vcpu.state.store(VcpuState::kBusy);  // somebody prepares it
  CHECK_FALSE(vcpu.begin_adoption(self()));
}

TEST_CASE("a thread whose maker was killed before it was made is not there, but its record stays") {
  constexpr uint32_t kId = 7;
  HostProcess& child = child_with_id(kId);
  UsedVcpu used(child, kThreadBeingMade);
  CHECK_FALSE(has_thread(child));
  CHECK_FALSE(is_fork_of_ours(kId));
  CHECK(another_process(first()) == nullptr);
  CHECK(uses_vcpus(child));
  used->host_thread.store(self());
  CHECK(has_thread(child));
  CHECK(is_fork_of_ours(kId));
  CHECK(another_process(first()) == &child);
}

TEST_CASE("a process whose first thread has ended lives, and sends signal 64 as any other does") {
  HostProcess& own = child_with_id(own_process_id());
  own.guardian_id.store(static_cast<uint32_t>(raw_call(__NR_getppid)));
  const UsedVcpu runs_us(own, self());
  constexpr int kSender = 1 << 30;  // beyond all ids of Linux
  HostProcess& sender = child_with_id(kSender);
  UsedVcpu used(sender, self());
  siginfo_t info = {};
  info.si_code = SI_USER;
  info.si_pid = kSender;
  CHECK_FALSE(take_parent_death_notice(info));
  used->host_thread.store(0);
  sender.ended_by_itself.store(kEnded);
  CHECK(take_parent_death_notice(info));
}
