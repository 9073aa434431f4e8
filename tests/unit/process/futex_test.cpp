// The futexes with real threads: run under the thread sanitizer as well.
#include <linux/futex.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <chrono>
#include <ctime>
#include <thread>
#include <vector>

#include "guest/process/futex.h"
#include "guest/syscalls/futex_calls.h"
#include "tests/unit/process/fake_kernel.h"

namespace dbos {
namespace {

VirtualAddress at(const void* word) {
  return VirtualAddress(reinterpret_cast<u64>(word));
}

u32 load(const u32& word) {
  return __atomic_load_n(&word, __ATOMIC_SEQ_CST);
}

struct Time {
  i64 seconds;
  i64 nanoseconds;
};

Process& process() {
  static Process* const one = [] {
    auto* made = new Process{};
    made->process_id = 1000;
    made->space = fake::space(0);
    return made;
  }();
  return *one;
}

i64 call(const u32* word, int operation, u32 value, u64 timeout = 0, const u32* second = nullptr,
         u32 third = 0) {
  return system_futex(current_thread(), at(word), static_cast<u32>(operation), value, timeout,
                      at(second), third);
}
i64 private_call(const u32* word, int operation, u32 value, u64 timeout = 0,
                 const u32* second = nullptr, u32 third = 0) {
  return call(word, operation | FUTEX_PRIVATE_FLAG, value, timeout, second, third);
}
u64 pointer_to(const Time& time) {
  return reinterpret_cast<u64>(&time);
}

// A thread that waits on the word; result() joins it.
class Waiter {
 public:
  Waiter(u32& word, u32 bitset)
      : thread_([this, &word, bitset] {
          fake::ProgramThread self(process());
          result_ = private_call(&word, FUTEX_WAIT_BITSET, load(word), 0, nullptr, bitset);
        }) {}
  explicit Waiter(u32& word) : Waiter(word, kFutexBitsetAny) {}
  i64 result() {
    thread_.join();
    return result_;
  }

