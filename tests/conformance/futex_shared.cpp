// Futexes and memory: words shared between processes and between two mappings, words whose page
// fork copies, many words in one wait, priority inheritance.
#include <pthread.h>
#include <sys/time.h>

#include "blocked.h"
#include "futex_support.h"

#ifndef SYS_futex_waitv
#define SYS_futex_waitv 449
#endif

CASE(shared_word_works_across_processes) {
  auto* word = static_cast<Word*>(
      mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  REQUIRE(word != MAP_FAILED);
  pid_t child = start_child([=] {
    for (uint32_t turn = 1; turn < 40; turn += 2) {
      while (word->load() != turn) futex(word, FUTEX_WAIT, turn - 1);
      word->store(turn + 1);
      futex(word, FUTEX_WAKE, 1);
    }
  });
  for (uint32_t turn = 0; turn < 40; turn += 2) {
    while (word->load() != turn) futex(word, FUTEX_WAIT, turn - 1);
    word->store(turn + 1);
    futex(word, FUTEX_WAKE, 1);
  }
  CHECK(exited(status_of(child)));
  CHECK_EQ(word->load(), 40);
  munmap(word, kPage);
}

CASE(shared_word_in_a_file_mapped_twice) {
  int file = memfd_create("word", MFD_CLOEXEC);
  REQUIRE(file != -1 && ftruncate(file, kPage) == 0);
  void* first = mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  void* second = mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  REQUIRE(first != MAP_FAILED && second != MAP_FAILED);
  std::thread waiter([=] { CHECK_EQ(futex(first, FUTEX_WAIT, 0), 0); });
  while (futex(second, FUTEX_WAKE, 1) == 0) sched_yield();
  waiter.join();
  munmap(first, kPage);
  munmap(second, kPage);
  close(file);
}

CASE(private_word_after_fork_is_another) {
  // The child's copy has the same address; waking it must not wake the parent's thread.
  Sleepers sleepers;
  sleepers.add(1);
  sleep_ms(2);
  CHECK(exited(run_child([&] {
    CHECK_EQ(futex(&sleepers.word, kWake, 10), 0);
    CHECK_EQ(futex(&sleepers.word, FUTEX_WAKE, 10), 0);
  })));
  CHECK_EQ(sleepers.woken.load(), 0);
  sleepers.wake_exactly(1);
  sleepers.join();
}

CASE(waiters_survive_copies_of_their_page) {
  // The page of the word is copied on write after each fork; the sleeper must still be found.
  for (int i = 0; i < 10; ++i) {
    Sleepers sleepers;
    sleepers.add(2);
    sleep_ms(1);
    pid_t child = start_child([&] {
      sleepers.word = 2;
      pause();
    });
    sleepers.word = 0;  // the parent's write after the fork
    sleepers.wake_exactly(2);
    sleepers.join();
    kill(child, SIGKILL);
    CHECK(killed(status_of(child), SIGKILL));
  }
}

CASE(no_wakeup_is_lost_in_a_ping_pong) {
  static Word word{0};
  word = 0;
  auto play = [](uint32_t mine) {
    for (int i = 0; i < 2000; ++i) {
      for (uint32_t seen; (seen = word.load()) != mine;) futex(&word, kWait, seen);
      word = 1 - mine;
      futex(&word, kWake, 1);
    }
  };
  std::thread other(play, 1);
  play(0);
  other.join();
  CHECK_EQ(word.load(), 0);
}

CASE(many_words_in_one_wait) {
  struct Waiter {
    uint64_t value;
    uint64_t address;
    uint32_t flags;
    uint32_t reserved;
  };
  static_assert(sizeof(Waiter) == 24);
  Word words[3] = {};
  Waiter waiters[3];
  for (int i = 0; i < 3; ++i)
    waiters[i] = {0, reinterpret_cast<uintptr_t>(&words[i]), 2 | FUTEX_PRIVATE_FLAG, 0};
  auto waitv = [&](unsigned count, const timespec* until) {
    return syscall(SYS_futex_waitv, waiters, count, 0, until, CLOCK_MONOTONIC);
  };
  if (waitv(0, nullptr) == -1 && errno == ENOSYS) SKIP("no futex_waitv");
  CHECK_ERRNO(waitv(0, nullptr), EINVAL);
  CHECK_ERRNO(waitv(129, nullptr), EINVAL);
  timespec until = after(CLOCK_MONOTONIC, 5);
  CHECK_ERRNO(waitv(3, &until), ETIMEDOUT);
  words[1] = 1;
  CHECK_ERRNO(waitv(3, &until), EAGAIN);
  words[1] = 0;
  std::thread waiter([&] { CHECK_EQ(waitv(3, nullptr), 2); });
  while (futex(&words[2], kWake, 1) == 0) sched_yield();
  waiter.join();
}

CASE(shared_word_needs_the_rights_of_its_mapping) {
  void* at = mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  REQUIRE(at != MAP_FAILED);
  bytes(at)[0] = 1;
  const timespec soon = {0, 5'000'000};
  REQUIRE(mprotect(at, kPage, PROT_READ) == 0);
  CHECK_EQ(futex(at, FUTEX_WAKE, 1), 0);
  CHECK_ERRNO(futex(at, FUTEX_WAIT, 0, &soon), EAGAIN);
  CHECK_ERRNO(futex(at, FUTEX_LOCK_PI, 0, &soon), EFAULT);
  CHECK_ERRNO(futex(at, FUTEX_TRYLOCK_PI, 0), EFAULT);
  const uint32_t add_one = FUTEX_OP(FUTEX_OP_ADD, 1, FUTEX_OP_CMP_EQ, 0);
  CHECK_ERRNO(futex_n(at, FUTEX_WAKE_OP, 1, 1, at, add_one), EFAULT);
  CHECK_EQ(bytes(at)[0], 1);
  REQUIRE(mprotect(at, kPage, PROT_NONE) == 0);
  CHECK_ERRNO(futex(at, FUTEX_WAKE, 1), EFAULT);
  CHECK_ERRNO(futex(at, FUTEX_WAIT, 1, &soon), EFAULT);
  munmap(at, kPage);
}

CASE(priority_inheritance_words) {
  Word word{0};
  CHECK_EQ(futex(&word, FUTEX_LOCK_PI_PRIVATE, 0), 0);
  CHECK_EQ(word.load() & FUTEX_TID_MASK, gettid());
  CHECK_ERRNO(futex(&word, FUTEX_LOCK_PI_PRIVATE, 0), EDEADLK);
  std::thread([&] {
    timespec until = after(CLOCK_REALTIME, 5);
    CHECK_ERRNO(futex(&word, FUTEX_TRYLOCK_PI_PRIVATE, 0), EAGAIN);
    CHECK_ERRNO(futex(&word, FUTEX_LOCK_PI_PRIVATE, 0, &until), ETIMEDOUT);
    CHECK_ERRNO(futex(&word, FUTEX_UNLOCK_PI_PRIVATE, 0), EPERM);
  }).join();
  CHECK_EQ(futex(&word, FUTEX_UNLOCK_PI_PRIVATE, 0), 0);
  CHECK_EQ(word.load(), 0);
}

CASE(priority_inheritance_word_of_a_thread_that_has_ended) {
  Word word{0};
  std::thread([&] { word = static_cast<uint32_t>(gettid()); }).join();
  const timespec until = after(CLOCK_REALTIME, 300);
  CHECK_ERRNO(futex(&word, FUTEX_LOCK_PI_PRIVATE, 0, &until), ESRCH);
}

CASE(priority_inheritance_lock_between_processes_outlasts_handlers) {
  auto* word = static_cast<Word*>(
      mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  REQUIRE(word != MAP_FAILED);
  static std::atomic<int> handled;
  handled = 0;
  auto old = install(SIGUSR1, [](int) { ++handled; });  // without SA_RESTART
  Pipe locked, unlock;
  pid_t child = start_child([&] {
    CHECK_EQ(futex(word, FUTEX_LOCK_PI, 0), 0);
    locked.post();
    unlock.take();
    CHECK_EQ(futex(word, FUTEX_UNLOCK_PI, 0), 0);
  });
  locked.take();
  std::atomic<pid_t> waiter{0};
  BlockedCall lock({SYS_futex}, [&] {
    waiter = gettid();
    CHECK_EQ(futex(word, FUTEX_LOCK_PI, 0), 0);
    CHECK_EQ(word->load() & FUTEX_TID_MASK, gettid());
    CHECK_EQ(futex(word, FUTEX_UNLOCK_PI, 0), 0);
  });
  CHECK_EQ(tgkill(getpid(), waiter, SIGUSR1), 0);
  while (handled == 0) sleep_ms(1);
  wait_until_asleep(waiter, {SYS_futex});
  unlock.post();
  lock.join();
  CHECK(exited(status_of(child)));
  sigaction(SIGUSR1, &old, nullptr);
  munmap(word, kPage);
}

CASE(priority_inheritance_mutex) {
  pthread_mutexattr_t attributes;
  pthread_mutexattr_init(&attributes);
  REQUIRE(pthread_mutexattr_setprotocol(&attributes, PTHREAD_PRIO_INHERIT) == 0);
  static pthread_mutex_t mutex;
  REQUIRE(pthread_mutex_init(&mutex, &attributes) == 0);
  static int counter;
  counter = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([] {
      for (int i = 0; i < 100; ++i) {
        REQUIRE(pthread_mutex_lock(&mutex) == 0);
        counter = counter + 1;
        if (i % 10 == 0) sched_yield();
        REQUIRE(pthread_mutex_unlock(&mutex) == 0);
      }
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK_EQ(counter, 400);
  pthread_mutex_destroy(&mutex);
  pthread_mutexattr_destroy(&attributes);
}

// An owner thread that ends while a child process waits. Both lock by a word and never unlock it.
template <typename Lock, typename LockAsNext>
static void end_as_owner(Word* word, Lock lock, LockAsNext lock_as_next) {
  Pipe locked;
  const pid_t child = start_child([&] {
    locked.take();
    lock_as_next();
    CHECK_EQ(word->load() & FUTEX_TID_MASK, gettid());
  });
  std::thread([&] {
    lock();
    locked.post();
    for (int i = 0; i < 10000 && (word->load() & FUTEX_WAITERS) == 0; ++i) sleep_ms(1);
  }).join();
  CHECK(exited(status_of(child)));
}

CASE(priority_inheritance_lock_of_a_thread_that_ends_goes_to_another_process) {
  void* shared = mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  REQUIRE(shared != MAP_FAILED);
  auto* word = static_cast<Word*>(shared);
  const timespec until = after(CLOCK_REALTIME, 30000);
  end_as_owner(
      word, [&] { word->store(static_cast<uint32_t>(gettid())); },
      [&] {
        CHECK_EQ(futex(word, FUTEX_LOCK_PI, 0, &until), 0);
        CHECK((word->load() & FUTEX_OWNER_DIED) != 0);
      });
  munmap(shared, kPage);
}

CASE(robust_priority_inheritance_mutex_of_a_thread_that_ends_goes_to_another_process) {
  void* shared = mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  REQUIRE(shared != MAP_FAILED);
  auto* mutex = static_cast<pthread_mutex_t*>(shared);
  pthread_mutexattr_t attributes;
  pthread_mutexattr_init(&attributes);
  pthread_mutexattr_setprotocol(&attributes, PTHREAD_PRIO_INHERIT);
  pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
  pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
  REQUIRE(pthread_mutex_init(mutex, &attributes) == 0);
  const timespec until = after(CLOCK_REALTIME, 30000);
  end_as_owner(
      reinterpret_cast<Word*>(&mutex->__data.__lock),
      [&] { CHECK_EQ(pthread_mutex_lock(mutex), 0); },
      [&] {
        CHECK_EQ(pthread_mutex_timedlock(mutex, &until), EOWNERDEAD);
        CHECK_EQ(pthread_mutex_consistent(mutex), 0);
      });
  CHECK_EQ(pthread_mutex_timedlock(mutex, &until), EOWNERDEAD);
  CHECK_EQ(pthread_mutex_consistent(mutex), 0);
  CHECK_EQ(pthread_mutex_unlock(mutex), 0);
  pthread_mutexattr_destroy(&attributes);
  munmap(shared, kPage);
}

CHECK_MAIN
