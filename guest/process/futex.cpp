#include "guest/process/futex.h"

#include "guest/memory/user_copy.h"
#include "guest/process/futex_memory.h"

namespace dbos {

namespace {

bool is_valid(VirtualAddress address) {
  return is_aligned(address.value(), sizeof(u32));
}

// FUTEX_WAKE_OP's operation (FUTEX_OP in linux/futex.h): operation:4 compare:4 operand:12 other:12.
struct WakeOperation {
  u32 operation;
  u32 compare;
  i32 operand;
  i32 compare_operand;
};
constexpr i32 sign_extend_12(u32 value) {
  return static_cast<i32>(value << 20) >> 20;
}
constexpr WakeOperation decode(u32 encoded) {
  WakeOperation decoded{
      .operation = (encoded >> 28) & 7,
      .compare = (encoded >> 24) & 15,
      .operand = sign_extend_12((encoded >> 12) & 0xfff),
      .compare_operand = sign_extend_12(encoded & 0xfff),
  };
  const bool is_shift = (encoded >> 31) != 0;  // FUTEX_OP_OPARG_SHIFT
  if (is_shift) decoded.operand = static_cast<i32>(u32{1} << (decoded.operand & 31));
  return decoded;
}

Result<u32> apply(const WakeOperation& operation, u32 old) {
  const u32 operand = static_cast<u32>(operation.operand);
  switch (operation.operation) {
    case 0:
      return operand;
    case 1:
      return old + operand;
    case 2:
      return old | operand;
    case 3:
      return old & ~operand;
    case 4:
      return old ^ operand;
    default:
      return Error(ENOSYS);
  }
}

Result<bool> holds(const WakeOperation& operation, u32 old) {
  const i32 value = static_cast<i32>(old);
  switch (operation.compare) {
    case 0:
      return value == operation.compare_operand;
    case 1:
      return value != operation.compare_operand;
    case 2:
      return value < operation.compare_operand;
    case 3:
      return value <= operation.compare_operand;
    case 4:
      return value > operation.compare_operand;
    case 5:
      return value >= operation.compare_operand;
    default:
      return Error(ENOSYS);
  }
}

Result<bool> perform(const WakeOperation& operation, VirtualAddress address) {
  u32 old = DBOS_TRY(read_program<u32>(address));
  for (;;) {
    const u32 wanted = DBOS_TRY(apply(operation, old));
    const u32 found = DBOS_TRY(compare_exchange_program(address, old, wanted));
    if (found == old) return holds(operation, old);
    old = found;
  }
}

// Takes up to `count` waiters out of the bucket, at least one. EINVAL at one that waits in
// FUTEX_LOCK_PI: only its owner's unlocking may wake it.
Result<u32> take_waiters(FutexBucket& bucket, const FutexKey& key, i32 count, u32 bitset,
                         FutexWakeList& woken) {
  u32 taken = 0;
  for (Thread* waiter = bucket.first_of(key); waiter != nullptr;) {
    Thread* const next = bucket.next_of(*waiter, key);
    if (waiter->futex_is_pi) return Error(EINVAL);
    if ((waiter->futex_bitset & bitset) != 0) {
      woken.take(bucket, *waiter);
      if (static_cast<i32>(++taken) >= count) break;
    }
    waiter = next;
  }
  return taken;
}

// Makes a waiter of `source` wait at `to`, whose bucket is `target`. One that stays in its bucket
// keeps its place: who goes through the queue must not meet it again.
void move_one(FutexBucket& source, FutexBucket& target, Thread& waiter, VirtualAddress to) {
  if (&source == &target) {
    waiter.futex_address.store(to.value(), std::memory_order_relaxed);
  } else {
    futex_move(source, target, waiter, to.value());
  }
}

}  // namespace

i64 futex_wait(Thread& thread, VirtualAddress address, u32 expected, u32 bitset,
               const FutexDeadline& deadline) {
  if (bitset == 0 || !is_valid(address)) return -EINVAL;
  FutexBucket& bucket = futex_bucket({thread.space, address.value()});
  for (;;) {
    // Resolves a fault, and is enough when the value has changed already.
    if (DBOS_TRY_CALL(read_program<u32>(address)) != expected) return -EAGAIN;
    LockGuard guard(bucket.lock);
    const Result<u32> value = peek_program_nofault(address);
    if (value.is_error()) continue;
    if (value.value() != expected) return -EAGAIN;
    thread.futex_bitset = bitset;
    thread.futex_is_pi = false;
    bucket.append(thread, address.value());
    break;
  }
  return futex_sleep(thread, deadline);
}

i64 futex_wake(AddressSpace* space, VirtualAddress address, i32 count, u32 bitset) {
  if (bitset == 0 || !is_valid(address)) return -EINVAL;
  if (address.value() >= kProgramEnd) return -EFAULT;
  const FutexKey key{space, address.value()};
  FutexBucket& bucket = futex_bucket(key);
  FutexWakeList woken;
  Result<u32> taken = 0u;
  {
    LockGuard guard(bucket.lock);
    taken = take_waiters(bucket, key, count, bitset, woken);
  }
  woken.wake_all();
  return result_of(taken);
}

i64 futex_requeue(AddressSpace* space, VirtualAddress from, VirtualAddress to, i32 wake_count,
                  i32 requeue_count, const u32* expected) {
  if (wake_count < 0 || requeue_count < 0) return -EINVAL;
  if (!is_valid(from) || !is_valid(to)) return -EINVAL;
  if (from.value() >= kProgramEnd || to.value() >= kProgramEnd) return -EFAULT;
  const FutexKey from_key{space, from.value()};
  FutexBucket& source = futex_bucket(from_key);
  FutexBucket& target = futex_bucket({space, to.value()});
  FutexWakeList woken;
  i64 moved = 0;
  for (;;) {
    if (expected != nullptr) static_cast<void>(DBOS_TRY_CALL(read_program<u32>(from)));
    FutexPairGuard guard(source, target);
    if (expected != nullptr) {
      const Result<u32> value = peek_program_nofault(from);
      if (value.is_error()) continue;
      if (value.value() != *expected) return -EAGAIN;
    }
    for (Thread* waiter = source.first_of(from_key); waiter != nullptr;) {
      Thread* const next = source.next_of(*waiter, from_key);
      const bool wakes = static_cast<i64>(woken.count()) < wake_count;
      if (waiter->futex_is_pi || (!wakes && moved >= requeue_count)) break;
      if (wakes) {
        woken.take(source, *waiter);
      } else {
        move_one(source, target, *waiter, to);
        ++moved;
      }
      waiter = next;
    }
    break;
  }
  const i64 total = static_cast<i64>(woken.count()) + moved;
  woken.wake_all();
  return total;
}

i64 futex_wake_operation(AddressSpace* space, VirtualAddress address, VirtualAddress operand,
                         i32 wake_count, i32 operand_wake_count, u32 operation) {
  if (!is_valid(address) || !is_valid(operand)) return -EINVAL;
  if (address.value() >= kProgramEnd || operand.value() >= kProgramEnd) return -EFAULT;
  // Linux changes the word under the buckets' locks. Before them is as good: whoever compares the
  // word after the change sees it, and whoever compared it before is in the queue by now.
  const bool wake_operand = DBOS_TRY_CALL(perform(decode(operation), operand));

  const FutexKey key{space, address.value()};
  const FutexKey operand_key{space, operand.value()};
  FutexBucket& bucket = futex_bucket(key);
  FutexBucket& operand_bucket = futex_bucket(operand_key);
  FutexWakeList woken;
  i64 result = 0;
  {
    FutexPairGuard guard(bucket, operand_bucket);
    const Result<u32> taken = take_waiters(bucket, key, wake_count, kFutexBitsetAny, woken);
    result = result_of(taken);
    if (taken.is_ok() && wake_operand) {
      const Result<u32> more =
          take_waiters(operand_bucket, operand_key, operand_wake_count, kFutexBitsetAny, woken);
      result = more.is_ok() ? result + more.value() : negative(more.error());
    }
  }
  woken.wake_all();
  return result;
}

}  // namespace dbos
