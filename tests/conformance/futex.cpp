// The futex system call itself: values and timeouts, how many are woken, bit sets, requeueing,
// FUTEX_WAKE_OP, errors, signals.
#include <pthread.h>

#include "futex_support.h"

CASE(wait_with_another_value_returns_at_once) {
  Word word{5};
  CHECK_ERRNO(futex(&word, kWait, 4), EAGAIN);
  CHECK_ERRNO(futex(&word, FUTEX_WAIT, 4), EAGAIN);
  timespec hour = {3600, 0};
  CHECK_ERRNO(futex(&word, kWait, 4, &hour), EAGAIN);
}

CASE(wake_without_waiters_wakes_none) {
  Word word{0};
  CHECK_EQ(futex(&word, kWake, 1), 0);
  CHECK_EQ(futex(&word, FUTEX_WAKE, 1000), 0);
}

CASE(relative_timeout) {
  Word word{0};
  timespec short_time = {0, 5'000'000};
  double start = seconds();
  CHECK_ERRNO(futex(&word, kWait, 0, &short_time), ETIMEDOUT);
  CHECK(seconds() - start >= 0.0049);
  timespec none = {0, 0};
  CHECK_ERRNO(futex(&word, kWait, 0, &none), ETIMEDOUT);
}

CASE(absolute_timeouts) {
  Word word{0};
  for (clockid_t clock : {CLOCK_MONOTONIC, CLOCK_REALTIME}) {
    int operation =
        FUTEX_WAIT_BITSET_PRIVATE | (clock == CLOCK_REALTIME ? FUTEX_CLOCK_REALTIME : 0);
    timespec until = after(clock, 5);
    CHECK_ERRNO(futex(&word, operation, 0, &until, nullptr, FUTEX_BITSET_MATCH_ANY), ETIMEDOUT);
    timespec now = after(clock, 0);
    CHECK(now.tv_sec > until.tv_sec ||
          (now.tv_sec == until.tv_sec && now.tv_nsec >= until.tv_nsec));
    timespec past = {1, 0};
    CHECK_ERRNO(futex(&word, operation, 0, &past, nullptr, FUTEX_BITSET_MATCH_ANY), ETIMEDOUT);
  }
}

