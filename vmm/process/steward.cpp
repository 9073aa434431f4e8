#include "vmm/process/steward.h"

#include <asm/unistd.h>
#include <linux/futex.h>
#include <linux/time_types.h>
#include <time.h>

#include <bitset>
#include <cerrno>
#include <cstring>

#include "vmm/host/clock_ns.h"
#include "vmm/host/futex.h"
#include "vmm/host/host_call.h"
#include "vmm/host/host_lock.h"
#include "vmm/kvm/kvm_api.h"
#include "vmm/log.h"
#include "vmm/process/attention.h"
#include "vmm/process/call_memory.h"
#include "vmm/process/handover.h"
#include "vmm/process/host_process.h"
#include "vmm/process/making.h"
#include "vmm/process/service_thread.h"
#include "vmm/process/signals.h"
#include "vmm/process/steward_post.h"
#include "vmm/process/thread_block.h"
#include "vmm/process/thread_making.h"
#include "vmm/process/vcpu_thread.h"

namespace dbos::vmm {
namespace {

constexpr size_t kStackSize = 1 << 20;
constexpr uint32_t kWatchedMax = 127;          // FUTEX_WAITV_MAX is 128, and one is the doorbell
constexpr int64_t kPatience_ns = 200'000'000;  // for what no futex tells
constexpr int64_t kRetryPause_ns = 1'000'000'000;
// For a thread block: a second in all.
constexpr long kBlockPause_ns = 100'000;
constexpr int kBlockAttemptsMax = 10'000;

std::atomic<uint32_t> doorbell{0};
StewardPost post;
std::atomic<bool> is_wanted{false};
std::atomic<int64_t> next_attempt_ns{0};  // not before then; CLOCK_MONOTONIC

int64_t now_ns() {
  return static_cast<int64_t>(clock_ns(CLOCK_MONOTONIC));
}

// Linux gives no thread (RLIMIT_NPROC, pids.max). Whoever calls asks again and again.
void note_failure(int error) {
  static std::atomic<bool> is_told{false};
  next_attempt_ns.store(now_ns() + kRetryPause_ns);
  log_once(is_told, LogLevel::kWarning,
           "there is no steward, {}: what killed children held is not released; raise ulimit -u, "
           "or pids.max of the cgroup",
           strerrordesc_np(error));
}

// All of it is sound to do again: whoever adopts the vCPU may be killed as well, in the guest or
// here.
bool begin_adoption(Vcpu& vcpu, const HostProcess& own, uint32_t adopter) {
  if (!vcpus().is_usable(vcpu, own) && !can_lend(vcpu, own)) return false;
  if (!vcpu.begin_adoption(adopter)) return false;
  use_descriptor_of(vcpu, own);
  give_back_taken(vcpu);
  vcpu.role.store(Role::kAdopted);
  unmap_call_memory(vcpu);
  vcpu.page->signal.number = 0;
  vcpu.page->dying = 1;
  __atomic_store_n(&vcpu.page->attention, 1, __ATOMIC_SEQ_CST);
  vcpu.run->immediate_exit = 0;
  vcpu.kicks_received.store(vcpu.kicks_sent.load());  // those that the dead thread did not take
  reset_signal_64(vcpu);
  // Killed before it came that far: it begins, finds that it is dying, and ends.
  if (vcpu.is_unset.load() != 0 && set_first_registers(vcpu) < 0) {
    vcpu.end_life(VcpuState::kLost);
    return false;
  }
  bring_into_kernel(vcpu);
  return true;
}

void end_adoption(Vcpu& vcpu) {
  vcpu.descriptor = vcpu.made_as;
  const bool is_lost = vcpu.state.load() == VcpuState::kLost;
  vcpu.end_life(is_lost ? VcpuState::kLost : VcpuState::kIdle);
}

// What the steward waits for.
struct Watched {
  futex_waitv words[kWatchedMax + 1];
  uint32_t count = 0;
  bool are_all = true;  // nothing comes to pass that none of them tells

