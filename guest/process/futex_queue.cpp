#include "guest/process/futex_queue.h"

#include "guest/hypercall.h"

namespace dbos {

namespace {

constinit FutexBucket buckets[kFutexBucketCount];

}  // namespace

void FutexBucket::link(Thread& waiter) {
  waiter.futex_next = nullptr;
  waiter.futex_previous = last;
  (last != nullptr ? last->futex_next : first) = &waiter;
  last = &waiter;
}

void FutexBucket::unlink(Thread& waiter) {
  DBOS_ASSERT(lock.is_mine());
  DBOS_ASSERT(waiter.futex_queued.load(std::memory_order_relaxed));
  Thread* const next = waiter.futex_next;
  Thread* const previous = waiter.futex_previous;
  (previous != nullptr ? previous->futex_next : first) = next;
  (next != nullptr ? next->futex_previous : last) = previous;
}

void FutexBucket::append(Thread& waiter, u64 address) {
  DBOS_ASSERT(lock.is_mine());
  DBOS_ASSERT(!waiter.futex_queued.load(std::memory_order_relaxed));
  waiter.futex_address.store(address, std::memory_order_relaxed);
  link(waiter);
  waiter.futex_queued.store(true, std::memory_order_relaxed);
}

void FutexBucket::remove(Thread& waiter) {
  unlink(waiter);
  waiter.futex_queued.store(false, std::memory_order_release);
}

void futex_move(FutexBucket& from, FutexBucket& to, Thread& waiter, u64 address) {
  DBOS_ASSERT(to.lock.is_mine());
  from.unlink(waiter);
  waiter.futex_address.store(address, std::memory_order_relaxed);
  to.link(waiter);
}

FutexBucket& futex_bucket(const FutexKey& key) {
  // Fibonacci hashing: futexes lie at regular distances.
  const u64 mixed = (key.address >> 2) ^ (reinterpret_cast<u64>(key.space) >> 4);
  return buckets[(mixed * 0x9e3779b97f4a7c15) >> 56];
}
static_assert(kFutexBucketCount == 256);

FutexBucket& futex_bucket_at(u32 index) {
  return buckets[index];
}

FutexPairGuard::FutexPairGuard(FutexBucket& a, FutexBucket& b)
    : first_(&a < &b ? &a : &b), second_(&a == &b ? nullptr : (&a < &b ? &b : &a)) {
  first_->lock.lock();
  if (second_ != nullptr) second_->lock.lock();
}

FutexPairGuard::~FutexPairGuard() {
  if (second_ != nullptr) second_->lock.unlock();
  first_->lock.unlock();
}

void FutexWakeList::take(FutexBucket& bucket, Thread& waiter) {
  DBOS_ASSERT(count_ < kVcpuCountMax);
  vcpus_[count_++] = static_cast<u16>(waiter.vcpu);
  bucket.remove(waiter);
}

void FutexWakeList::wake_all() {
  CallBatch calls;
  for (u32 i = 0; i < count_; ++i) calls.add(Service::kWake, vcpus_[i]);
  count_ = 0;
}

// A requeue may move it to another bucket until that bucket's lock is held.
bool futex_withdraw(Thread& waiter) {
  for (;;) {
    const FutexKey key = futex_key_of(waiter);
    FutexBucket& bucket = futex_bucket(key);
    LockGuard guard(bucket.lock);
    if (!waiter.futex_queued.load(std::memory_order_acquire)) return false;
    if (futex_key_of(waiter) != key) continue;
    bucket.remove(waiter);
    return true;
  }
}

i64 futex_sleep(Thread& waiter, const FutexDeadline& deadline) {
  const HypercallPage& page = current_hypercall_page();
  for (;;) {
    if (!waiter.futex_queued.load(std::memory_order_acquire)) return 0;
    const i64 result = hypercall(Service::kPark, deadline.nanoseconds, deadline.clock);
    if (!waiter.futex_queued.load(std::memory_order_acquire)) return 0;
    if (result == -ETIMEDOUT) return futex_withdraw(waiter) ? -ETIMEDOUT : 0;
    const bool disturbed = page.signal.number != 0 || page.dying != 0;
    if (result >= 0 || !disturbed) continue;  // left over from an earlier wait
    if (!futex_withdraw(waiter)) return 0;
    if (result == kNotStarted) return kNotStarted;
    return deadline.is_never() ? kInterrupted : -EINTR;
  }
}

}  // namespace dbos
