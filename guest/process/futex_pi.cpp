// FUTEX_LOCK_PI and its kin. The word holds the owner's thread id, FUTEX_WAITERS when the owner
// must enter the kernel to unlock, and FUTEX_OWNER_DIED.
#include <linux/futex.h>

#include "guest/memory/user_copy.h"
#include "guest/memory/window_object.h"
#include "guest/process/futex.h"
#include "guest/process/futex_memory.h"
#include "guest/process/process.h"

namespace dbos {

namespace {

// Threads in futex_lock_pi, so that a thread's end need not search the queues of a program that
// never uses these futexes.
std::atomic<u32> pi_waiters{0};

u32 id_of(const Thread& thread) {
  return static_cast<u32>(thread.thread_id);
}

// What one attempt under the bucket's lock came to.
enum class Attempt { kTaken, kQueued, kAgain, kDeadlock };

// Sets the word from `value` to `wanted`.
bool exchange(VirtualAddress address, u32 value, u32 wanted) {
  const Result<u32> found = compare_exchange_program_nofault(address, value, wanted);
  return found.is_ok() && found.value() == value;
}

Attempt attempt(Thread& thread, VirtualAddress address, u32 value, bool may_wait) {
  const FutexKey key{thread.space, address.value()};
  FutexBucket& bucket = futex_bucket(key);
  LockGuard guard(bucket.lock);
  const u32 owner = value & FUTEX_TID_MASK;
  if (owner == id_of(thread)) return Attempt::kDeadlock;
  if (owner == 0) {
    const u32 waiters = bucket.first_of(key) != nullptr ? FUTEX_WAITERS : 0;
    const u32 wanted = id_of(thread) | waiters | (value & FUTEX_OWNER_DIED);
    return exchange(address, value, wanted) ? Attempt::kTaken : Attempt::kAgain;
  }
  if (!may_wait) return Attempt::kQueued;
  // Also when the bit is set already: the owner must not unlock between our reading and queueing.
  if (!exchange(address, value, value | FUTEX_WAITERS)) return Attempt::kAgain;
  thread.futex_bitset = kFutexBitsetAny;
  thread.futex_is_pi = true;
  bucket.append(thread, address.value());
  return Attempt::kQueued;
}

enum class Owner { kLives, kEnds, kGone };

// Not asked of Linux, where the host thread of one that has ended may wait for the next one.
Owner state_of(const Thread& thread, u32 owner) {
  const LockGuard guard(thread.process->lock);
  const Thread* const found = find_thread(*thread.process, static_cast<i32>(owner));
  if (found == nullptr) return Owner::kGone;
  return found->releases_futexes.load() ? Owner::kEnds : Owner::kLives;
}

// A word that may be written without a fault next time.
Result<u32> touch(VirtualAddress address) {
  const u32 value = DBOS_TRY(read_program<u32>(address));
  return compare_exchange_program(address, value, value);
}

i64 lock(Thread& thread, VirtualAddress address, const FutexDeadline* deadline) {
  if (!is_aligned(address.value(), sizeof(u32))) return -EINVAL;
  for (platform::Wait wait;;) {
    const u32 value = DBOS_TRY_CALL(touch(address));
    const u32 owner = value & FUTEX_TID_MASK;
    if (owner != 0 && owner != id_of(thread) && state_of(thread, owner) == Owner::kGone) {
      // It gave up what it held before it left its process: Linux's handle_exit_race().
      if (DBOS_TRY_CALL(read_program<u32>(address)) == value) return -ESRCH;
      continue;
    }
    switch (attempt(thread, address, value, deadline != nullptr)) {
      case Attempt::kTaken:
        return 0;
      case Attempt::kDeadlock:
        return -EDEADLK;
      case Attempt::kAgain:
        continue;
      case Attempt::kQueued:
        break;
    }
    if (deadline == nullptr) return -EAGAIN;
    // One that ends may have looked for its waiters before this one queued.
    if (state_of(thread, owner) != Owner::kLives && futex_withdraw(thread)) {
      wait.turn();
      continue;
    }
    const i64 result = futex_sleep(thread, *deadline);
    // A signal's handler runs, then Linux makes this call again in any case.
    return result == -EINTR || result == kInterrupted ? kNotStarted : result;
  }
}

// Gives the futex to its first waiter, or to nobody. False: the word changed, or must be touched.
bool hand_over(Thread& owner, VirtualAddress address, u32 value, u32 flags, u32 free_value) {
  const FutexKey key{owner.space, address.value()};
  FutexBucket& bucket = futex_bucket(key);
  FutexWakeList woken;
  bool done;
  {
    LockGuard guard(bucket.lock);
    Thread* waiter = bucket.first_of(key);
    while (waiter != nullptr && !waiter->futex_is_pi) waiter = bucket.next_of(*waiter, key);
    const u32 wanted = waiter != nullptr ? id_of(*waiter) | FUTEX_WAITERS | flags : free_value;
    done = exchange(address, value, wanted);
    if (done && waiter != nullptr) woken.take(bucket, *waiter);
  }
  woken.wake_all();
  return done;
}

bool is_owned(const Thread& owner, VirtualAddress address) {
  const Result<u32> value = peek_program_nofault(address);
  return value.is_ok() && (value.value() & FUTEX_TID_MASK) == id_of(owner);
}

// The lowest address above `above` of a futex that is the owner's and has a waiter; 0: none.
u64 next_owned(FutexBucket& bucket, const Thread& owner, u64 above) {
  u64 lowest = 0;
  LockGuard guard(bucket.lock);
  for (Thread* waiter = bucket.first; waiter != nullptr; waiter = waiter->futex_next) {
    if (!waiter->futex_is_pi || waiter->space != owner.space) continue;
    const u64 address = futex_key_of(*waiter).address;
    const bool is_next = address > above && (lowest == 0 || address < lowest);
    if (is_next && is_owned(owner, VirtualAddress(address))) lowest = address;
  }
  return lowest;
}

}  // namespace

i64 futex_lock_pi(Thread& thread, VirtualAddress address, const FutexDeadline& deadline) {
  pi_waiters.fetch_add(1);
  const i64 result = lock(thread, address, &deadline);
  pi_waiters.fetch_sub(1);
  return result;
}

i64 futex_try_lock_pi(Thread& thread, VirtualAddress address) {
  return lock(thread, address, nullptr);
}

i64 futex_unlock_pi(Thread& thread, VirtualAddress address) {
  if (!is_aligned(address.value(), sizeof(u32))) return -EINVAL;
  for (;;) {
    const u32 value = DBOS_TRY_CALL(touch(address));
    if ((value & FUTEX_TID_MASK) != id_of(thread)) return -EPERM;
    if (hand_over(thread, address, value, 0, 0)) return 0;
  }
}

// What the word is when none of our threads gets it. Who waits for a shared one is Linux's affair,
// which hands it over when the host thread ends: until then it must stay marked.
static u32 abandoned_value(const Thread& owner, VirtualAddress address) {
  WindowReference window;
  const Result<PhysicalAddress> host =
      shared_futex_address(*owner.space, address, Access::kRead, window);
  const bool is_hosts = host.is_ok() && !host.value().is_null();
  return is_hosts ? FUTEX_OWNER_DIED | FUTEX_WAITERS : FUTEX_OWNER_DIED;
}

void futex_abandon_pi(Thread& owner, VirtualAddress address) {
  const u32 free_value = abandoned_value(owner, address);
  for (;;) {
    const Result<u32> value = touch(address);
    if (value.is_error() || (value.value() & FUTEX_TID_MASK) != id_of(owner)) return;
    if (hand_over(owner, address, value.value(), FUTEX_OWNER_DIED, free_value)) return;
  }
}

void futex_abandon_all_pi(Thread& owner) {
  if (pi_waiters.load() == 0) return;
  for (u32 i = 0; i < kFutexBucketCount; ++i) {
    FutexBucket& bucket = futex_bucket_at(i);
    // One at a time, as the lock is released to hand it over, and each once: a word that can't be
    // written, for want of memory or of the right, stays the owner's.
    u64 address = 0;
    while ((address = next_owned(bucket, owner, address)) != 0) {
      futex_abandon_pi(owner, VirtualAddress(address));
    }
  }
}

}  // namespace dbos