CASE(timeout_must_be_a_time) {
  Word word{0};
  timespec bad = {0, 1'000'000'000};
  CHECK_ERRNO(futex(&word, kWait, 0, &bad), EINVAL);
  bad = {0, -1};
  CHECK_ERRNO(futex(&word, kWait, 0, &bad), EINVAL);
  bad = {-1, 0};
  CHECK_ERRNO(futex(&word, kWait, 0, &bad), EINVAL);
  CHECK_ERRNO(futex(&word, kWait, 0, reinterpret_cast<timespec*>(8)), EFAULT);
}

CASE(bad_words_and_operations) {
  alignas(8) static uint32_t words[2] = {};
  void* odd = offset(words, 1);
  CHECK_ERRNO(futex(odd, kWait, 0), EINVAL);
  CHECK_ERRNO(futex(odd, kWake, 1), EINVAL);
  CHECK_ERRNO(futex(nullptr, kWait, 0), EFAULT);
  CHECK_ERRNO(futex(reinterpret_cast<void*>(uintptr_t{1} << 62), kWait, 0), EFAULT);
  void* none = map_anonymous(kPage, PROT_NONE);
  CHECK_ERRNO(futex(none, kWait, 0), EFAULT);
  CHECK_ERRNO(futex(none, FUTEX_WAIT, 0), EFAULT);
  CHECK_ERRNO(futex(words, 99, 0), ENOSYS);
  CHECK_ERRNO(futex(words, FUTEX_WAIT_BITSET_PRIVATE, 0, nullptr, nullptr, 0), EINVAL);
  CHECK_ERRNO(futex(words, FUTEX_WAKE_BITSET_PRIVATE, 1, nullptr, nullptr, 0), EINVAL);
  munmap(none, kPage);
}

CASE(wait_on_a_fresh_page_and_on_a_read_only_one) {
  void* at = map_anonymous(2 * kPage);
  CHECK_ERRNO(futex(at, kWait, 1), EAGAIN);  // never touched: zero
  timespec none = {0, 0};
  CHECK_ERRNO(futex(offset(at, kPage), kWait, 0, &none), ETIMEDOUT);
  mprotect(at, kPage, PROT_READ);
  CHECK_ERRNO(futex(at, kWait, 0, &none), ETIMEDOUT);
  munmap(at, 2 * kPage);
}

CASE(wake_counts) {
  Sleepers sleepers;
  sleepers.add(6);
  sleepers.wake_exactly(2);
  sleepers.wait_for_woken(2);
  sleep_ms(2);
  CHECK_EQ(sleepers.woken.load(), 2);
  sleepers.wake_exactly(4);
  sleepers.join();
  CHECK_EQ(sleepers.woken.load(), 6);
  CHECK_EQ(futex(&sleepers.word, kWake, 100), 0);
}

CASE(wake_chooses_by_bits) {
  Sleepers sleepers;
  sleepers.add(3, 1);
  sleepers.add(2, 2);
  sleepers.add(1, 3);
  sleepers.wake_exactly(3, FUTEX_WAKE_BITSET_PRIVATE, 2);
  sleepers.wait_for_woken(3);
  CHECK_EQ(futex(&sleepers.word, FUTEX_WAKE_BITSET_PRIVATE, 100, nullptr, nullptr, 2), 0);
  CHECK_EQ(futex(&sleepers.word, FUTEX_WAKE_BITSET_PRIVATE, 100, nullptr, nullptr, 4), 0);
  sleepers.wake_exactly(3, FUTEX_WAKE_BITSET_PRIVATE, 1);
  sleepers.join();
  CHECK_EQ(sleepers.woken.load(), 6);
}

CASE(one_word_of_many_is_woken) {
  static Sleepers sleepers[8];
  for (auto& one : sleepers) one.add(1);
  for (int i = 7; i >= 0; --i) {
    sleepers[i].wake_exactly(1);
    sleepers[i].join();
    for (int j = 0; j < 8; ++j) CHECK_EQ(sleepers[j].woken.load(), j >= i ? 1 : 0);
  }
}

CASE(requeue_moves_waiters) {
  Sleepers first;
  Word second{0};
  first.add(5);
  // All five: woken or moved, counted until none is left to come.
  long moved = 0;
  while (moved < 5) {
    long n = futex_n(&first.word, FUTEX_REQUEUE_PRIVATE, 0, 10, &second);
    REQUIRE(n >= 0);
    moved += n;
    sched_yield();
  }
  CHECK_EQ(moved, 5);
  CHECK_EQ(futex(&first.word, kWake, 10), 0);
  CHECK_EQ(futex(&second, kWake, 2), 2);
  CHECK_EQ(futex(&second, kWake, 10), 3);
  first.join();
}

CASE(compare_and_requeue) {
  Sleepers first;
  Word second{0};
  CHECK_ERRNO(futex_n(&first.word, FUTEX_CMP_REQUEUE_PRIVATE, 1, 10, &second, 7), EAGAIN);
  first.add(4);
  long done = 0;
  while (done < 4) {
    long n = futex_n(&first.word, FUTEX_CMP_REQUEUE_PRIVATE, done == 0 ? 1 : 0, 10, &second, 0);
    REQUIRE(n >= 0);
    done += n;
    sched_yield();
  }
  CHECK_EQ(done, 4);
  first.wait_for_woken(1);
  CHECK_EQ(futex(&second, kWake, 10), 3);
  first.join();
  CHECK_ERRNO(futex_n(&first.word, FUTEX_CMP_REQUEUE_PRIVATE, 1, 1, offset(&second, 1), 0), EINVAL);
  CHECK_ERRNO(
      futex_n(&first.word, FUTEX_CMP_REQUEUE_PRIVATE, static_cast<uint32_t>(-1), 1, &second, 0),
      EINVAL);
}

CASE(requeue_onto_itself_counts) {
  Sleepers sleepers;
  sleepers.add(1);
  while (futex_n(&sleepers.word, FUTEX_CMP_REQUEUE_PRIVATE, 0, 1, &sleepers.word, 0) == 0)
    sched_yield();
  sleepers.wake_exactly(1);
  sleepers.join();
}

CASE(wake_op_computes_and_compares) {
  Word first{0}, second{10};
  auto op = [&](int operation, int argument, int comparison, int against) {
    return futex_n(&first, FUTEX_WAKE_OP_PRIVATE, 1, 1, &second,
                   static_cast<uint32_t>(FUTEX_OP(operation, argument, comparison, against)));
  };
  CHECK_EQ(op(FUTEX_OP_SET, 20, FUTEX_OP_CMP_EQ, 10), 0);
  CHECK_EQ(second.load(), 20);
  CHECK_EQ(op(FUTEX_OP_ADD, 3, FUTEX_OP_CMP_EQ, 0), 0);
  CHECK_EQ(second.load(), 23);
  CHECK_EQ(op(FUTEX_OP_OR, 8, FUTEX_OP_CMP_EQ, 0), 0);
  CHECK_EQ(second.load(), 31);
  CHECK_EQ(op(FUTEX_OP_ANDN, 1, FUTEX_OP_CMP_EQ, 0), 0);
  CHECK_EQ(second.load(), 30);
  CHECK_EQ(op(FUTEX_OP_XOR, 5, FUTEX_OP_CMP_EQ, 0), 0);
  CHECK_EQ(second.load(), 27);
  CHECK_EQ(op(FUTEX_OP_SET | FUTEX_OP_OPARG_SHIFT, 4, FUTEX_OP_CMP_EQ, 0), 0);
  CHECK_EQ(second.load(), 16);
  CHECK_ERRNO(op(7, 0, FUTEX_OP_CMP_EQ, 0), ENOSYS);
}

CASE(wake_op_wakes_both_when_the_comparison_holds) {
  Sleepers first, second;
  first.add(1);
  second.add(1);
  auto op = [&](uint32_t count, int comparison) {
    return futex_n(&first.word, FUTEX_WAKE_OP_PRIVATE, count, 1, &second.word,
                   static_cast<uint32_t>(FUTEX_OP(FUTEX_OP_ADD, 0, comparison, 0)));
  };
  while (op(1, FUTEX_OP_CMP_NE) == 0) sched_yield();  // only the first
  first.join();
  CHECK_EQ(second.woken.load(), 0);
  while (op(1, FUTEX_OP_CMP_EQ) == 0) sched_yield();
  second.join();
}

CASE(signal_interrupts_a_wait) {
  static Word word{0};
  static std::atomic<int> phase;
  auto old = install(SIGUSR1, [](int) {});
  phase = 0;
  std::thread waiter([] {
    phase = 1;
    CHECK_ERRNO(futex(&word, kWait, 0), EINTR);
    phase = 2;
  });
  while (phase == 0) sched_yield();
  while (phase != 2) {
    pthread_kill(waiter.native_handle(), SIGUSR1);
    sleep_ms(1);
  }
  waiter.join();
  sigaction(SIGUSR1, &old, nullptr);
}

CASE(wait_restarts_when_asked_to) {
  static Word word{0};
  static std::atomic<int> handled;
  handled = 0;
  auto old = install(
      SIGUSR1, [](int) { ++handled; }, SA_RESTART);
  std::thread waiter([] { CHECK_EQ(futex(&word, kWait, 0), 0); });
  for (int i = 1; i <= 5; ++i) {
    pthread_kill(waiter.native_handle(), SIGUSR1);
    while (handled.load() < i) sched_yield();
    sleep_ms(1);
  }
  while (futex(&word, kWake, 1) == 0) sched_yield();
  waiter.join();
  sigaction(SIGUSR1, &old, nullptr);
}

CASE(wait_with_a_timeout_is_interrupted_too) {
  static Word word{0};
  static std::atomic<int> phase;
  auto old = install(SIGUSR1, [](int) {});
  phase = 0;
  std::thread waiter([] {
    timespec hour = {3600, 0};
    phase = 1;
    CHECK_ERRNO(futex(&word, kWait, 0, &hour), EINTR);
    timespec until = after(CLOCK_MONOTONIC, 3600000);
    phase = 2;
    CHECK_ERRNO(futex(&word, FUTEX_WAIT_BITSET_PRIVATE, 0, &until, nullptr, FUTEX_BITSET_MATCH_ANY),
                EINTR);
    phase = 3;
  });
  while (phase != 3) {
    pthread_kill(waiter.native_handle(), SIGUSR1);
    sleep_ms(1);
  }
  waiter.join();
  sigaction(SIGUSR1, &old, nullptr);
}

CHECK_MAIN