  void add(uint32_t value, const std::atomic<uint32_t>& word) {
    // Not private: that is how Linux wakes the word of an ended thread.
    words[count++] = {value, reinterpret_cast<uint64_t>(&word), FUTEX_32, 0};
  }
};

void collect(const HostProcess& own, Watched& watched) {
  watched.add(doorbell.load(), doorbell);
  for (const Vcpu& vcpu : vcpus()) {
    if (watched.count > kWatchedMax) break;
    if (vcpu.state.load() != VcpuState::kBusy && !vcpu.has_life()) continue;
    // Another thread is at it, and may be killed before it is done.
    if (vcpu.life.load().adopter != 0) watched.are_all = false;
    const uint32_t thread = vcpu.host_thread.load();
    if (vcpu.process != &own && thread != 0) watched.add(thread, vcpu.host_thread);
  }
  if (watched.count > kWatchedMax) watched.are_all = false;
}

// Under a seccomp profile that does not know futex_waitv: looks again from time to time.
void wait_without_waitv(int64_t result) {
  static std::atomic<bool> is_told{false};
  log_once(is_told, LogLevel::kInfo,
           "futex_waitv is refused (errno {}): what a killed process held is released later",
           -result);
  sleep_for(kPatience_ns);
}

// One turn over the vCPUs; `adopted` are those that have not ended yet.
void reap_in_turn(const HostProcess& process, std::bitset<kVcpuCountMax>& adopted) {
  const uint32_t self = own_thread_id();
  for (Vcpu& vcpu : vcpus()) {
    const uint32_t i = vcpu.index;
    if (!adopted.test(i) && begin_adoption(vcpu, process, self)) adopted.set(i);
    if (!adopted.test(i) || run_adopted(vcpu) == Adopted::kWaits) continue;
    end_adoption(vcpu);
    adopted.reset(i);
  }
}

// By turns: one may wait for a lock that another one held when it died.
template <typename BeforeTurn>
void reap(const HostProcess& process, BeforeTurn before_turn) {
  std::bitset<kVcpuCountMax> adopted;
  const AllSignalsBlocked blocked;
  do {
    before_turn();
    reap_in_turn(process, adopted);
  } while (adopted.any());
}

void* run_steward(void* argument) {
  const auto& own = *static_cast<const HostProcess*>(argument);
  begin_service_thread("dbos-steward");
  set_own_descriptors(*own.descriptors);
  if (!post.take()) {
    for (;;) raw_call(__NR_exit, 0);
  }
  for (;;) {
    Watched watched;
    // First: who rings later than this is heard.
    collect(own, watched);
    // Without a wait: what is missing is made in another turn.
    if (!make_spare_blocks(own)) watched.are_all = false;
    // In each turn: the one that holds the lock may have come to be meanwhile.
    reap(own, [&] { receive_descriptors(own); });
    take_over_free_vcpus(own);
    const int64_t deadline = now_ns() + kPatience_ns;
    const __kernel_timespec until = {deadline / 1'000'000'000, deadline % 1'000'000'000};
    const int64_t result =
        raw_call(__NR_futex_waitv, reinterpret_cast<uint64_t>(watched.words), watched.count, 0,
                 watched.are_all ? 0 : reinterpret_cast<uint64_t>(&until), CLOCK_MONOTONIC);
    const bool has_waited =
        result >= 0 || result == -EAGAIN || result == -EINTR || result == -ETIMEDOUT;
    if (!has_waited) wait_without_waitv(result);
  }
}

// The first process has it while that lives: one of a child would go with the child, and with it
// whoever could release what the child held.
bool may_host(const HostProcess& process) {
  const HostProcess* first = &process;
  while (first->parent != nullptr) first = first->parent;
  return first == &process || !has_thread(*first);
}

}  // namespace

void reap_ended_threads(const HostProcess& process) {
  reap(process, [] {});
}

void start_steward(const HostProcess& process) {
  is_wanted.store(true);
  if (now_ns() < next_attempt_ns.load() || !may_host(process)) return;
  if (!post.claim()) return;
  const ThreadMaking making(process);
  const int error =
      start_service_thread(kStackSize, run_steward, const_cast<HostProcess*>(&process));
  if (error == 0) return;
  note_failure(error);
  post.give_up();
}

void keep_steward(const HostProcess& process) {
  // A program that goes into the background ends its first process at once, with the steward in it.
  if (is_wanted.load() && post.is_vacant()) start_steward(process);
}

void ring_steward() {
  doorbell.fetch_add(1);
  futex_wake(doorbell, FutexKind::kShared);
}

ThreadBlock* ask_for_spare_block() {
  if (post.is_vacant()) return nullptr;
  ring_steward();
  ThreadBlock* block = take_spare_block();
  for (int attempt = 0; block == nullptr && attempt < kBlockAttemptsMax; ++attempt) {
    sleep_for(kBlockPause_ns);
    block = take_spare_block();
  }
  return block;
}

}  // namespace dbos::vmm
