#include "vmm/process/thread_block.h"

#include <asm/unistd.h>
#include <linux/sched.h>
#include <pthread.h>
#include <signal.h>

#include <new>

#include "vmm/host/futex.h"
#include "vmm/host/host_call.h"
#include "vmm/process/signals.h"
#include "vmm/process/thread_making.h"

extern "C" int64_t dbos_clone(uint64_t flags, uint64_t stack, uint64_t parent_word,
                              uint64_t child_word, uint64_t thread_pointer);

namespace dbos::vmm {
namespace {

// KVM_RUN, the proxied calls and fmt's formatting stay well below this.
constexpr size_t kStackSize = 128 * 1024;

std::atomic<ThreadBlock*> spare_blocks[6];  // made by one thread, taken by any

uint64_t thread_pointer() {
  uint64_t value;
  asm("mov %%fs:0, %0" : "=r"(value));
  return value;
}

void* become_donor(void* argument) {
  auto* const block = static_cast<ThreadBlock*>(argument);
  uint64_t stack_pointer;
  asm("mov %%rsp, %0" : "=r"(stack_pointer));
  block->thread_pointer = thread_pointer();
  // Below what this function still uses: the donor's last steps are over before the block is used.
  block->stack_top = (stack_pointer - 256) & ~uint64_t{15};
  raw_call(__NR_set_tid_address, reinterpret_cast<uint64_t>(&block->donor));
  raw_call(__NR_exit, 0);
  return nullptr;
}

// 0 or an error number.
int start_donor(ThreadBlock* block) {
  const AllSignalsBlocked blocked;
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, kStackSize);
  pthread_t thread;
  const int error = pthread_create(&thread, &attributes, become_donor, block);
  pthread_attr_destroy(&attributes);
  return error;
}

// By who has a ThreadMaking.
ThreadBlock* make_block() {
  auto* const block = new (std::nothrow) ThreadBlock();
  if (block == nullptr) return nullptr;
  block->donor.store(1);
  if (start_donor(block) != 0) {
    delete block;
    return nullptr;
  }
  for (uint32_t value = block->donor.load(); value != 0; value = block->donor.load()) {
    futex_wait(block->donor, value, nullptr, FutexKind::kShared);
  }
  return block;
}

}  // namespace

ThreadBlock* make_thread_block(const HostProcess& process) {
  const ThreadMaking making(process);
  return make_block();
}

bool make_spare_blocks(const HostProcess& process) {
  for (auto& place : spare_blocks) {
    if (place.load() != nullptr) continue;
    const ThreadMaking making(process, 0);
    ThreadBlock* const block = making.is_safe() ? make_block() : nullptr;
    ThreadBlock* expected = nullptr;
    if (block == nullptr || !place.compare_exchange_strong(expected, block)) return false;
  }
  return true;
}

bool has_spare_block() {
  for (const auto& place : spare_blocks) {
    if (place.load() != nullptr) return true;
  }
  return false;
}

ThreadBlock* take_spare_block() {
  for (auto& place : spare_blocks) {
    ThreadBlock* const block = place.exchange(nullptr);
    if (block != nullptr) return block;
  }
  return nullptr;
}

int64_t clone_with_block(uint64_t flags, ThreadBlock& block, std::atomic<uint32_t>& id,
                         std::atomic<uint32_t>& end, ThreadEntry entry, void* argument) {
  auto* const stack = reinterpret_cast<uint64_t*>(block.stack_top) - 2;
  stack[0] = reinterpret_cast<uint64_t>(entry);
  stack[1] = reinterpret_cast<uint64_t>(argument);
  return dbos_clone(flags | CLONE_SETTLS | CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID,
                    reinterpret_cast<uint64_t>(stack), reinterpret_cast<uint64_t>(&id),
                    reinterpret_cast<uint64_t>(&end), block.thread_pointer);
}

}  // namespace dbos::vmm
