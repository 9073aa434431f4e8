// What threads synchronise with: mutexes of every kind, robust ones, condition variables, barriers,
// read-write locks, semaphores; allocation and memory calls from many threads.
#include <pthread.h>
#include <semaphore.h>

#include <condition_variable>
#include <mutex>
#include <shared_mutex>
#include <thread>

#include "support.h"

CASE(mutex_protects_a_counter) {
  static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
  static int counter;
  counter = 0;
  pthread_t threads[8];
  for (pthread_t& thread : threads) {
    thread = start_thread([](void*) -> void* {
      for (int i = 0; i < 2000; ++i) {
        pthread_mutex_lock(&mutex);
        counter = counter + 1;
        pthread_mutex_unlock(&mutex);
      }
      return nullptr;
    });
  }
  for (pthread_t thread : threads) join_thread(thread);
  CHECK_EQ(counter, 16000);
}

CASE(mutex_kinds_answer_as_posix_says) {
  pthread_mutexattr_t attributes;
  pthread_mutexattr_init(&attributes);
  pthread_mutex_t mutex;
  pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_ERRORCHECK);
  pthread_mutex_init(&mutex, &attributes);
  CHECK_EQ(pthread_mutex_lock(&mutex), 0);
  CHECK_EQ(pthread_mutex_lock(&mutex), EDEADLK);
  CHECK_EQ(pthread_mutex_unlock(&mutex), 0);
  CHECK_EQ(pthread_mutex_unlock(&mutex), EPERM);
  pthread_mutex_destroy(&mutex);
  pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_RECURSIVE);
  pthread_mutex_init(&mutex, &attributes);
  for (int i = 0; i < 5; ++i) CHECK_EQ(pthread_mutex_lock(&mutex), 0);
  void* other = join_thread(start_thread(
      [](void* m) { return as_pointer(pthread_mutex_trylock(static_cast<pthread_mutex_t*>(m))); },
      &mutex));
  CHECK(other == as_pointer(EBUSY));
  for (int i = 0; i < 5; ++i) CHECK_EQ(pthread_mutex_unlock(&mutex), 0);
  pthread_mutex_destroy(&mutex);
  pthread_mutexattr_destroy(&attributes);
}

CASE(timed_lock_gives_up) {
  pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
  pthread_mutex_lock(&mutex);
  void* got = join_thread(start_thread(
      [](void* m) {
        timespec until = {};
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += 10'000'000;
        if (until.tv_nsec >= 1'000'000'000) {
          until.tv_nsec -= 1'000'000'000;
          ++until.tv_sec;
        }
        return as_pointer(pthread_mutex_timedlock(static_cast<pthread_mutex_t*>(m), &until));
      },
      &mutex));
  CHECK(got == as_pointer(ETIMEDOUT));
  pthread_mutex_unlock(&mutex);
}

CASE(robust_mutex_tells_of_its_dead_owner) {
  pthread_mutexattr_t attributes;
  pthread_mutexattr_init(&attributes);
  pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
  pthread_mutex_t mutex;
  pthread_mutex_init(&mutex, &attributes);
  auto die_holding = [](void* m) -> void* {
    pthread_mutex_lock(static_cast<pthread_mutex_t*>(m));
    return nullptr;
  };
  join_thread(start_thread(die_holding, &mutex));
  CHECK_EQ(pthread_mutex_lock(&mutex), EOWNERDEAD);
  CHECK_EQ(pthread_mutex_consistent(&mutex), 0);
  CHECK_EQ(pthread_mutex_unlock(&mutex), 0);
  CHECK_EQ(pthread_mutex_lock(&mutex), 0);
  CHECK_EQ(pthread_mutex_unlock(&mutex), 0);
  join_thread(start_thread(die_holding, &mutex));
  CHECK_EQ(pthread_mutex_lock(&mutex), EOWNERDEAD);
  CHECK_EQ(pthread_mutex_unlock(&mutex), 0);  // not made consistent
  CHECK_EQ(pthread_mutex_lock(&mutex), ENOTRECOVERABLE);
  pthread_mutex_destroy(&mutex);
  pthread_mutexattr_destroy(&attributes);
}

CASE(robust_shared_mutex_tells_of_a_dead_process) {
  void* at = mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  REQUIRE(at != MAP_FAILED);
  auto* mutex = static_cast<pthread_mutex_t*>(at);
  pthread_mutexattr_t attributes;
  pthread_mutexattr_init(&attributes);
  pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
  pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
  pthread_mutex_init(mutex, &attributes);
  CHECK(exited(run_child([=] { CHECK_EQ(pthread_mutex_lock(mutex), 0); })));
  CHECK_EQ(pthread_mutex_lock(mutex), EOWNERDEAD);
  CHECK_EQ(pthread_mutex_consistent(mutex), 0);
  CHECK_EQ(pthread_mutex_unlock(mutex), 0);
  CHECK(killed(run_child([=] {
                 pthread_mutex_lock(mutex);
                 raise(SIGKILL);
               }),
               SIGKILL));
  CHECK_EQ(pthread_mutex_lock(mutex), EOWNERDEAD);
  pthread_mutexattr_destroy(&attributes);
  munmap(at, kPage);
}

CASE(condition_variable_hands_work_over) {
  std::mutex mutex;
  std::condition_variable changed;
  int turn = 0;
  long sum = 0;
  std::thread consumer([&] {
    std::unique_lock lock(mutex);
    for (int i = 0; i < 500; ++i) {
      changed.wait(lock, [&] { return turn == 1; });
      sum += i;
      turn = 0;
      changed.notify_one();
    }
  });
  for (int i = 0; i < 500; ++i) {
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return turn == 0; });
    turn = 1;
    changed.notify_one();
  }
  consumer.join();
  CHECK_EQ(sum, 499 * 500 / 2);
}

