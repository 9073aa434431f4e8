// The futexes' wait queues: a hash of buckets, each a FIFO list of waiting threads. A thread waits
// for one futex at a time, so its Thread is the list's node. The key is (address space, address): a
// copied page changes its frame, but not its address.
//
// Who takes a thread out of its queue, under the bucket's lock, decides how its wait ends: a waker
// (the thread was woken) or the thread itself (timeout, signal). Never both.
//
// Parking: a waiter sleeps in Service::kPark, until its vCPU's park word is 1, which the VMM then
// sets back to 0; a waker sets it to 1 with Service::kWake after taking the waiter out. The word
// stays 1 when nobody sleeps, so a wake between the waiter's last look and its sleep is not lost.
// It may also be left over from an earlier wait that a timeout ended; so a waiter that returns from
// its sleep and finds itself still in the queue sleeps again.
//
// Lock order: buckets by address; a bucket's lock before nothing. The program's memory is only
// touched under it by accesses that take no fault (futex_memory.h); no host call is made under it.
#pragma once

#include "guest/lib/spinlock.h"
#include "guest/process/thread.h"

namespace dbos {

inline constexpr u32 kFutexBitsetAny = 0xffffffff;

struct FutexKey {
  const AddressSpace* space;
  u64 address;
  bool operator==(const FutexKey&) const = default;
};

inline FutexKey futex_key_of(const Thread& waiter) {
  return {waiter.space, waiter.futex_address.load(std::memory_order_relaxed)};
}

struct FutexBucket {
  Spinlock lock;
  Thread* first = nullptr;
  Thread* last = nullptr;

  void append(Thread& waiter, u64 address);
  // Takes the waiter out; it may go on as soon as this returns.
  void remove(Thread& waiter);
  Thread* first_of(const FutexKey& key) const { return match(first, key); }
  Thread* next_of(const Thread& waiter, const FutexKey& key) const {
    return match(waiter.futex_next, key);
  }

 private:
  friend void futex_move(FutexBucket& from, FutexBucket& to, Thread& waiter, u64 address);
  static Thread* match(Thread* waiter, const FutexKey& key) {
    while (waiter != nullptr && futex_key_of(*waiter) != key) waiter = waiter->futex_next;
    return waiter;
  }
  void link(Thread& waiter);
  void unlink(Thread& waiter);
};

// Puts a waiter of `from` at the end of `to`'s queue. Both locks are held.
void futex_move(FutexBucket& from, FutexBucket& to, Thread& waiter, u64 address);

FutexBucket& futex_bucket(const FutexKey& key);

inline constexpr u32 kFutexBucketCount = 256;
FutexBucket& futex_bucket_at(u32 index);

// Holds the locks of two buckets, which may be one.
class FutexPairGuard {
 public:
  FutexPairGuard(FutexBucket& a, FutexBucket& b);
  ~FutexPairGuard();
  FutexPairGuard(const FutexPairGuard&) = delete;
  FutexPairGuard& operator=(const FutexPairGuard&) = delete;

 private:
  FutexBucket* first_;
  FutexBucket* second_;  // null: the same one
};

// Threads to be woken after the locks are released: with one exit for up to kCallBatchMax of them.
class FutexWakeList {
 public:
  FutexWakeList() {}  // NOLINT: the array is written before it is read
  ~FutexWakeList() { DBOS_ASSERT(count_ == 0); }
  FutexWakeList(const FutexWakeList&) = delete;
  FutexWakeList& operator=(const FutexWakeList&) = delete;

  // Takes the waiter out of the bucket, whose lock is held.
  void take(FutexBucket& bucket, Thread& waiter);
  u32 count() const { return count_; }
  void wake_all();

 private:
  u32 count_ = 0;
  u16 vcpus_[kVcpuCountMax];
};

struct FutexDeadline {
  u64 nanoseconds;
  u32 clock;  // CLOCK_REALTIME or CLOCK_MONOTONIC

  static constexpr u64 kNever = ~u64{0};
  static constexpr FutexDeadline never() { return {kNever, 1}; }
  constexpr bool is_never() const { return nanoseconds == kNever; }
};

// Takes the thread out of its queue; false: a waker was faster.
bool futex_withdraw(Thread& waiter);

// Sleeps until a waker has taken the thread out of its queue (0). Else takes it out: -ETIMEDOUT;
// -EINTR when a signal came and the call has a deadline; kInterrupted when it has none;
// kNotStarted.
i64 futex_sleep(Thread& waiter, const FutexDeadline& deadline);

}  // namespace dbos