 private:
  i64 result_ = -1;
  std::thread thread_;
};

void wait_for_queue(const u32& word, u32 length) {
  const FutexKey key{process().space, reinterpret_cast<u64>(&word)};
  FutexBucket& bucket = futex_bucket(key);
  for (;;) {
    u32 found = 0;
    {
      LockGuard guard(bucket.lock);
      for (Thread* t = bucket.first_of(key); t != nullptr; t = bucket.next_of(*t, key)) ++found;
    }
    if (found == length) return;
    std::this_thread::yield();
  }
}

// glibc's three-state mutex.
class Mutex {
 public:
  void lock() {
    u32 seen = 0;
    if (__atomic_compare_exchange_n(&word_, &seen, 1, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
      return;
    while (__atomic_exchange_n(&word_, 2, __ATOMIC_ACQUIRE) != 0)
      private_call(&word_, FUTEX_WAIT, 2);
  }
  void unlock() {
    if (__atomic_exchange_n(&word_, 0, __ATOMIC_RELEASE) == 2) private_call(&word_, FUTEX_WAKE, 1);
  }

 private:
  u32 word_ = 0;
};

}  // namespace

TEST_CASE("a futex call that can't wait answers as Linux does") {
  fake::ProgramThread self(process());
  alignas(8) u32 words[2] = {5, 0};
  const auto* const unaligned = reinterpret_cast<const u32*>(reinterpret_cast<char*>(words) + 1);
  CHECK(private_call(words, FUTEX_WAIT, 4) == -EAGAIN);
  CHECK(private_call(unaligned, FUTEX_WAIT, 5) == -EINVAL);
  CHECK(private_call(unaligned, FUTEX_WAKE, 1) == -EINVAL);
  CHECK(private_call(words, FUTEX_WAIT_BITSET, 5, 0, nullptr, 0) == -EINVAL);
  CHECK(private_call(words, FUTEX_WAKE_BITSET, 1, 0, nullptr, 0) == -EINVAL);
  CHECK(private_call(reinterpret_cast<u32*>(64), FUTEX_WAIT, 0) == -EFAULT);
  CHECK(private_call(words, FUTEX_FD, 0) == -ENOSYS);
  CHECK(private_call(words, 99, 0) == -ENOSYS);
  CHECK(private_call(words, FUTEX_WAKE | FUTEX_CLOCK_REALTIME, 1) == -ENOSYS);
  CHECK(private_call(words, FUTEX_WAKE, 1) == 0);
  CHECK(private_call(words, FUTEX_REQUEUE, static_cast<u32>(-1), 0, words + 1) == -EINVAL);
  CHECK(private_call(words, FUTEX_CMP_REQUEUE, 1, 1, words + 1, 6) == -EAGAIN);
  const Time negative{-1, 0};
  const Time too_many{0, 1'000'000'000};
  CHECK(private_call(words, FUTEX_WAIT, 5, pointer_to(negative)) == -EINVAL);
  CHECK(private_call(words, FUTEX_WAIT, 5, pointer_to(too_many)) == -EINVAL);
  CHECK(private_call(words, FUTEX_WAIT, 5, 64) == -EFAULT);
}

TEST_CASE("a timed wait ends by itself and leaves the queue") {
  fake::ProgramThread self(process());
  u32 word = 1;
  const Time soon{0, 2'000'000};
  CHECK(private_call(&word, FUTEX_WAIT, 1, pointer_to(soon)) == -ETIMEDOUT);
  const Time past{0, 1};
  CHECK(private_call(&word, FUTEX_WAIT_BITSET, 1, pointer_to(past), nullptr, 1) == -ETIMEDOUT);
  CHECK(private_call(&word, FUTEX_WAIT_BITSET | FUTEX_CLOCK_REALTIME, 1, pointer_to(past), nullptr,
                     1) == -ETIMEDOUT);
  CHECK(private_call(&word, FUTEX_WAKE, 1) == 0);
}

TEST_CASE("a signal ends a wait: restartable without a timeout, EINTR with one") {
  fake::ProgramThread self(process());
  u32 word = 1;
  const Time long_time{1000, 0};
  self.interrupt_next_park(kInterrupted);
  CHECK(private_call(&word, FUTEX_WAIT, 1) == kInterrupted);
  self.page().signal.number = 0;
  self.interrupt_next_park(-EINTR);
  CHECK(private_call(&word, FUTEX_WAIT, 1, pointer_to(long_time)) == -EINTR);
  self.page().signal.number = 0;
  self.interrupt_next_park(kNotStarted);
  CHECK(private_call(&word, FUTEX_WAIT, 1, pointer_to(long_time)) == kNotStarted);
  self.page().signal.number = 0;
  CHECK(private_call(&word, FUTEX_WAKE, 1) == 0);
}

TEST_CASE("waking counts, and only matching bitsets are woken") {
  fake::ProgramThread self(process());
  u32 word = 7;
  Waiter one(word, 1);
  Waiter two(word, 2);
  Waiter both(word, 3);
  wait_for_queue(word, 3);
  CHECK(private_call(&word, FUTEX_WAKE_BITSET, 10, 0, nullptr, 4) == 0);
  CHECK(private_call(&word, FUTEX_WAKE_BITSET, 10, 0, nullptr, 2) == 2);
  CHECK(two.result() == 0);
  CHECK(both.result() == 0);
  CHECK(private_call(&word, FUTEX_WAKE, 10) == 1);
  CHECK(one.result() == 0);
}

TEST_CASE("requeued waiters are woken at the other futex") {
  fake::ProgramThread self(process());
  fake::set_absent_first(true);
  u32 from = 7;
  u32 to = 8;
  std::vector<std::unique_ptr<Waiter>> waiters;
  for (int i = 0; i < 6; ++i) waiters.push_back(std::make_unique<Waiter>(from));
  wait_for_queue(from, 6);
  CHECK(private_call(&from, FUTEX_CMP_REQUEUE, 1, 3, &to, 7) == 4);
  wait_for_queue(to, 3);
  wait_for_queue(from, 2);
  CHECK(private_call(&from, FUTEX_REQUEUE, 0, 100, &to) == 2);
  CHECK(private_call(&from, FUTEX_WAKE, 10) == 0);
  CHECK(private_call(&to, FUTEX_WAKE, 10) == 5);
  for (const auto& waiter : waiters) CHECK(waiter->result() == 0);
  fake::set_absent_first(false);
}

TEST_CASE("FUTEX_WAKE_OP changes the second word and wakes by its old value") {
  fake::ProgramThread self(process());
  u32 first = 1;
  u32 second = 10;
  Waiter a(first);
  Waiter b(second);
  wait_for_queue(first, 1);
  wait_for_queue(second, 1);
  // second += 5; wake its waiters if it was 11: it was 10.
  u32 operation = FUTEX_OP(FUTEX_OP_ADD, 5, FUTEX_OP_CMP_EQ, 11);
  CHECK(private_call(&first, FUTEX_WAKE_OP, 1, 1, &second, operation) == 1);
  CHECK(a.result() == 0);
  CHECK(load(second) == 15);
  operation = FUTEX_OP(FUTEX_OP_OR | FUTEX_OP_OPARG_SHIFT, 4, FUTEX_OP_CMP_GT, 3);
  CHECK(private_call(&first, FUTEX_WAKE_OP, 1, 1, &second, operation) == 1);
  CHECK(b.result() == 0);
  CHECK(load(second) == 31);
  CHECK(private_call(&first, FUTEX_WAKE_OP, 1, 1, &second, u32{7} << 28) == -ENOSYS);
}

TEST_CASE("the same address in another address space is another futex") {
  fake::ProgramThread self(process());
  u32 word = 3;
  Waiter waiter(word);
  wait_for_queue(word, 1);
  CHECK(futex_wake(fake::space(1), at(&word), 1, kFutexBitsetAny) == 0);
  CHECK(futex_wake(fake::space(0), at(&word), 1, kFutexBitsetAny) == 1);
  CHECK(waiter.result() == 0);
}

TEST_CASE("a mutex of futexes excludes, with threads that contend for it") {
  constexpr int kThreads = 6;
  constexpr int kRounds = 3000;
  Mutex mutex;
  long counter = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&] {
      fake::ProgramThread self(process());
      for (int round = 0; round < kRounds; ++round) {
        mutex.lock();
        ++counter;
        mutex.unlock();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(counter == long{kThreads} * kRounds);
}

TEST_CASE("each wake that was counted ends exactly one wait, whatever times out meanwhile") {
  constexpr int kWaiters = 5;
  u32 words[2] = {1, 1};
  std::atomic<bool> stop{false};
  std::atomic<long> woken_waits{0};
  std::atomic<long> counted_wakes{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < kWaiters; ++i) {
    threads.emplace_back([&, i] {
      fake::ProgramThread self(process());
      while (!stop) {
        const Time time{0, 1000 + 20'000 * i};
        if (private_call(&words[i % 2], FUTEX_WAIT, 1, pointer_to(time)) == 0) ++woken_waits;
      }
    });
  }
  std::thread mover([&] {
    fake::ProgramThread self(process());
    while (!stop) {
      counted_wakes += private_call(&words[0], FUTEX_WAKE, 2);
      private_call(&words[0], FUTEX_REQUEUE, 0, 2, &words[1]);
      counted_wakes += private_call(&words[1], FUTEX_WAKE, 1);
    }
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  stop = true;
  mover.join();
  for (std::thread& thread : threads) thread.join();
  CHECK(woken_waits == counted_wakes);
}

TEST_CASE("a priority inheritance futex goes from owner to waiter in order") {
  constexpr int kThreads = 5;
  constexpr int kRounds = 1000;
  u32 word = 0;
  long counter = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&] {
      fake::ProgramThread self(process());
      const u32 id = static_cast<u32>(self.thread().thread_id);
      for (int round = 0; round < kRounds; ++round) {
        u32 seen = 0;
        if (!__atomic_compare_exchange_n(&word, &seen, id, false, __ATOMIC_SEQ_CST,
                                         __ATOMIC_SEQ_CST)) {
          if (private_call(&word, FUTEX_LOCK_PI, 0) != 0) std::abort();
        }
        ++counter;
        seen = id;
        if (!__atomic_compare_exchange_n(&word, &seen, 0, false, __ATOMIC_SEQ_CST,
                                         __ATOMIC_SEQ_CST)) {
          if (private_call(&word, FUTEX_UNLOCK_PI, 0) != 0) std::abort();
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(counter == long{kThreads} * kRounds);
  CHECK((word & FUTEX_TID_MASK) == 0);
}

TEST_CASE("priority inheritance futexes refuse what Linux refuses") {
  const fake::ProgramThread owner(process(), 78);
  fake::ProgramThread self(process(), 77);
  u32 word = 77;
  CHECK(private_call(&word, FUTEX_LOCK_PI, 0) == -EDEADLK);
  CHECK(private_call(&word, FUTEX_TRYLOCK_PI, 0) == -EDEADLK);
  word = 78;
  CHECK(private_call(&word, FUTEX_TRYLOCK_PI, 0) == -EAGAIN);
  CHECK(private_call(&word, FUTEX_UNLOCK_PI, 0) == -EPERM);
  const Time past{0, 1};
  CHECK(private_call(&word, FUTEX_LOCK_PI, 0, pointer_to(past)) == -ETIMEDOUT);
  CHECK(word == (78 | FUTEX_WAITERS));
  word = 79;  // nobody's
  CHECK(private_call(&word, FUTEX_LOCK_PI, 0) == -ESRCH);
  CHECK(private_call(&word, FUTEX_TRYLOCK_PI, 0) == -ESRCH);
  word = FUTEX_OWNER_DIED;
  CHECK(private_call(&word, FUTEX_TRYLOCK_PI, 0) == 0);
  CHECK(word == (77 | FUTEX_OWNER_DIED));
}

namespace {

// As its end does: it gives the word up, or leaves it, and leaves its process, whose lock is held.
void end_owner(Thread& owner, u32& word, u32 last_value) {
  __atomic_store_n(&word, last_value, __ATOMIC_SEQ_CST);
  owner.thread_id = 79;
}

// Thread 77 locks the word, for at most 20 s from begin() on.
class Locker {
 public:
  explicit Locker(u32& word)
      : thread_([this, &word] {
          fake::ProgramThread self(process(), 77);
          is_there_.store(true);
          while (!may_begin_.load()) std::this_thread::yield();
          timespec now{};
          clock_gettime(CLOCK_REALTIME, &now);
          const Time end{now.tv_sec + 20, 0};
          result_ = private_call(&word, FUTEX_LOCK_PI, 0, pointer_to(end));
        }) {
    while (!is_there_.load()) std::this_thread::yield();
  }
  void begin() { may_begin_.store(true); }
  i64 result() {
    thread_.join();
    return result_;
  }

 private:
  i64 result_ = -1;
  std::atomic<bool> is_there_{false};
  std::atomic<bool> may_begin_{false};
  std::thread thread_;
};

}  // namespace

TEST_CASE("a priority inheritance futex that its owner gave up as it ended is free") {
  fake::ProgramThread owner(process(), 78);
  u32 word = 78;
  Locker locker(word);
  {
    const LockGuard guard(process().lock);
    locker.begin();
    std::this_thread::sleep_for(std::chrono::milliseconds(50));  // until it asks for the owner
    end_owner(owner.thread(), word, FUTEX_OWNER_DIED);
  }
  CHECK(locker.result() == 0);
  CHECK(word == (77 | FUTEX_OWNER_DIED));
}

TEST_CASE("an owner that ends while another thread queues leaves none that waits for ever") {
  fake::ProgramThread owner(process(), 78);
  owner.thread().releases_futexes.store(true);  // it has looked for waiters already
  u32 word = 78;
  Locker locker(word);
  locker.begin();
  while (load(word) == 78) std::this_thread::yield();  // until it has queued
  const auto end = [&](u32 last_value) {
    const LockGuard guard(process().lock);
    end_owner(owner.thread(), word, last_value);
  };
  SECTION("it gives the futex up") {
    end(FUTEX_OWNER_DIED);
    CHECK(locker.result() == 0);
    CHECK((word & ~FUTEX_WAITERS) == (77 | FUTEX_OWNER_DIED));
  }
  SECTION("it leaves it") {
    end(78 | FUTEX_WAITERS);
    CHECK(locker.result() == -ESRCH);
  }
}

}  // namespace dbos