CASE(condition_variable_broadcast_and_timeout) {
  std::mutex mutex;
  std::condition_variable changed;
  bool go = false;
  int woken = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 20; ++i) {
    threads.emplace_back([&] {
      std::unique_lock lock(mutex);
      changed.wait(lock, [&] { return go; });
      ++woken;
    });
  }
  {
    std::lock_guard lock(mutex);
    go = true;
  }
  changed.notify_all();
  for (auto& thread : threads) thread.join();
  CHECK_EQ(woken, 20);
  std::unique_lock lock(mutex);
  CHECK(!changed.wait_for(lock, std::chrono::milliseconds(5), [] { return false; }));
}

CASE(barrier_elects_one_each_round) {
  static pthread_barrier_t barrier;
  static std::atomic<int> elected;
  elected = 0;
  REQUIRE(pthread_barrier_init(&barrier, nullptr, 6) == 0);
  pthread_t threads[6];
  for (pthread_t& thread : threads) {
    thread = start_thread([](void*) -> void* {
      for (int round = 0; round < 50; ++round) {
        if (pthread_barrier_wait(&barrier) == PTHREAD_BARRIER_SERIAL_THREAD) ++elected;
      }
      return nullptr;
    });
  }
  for (pthread_t thread : threads) join_thread(thread);
  CHECK_EQ(elected.load(), 50);
  pthread_barrier_destroy(&barrier);
}

CASE(read_write_lock_keeps_pairs_equal) {
  std::shared_mutex lock;
  int left = 0, right = 0;
  std::atomic<bool> unequal{false};
  std::vector<std::thread> threads;
  for (int i = 0; i < 6; ++i) {
    threads.emplace_back([&, i] {
      for (int j = 0; j < 300; ++j) {
        if (i < 2) {
          std::unique_lock writer(lock);
          ++left;
          ++right;
        } else {
          std::shared_lock reader(lock);
          if (left != right) unequal = true;
        }
      }
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK(!unequal);
  CHECK_EQ(left, 600);
}

CASE(semaphores_count) {
  sem_t semaphore;
  REQUIRE(sem_init(&semaphore, 0, 2) == 0);
  CHECK_EQ(sem_trywait(&semaphore), 0);
  CHECK_EQ(sem_trywait(&semaphore), 0);
  CHECK_ERRNO(sem_trywait(&semaphore), EAGAIN);
  timespec past = {1, 0};
  CHECK_ERRNO(sem_timedwait(&semaphore, &past), ETIMEDOUT);
  pthread_t thread = start_thread(
      [](void* s) -> void* {
        for (int i = 0; i < 100; ++i) sem_post(static_cast<sem_t*>(s));
        return nullptr;
      },
      &semaphore);
  for (int i = 0; i < 100; ++i) REQUIRE(sem_wait(&semaphore) == 0);
  join_thread(thread);
  sem_destroy(&semaphore);
}

CASE(malloc_from_many_threads) {
  std::vector<std::thread> threads;
  std::atomic<int> wrong{0};
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&, t] {
      std::vector<std::pair<unsigned char*, size_t>> blocks;
      for (size_t i = 0; i < 300; ++i) {
        size_t size = mix(static_cast<uint64_t>(t), i) % (i % 20 == 0 ? 300000 : 3000) + 1;
        auto* block = static_cast<unsigned char*>(malloc(size));
        memset(block, t + 1, size);
        blocks.emplace_back(block, size);
        if (i % 3 == 0) {
          auto [old, length] = blocks[blocks.size() / 2];
          if (old[0] != t + 1 || old[length - 1] != t + 1) ++wrong;
          free(old);
          blocks.erase(blocks.begin() + static_cast<long>(blocks.size() / 2));
        }
      }
      for (auto [block, size] : blocks) {
        if (block[0] != t + 1 || block[size - 1] != t + 1) ++wrong;
        free(block);
      }
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK_EQ(wrong.load(), 0);
}

CASE(memory_calls_race_with_writers) {
  // One thread maps, protects and unmaps its own pages all the time; the others must not notice.
  std::atomic<bool> stop{false};
  std::atomic<int> wrong{0};
  std::vector<std::thread> writers;
  for (int t = 0; t < 3; ++t) {
    writers.emplace_back([&, t] {
      void* at = map_anonymous(64 * kPage);
      for (uint64_t round = 0; !stop || round < 3; ++round) {
        fill(at, 64 * kPage, round + static_cast<uint64_t>(t));
        if (!filled(at, 64 * kPage, round + static_cast<uint64_t>(t))) ++wrong;
      }
      munmap(at, 64 * kPage);
    });
  }
  for (int i = 0; i < 200; ++i) {
    void* at = map_anonymous(16 * kPage);
    memset(at, 1, 16 * kPage);
    REQUIRE(mprotect(at, 8 * kPage, PROT_READ) == 0);
    REQUIRE(madvise(offset(at, 8 * kPage), 8 * kPage, MADV_DONTNEED) == 0);
    REQUIRE(*bytes(at) == 1 && *bytes(at, 8 * kPage) == 0);
    munmap(at, 16 * kPage);
  }
  stop = true;
  for (auto& thread : writers) thread.join();
  CHECK_EQ(wrong.load(), 0);
}

CHECK_MAIN
