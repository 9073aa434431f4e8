// What a host thread needs from libc: a stack and a thread control block (FS base) that libc knows.
//
// Program threads are made by clone(2) itself, because some of them are processes of their own that
// share our memory, which no library can make. libc code that runs there (malloc, formatting, a
// stack protector's canary) needs a thread control block all the same. It comes from a donor: a
// pthread that ended at the kernel's level only, so that libc never takes its block and stack back.
#pragma once

#include <atomic>
#include <cstdint>

namespace dbos::vmm {

struct HostProcess;

struct ThreadBlock {
  uint64_t thread_pointer;      // FS base
  uint64_t stack_top;           // 16-byte aligned
  std::atomic<uint32_t> donor;  // the donor's thread id until it has ended
};

// A new block, by a thread of `process`; never given back. Null when no thread can be made. Waits
// for the donor: as long as Linux takes to run it. Takes libc's locks, which a process that is
// killed here leaves taken for all others: where there is a steward in another process, it is asked
// instead.
ThreadBlock* make_thread_block(const HostProcess& process);

// Blocks made ahead, by a thread that may wait, for those that may not. False: some are missing,
// because Linux gives no thread, or because the process ends or executes a program.
bool make_spare_blocks(const HostProcess& process);
bool has_spare_block();
// Null: there is none.
ThreadBlock* take_spare_block();

using ThreadEntry = void (*)(void* argument);

// clone(2) with `flags`; the child calls entry(argument) on the block's stack and must not return.
// Linux stores the child's id in `id` if the child comes to be, before it runs and before a killed
// caller can die; and 0 in `end` (with a futex wake) when it is gone, however it ends. Result: the
// child's id or -errno.
int64_t clone_with_block(uint64_t flags, ThreadBlock& block, std::atomic<uint32_t>& id,
                         std::atomic<uint32_t>& end, ThreadEntry entry, void* argument);

}  // namespace dbos::vmm
