// POSIX and C++ threads: creation in numbers, join and detach, thread-local storage and
// destructors, mutexes of every kind, condition variables, barriers, read-write locks,
// cancellation, exits.
#include <pthread.h>
#include <semaphore.h>
#include <sys/resource.h>

#include <future>
#include <mutex>
#include <thread>
#include <vector>

#include "support.h"

namespace {

thread_local int local_value = 5;
thread_local char local_zero[3 * kPage];

}  // namespace

CASE(two_thousand_threads_one_after_the_other) {
  for (intptr_t i = 0; i < 2000; ++i) {
    void* got = join_thread(start_thread([](void* argument) { return argument; }, as_pointer(i)));
    REQUIRE(got == as_pointer(i));
  }
}

CASE(sixty_four_threads_at_once) {
  pthread_barrier_t barrier;
  REQUIRE(pthread_barrier_init(&barrier, nullptr, 65) == 0);
  struct Work {
    pthread_barrier_t* barrier;
    pid_t id;
  } work[64];
  pthread_t threads[64];
  for (int i = 0; i < 64; ++i) {
    work[i] = {&barrier, 0};
    threads[i] = start_thread(
        [](void* argument) -> void* {
          Work* mine = static_cast<Work*>(argument);
          mine->id = gettid();
          pthread_barrier_wait(mine->barrier);
          return nullptr;
        },
        &work[i]);
  }
  pthread_barrier_wait(&barrier);
  for (pthread_t thread : threads) join_thread(thread);
  for (int i = 0; i < 64; ++i) {
    CHECK(work[i].id > 0 && work[i].id != getpid());
    for (int j = 0; j < i; ++j) CHECK(work[i].id != work[j].id);
  }
  pthread_barrier_destroy(&barrier);
}

CASE(threads_share_memory_and_the_process_id) {
  static pid_t process, parent;
  static int value;
  value = 1;
  join_thread(start_thread([](void*) -> void* {
    process = getpid();
    parent = getppid();
    value = value + 1;
    return nullptr;
  }));
  CHECK_EQ(process, getpid());
  CHECK_EQ(parent, getppid());
  CHECK_EQ(gettid(), getpid());
  CHECK_EQ(value, 2);
}

CASE(errno_and_thread_locals_are_each_threads_own) {
  errno = EDOM;
  local_value = 6;
  join_thread(start_thread([](void*) -> void* {
    CHECK_EQ(errno, 0);
    CHECK_EQ(local_value, 5);
    CHECK(all_are(local_zero, sizeof local_zero, 0));
    memset(local_zero, 1, sizeof local_zero);
    CHECK_ERRNO(close(-1), EBADF);
    return nullptr;
  }));
  CHECK_EQ(errno, EDOM);
  CHECK_EQ(local_value, 6);
  CHECK(all_are(local_zero, sizeof local_zero, 0));
}

CASE(specific_data_destructors_run) {
  static std::atomic<int> destroyed;
  static pthread_key_t key;
  destroyed = 0;
  REQUIRE(pthread_key_create(&key, [](void* value) {
            // Set again twice: a destructor may leave a value behind for the next round.
            intptr_t left = reinterpret_cast<intptr_t>(value);
            ++destroyed;
            if (left > 1) pthread_setspecific(key, as_pointer(left - 1));
          }) == 0);
  join_thread(start_thread([](void*) -> void* {
    pthread_setspecific(key, as_pointer(3));
    return nullptr;
  }));
  CHECK_EQ(destroyed.load(), 3);
  CHECK(pthread_getspecific(key) == nullptr);
  pthread_key_delete(key);
}

CASE(thread_local_destructors_run_in_reverse) {
  static std::vector<int> order;
  struct Noisy {
    int number;
    ~Noisy() { order.push_back(number); }
  };
  std::thread([] {
    thread_local Noisy first{1};
    thread_local Noisy second{2};
    first.number += 10;
    second.number += 10;
  }).join();
  CHECK(order == std::vector<int>({12, 11}));
  order.clear();
}

CASE(detached_threads_finish_by_themselves) {
  static sem_t done;
  REQUIRE(sem_init(&done, 0, 0) == 0);
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  for (int i = 0; i < 100; ++i) {
    auto body = [](void*) -> void* {
      sem_post(&done);
      return nullptr;
    };
    if (i % 2 == 0) {
      start_thread(body, nullptr, &attributes);
    } else {
      CHECK_EQ(pthread_detach(start_thread(body)), 0);
    }
  }
  for (int i = 0; i < 100; ++i) REQUIRE(sem_wait(&done) == 0);
  pthread_attr_destroy(&attributes);
}

CASE(pthread_exit_gives_its_value_and_unwinds) {
  static int unwound;
  unwound = 0;
  void* got = join_thread(start_thread([](void*) -> void* {
    struct Guard {
      ~Guard() { ++unwound; }
    } guard;
    pthread_exit(as_pointer(77));
  }));
  CHECK(got == as_pointer(77));
  CHECK_EQ(unwound, 1);
}

CASE(stack_size_and_guard_are_as_asked) {
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  REQUIRE(pthread_attr_setstacksize(&attributes, kMiB) == 0);
  REQUIRE(pthread_attr_setguardsize(&attributes, 4 * kPage) == 0);
  join_thread(start_thread(
      [](void*) -> void* {
        pthread_attr_t mine;
        REQUIRE(pthread_getattr_np(pthread_self(), &mine) == 0);
        void* low = nullptr;
        size_t size = 0;
        REQUIRE(pthread_attr_getstack(&mine, &low, &size) == 0);
        CHECK(size >= kMiB - 8 * kPage);
        volatile char big[512 * kKiB];
        big[0] = 1;
        CHECK_EQ(big[0], 1);
        pthread_attr_destroy(&mine);
        return nullptr;
      },
      nullptr, &attributes));
  pthread_attr_destroy(&attributes);
}

CASE(thread_on_a_stack_of_ones_own) {
  void* stack = map_anonymous(256 * kKiB);
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  REQUIRE(pthread_attr_setstack(&attributes, stack, 256 * kKiB) == 0);
  static uintptr_t where;
  join_thread(start_thread(
      [](void*) -> void* {
        volatile int here = 0;
        where = reinterpret_cast<uintptr_t>(&here);
        return nullptr;
      },
      nullptr, &attributes));
  uintptr_t low = reinterpret_cast<uintptr_t>(stack);
  CHECK(where >= low && where < low + 256 * kKiB);
  pthread_attr_destroy(&attributes);
  munmap(stack, 256 * kKiB);
}

CASE(process_lives_on_when_the_main_thread_exits) {
  int status = run_child([] {
    static pthread_t main_thread;
    main_thread = pthread_self();
    start_thread([](void*) -> void* {
      pthread_join(main_thread, nullptr);
      check::print("the main thread is gone\n");
      _exit(21);
    });
    pthread_exit(nullptr);
  });
  CHECK(exited(status, 21));
}

CASE(files_are_opened_when_the_main_thread_has_ended) {
  int status = run_child([] {
    static pthread_t main_thread;
    main_thread = pthread_self();
    start_thread([](void*) -> void* {
      pthread_join(main_thread, nullptr);
      for (const char* path : {"/proc/meminfo", "/proc/thread-self/fd"}) {
        CHECK(close(open(path, O_RDONLY | O_CLOEXEC)) == 0);
      }
      int file = open(check::self.c_str(), O_RDONLY | O_CLOEXEC);
      void* at = mmap(nullptr, kPage, PROT_READ, MAP_PRIVATE, file, 0);
      REQUIRE(at != MAP_FAILED);
      char begin[32];
      snprintf(begin, sizeof begin, "%lx-", reinterpret_cast<uintptr_t>(at));
      bool is_named = false;
      for (const std::string& line : lines_of(read_all("/proc/thread-self/maps"))) {
        if (line.rfind(begin, 0) == 0) is_named = line.find(check::self) != std::string::npos;
      }
      CHECK(is_named);
      _exit(check::failures.load() == 0 ? 21 : 1);
    });
    pthread_exit(nullptr);
  });
  CHECK(exited(status, 21));
}

CASE(exit_status_is_zero_when_the_last_thread_exits) {
  CHECK(exited(run_child([] {
    start_thread([](void*) -> void* {
      sleep_ms(5);
      return nullptr;
    });
    pthread_exit(nullptr);
  })));
}

CASE(exit_status_is_that_of_the_last_thread) {
  CHECK(exited(run_child([] {
                 start_thread([](void*) -> void* {
                   sleep_ms(500);  // for the first to end before
                   syscall(SYS_exit, 5);
                   return nullptr;
                 });
                 syscall(SYS_exit, 3);
               }),
               5));
}

CASE(exit_from_a_thread_ends_all) {
  int status = run_child([] {
    for (int i = 0; i < 4; ++i) {
      start_thread([](void*) -> void* {
        for (;;) pause();
      });
      start_thread([](void*) -> void* {
        for (;;) asm volatile("");
      });
    }
    start_thread([](void*) -> void* { exit(22); });
    for (;;) pause();
  });
  CHECK(exited(status, 22));
}

namespace {
std::atomic<int> cleaned;
void* wait_to_be_cancelled(void* started) {
  pthread_cleanup_push([](void*) { ++cleaned; }, nullptr);
  sem_post(static_cast<sem_t*>(started));
  for (;;) pause();
  pthread_cleanup_pop(0);
  return nullptr;
}
}  // namespace

CASE(cancellation_runs_the_cleanup) {
  sem_t started;
  sem_init(&started, 0, 0);
  cleaned = 0;
  for (int i = 0; i < 20; ++i) {
    pthread_t thread = start_thread(wait_to_be_cancelled, &started);
    sem_wait(&started);
    CHECK_EQ(pthread_cancel(thread), 0);
    CHECK(join_thread(thread) == PTHREAD_CANCELED);
  }
  CHECK_EQ(cleaned.load(), 20);
}

CASE(asynchronous_cancellation_stops_a_loop) {
  sem_t started;
  sem_init(&started, 0, 0);
  pthread_t thread = start_thread(
      [](void* s) -> void* {
        pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, nullptr);
        sem_post(static_cast<sem_t*>(s));
        for (;;) asm volatile("");
      },
      &started);
  sem_wait(&started);
  CHECK_EQ(pthread_cancel(thread), 0);
  CHECK(join_thread(thread) == PTHREAD_CANCELED);
}

CASE(disabled_cancellation_waits) {
  sem_t steps[2];
  sem_init(&steps[0], 0, 0);
  sem_init(&steps[1], 0, 0);
  pthread_t thread = start_thread(
      [](void* s) -> void* {
        sem_t* semaphores = static_cast<sem_t*>(s);
        pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, nullptr);
        sem_post(&semaphores[0]);
        sem_wait(&semaphores[1]);
        pthread_exit(as_pointer(3));
      },
      steps);
  sem_wait(&steps[0]);
  CHECK_EQ(pthread_cancel(thread), 0);
  sem_post(&steps[1]);
  CHECK(join_thread(thread) == as_pointer(3));
}

CASE(standard_library_threads) {
  std::vector<std::future<long>> parts;
  for (long i = 0; i < 8; ++i) {
    parts.push_back(std::async(std::launch::async, [i] {
      long sum = 0;
      for (long j = i * 1000; j < (i + 1) * 1000; ++j) sum += j;
      return sum;
    }));
  }
  long sum = 0;
  for (auto& part : parts) sum += part.get();
  CHECK_EQ(sum, 7999L * 8000 / 2);
  std::promise<int> promise;
  std::thread([&] { promise.set_exception(std::make_exception_ptr(42)); }).join();
  int caught = 0;
  try {
    promise.get_future().get();
  } catch (int value) {
    caught = value;
  }
  CHECK_EQ(caught, 42);
  std::once_flag once;
  std::atomic<int> ran{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) threads.emplace_back([&] { std::call_once(once, [&] { ++ran; }); });
  for (auto& thread : threads) thread.join();
  CHECK_EQ(ran.load(), 1);
  std::atomic<int> flag{0};
  std::thread waiter([&] { flag.wait(0); });
  flag = 1;
  flag.notify_all();
  waiter.join();
}

CASE(name_that_another_thread_gave_ends_with_the_thread) {
  for (int i = 0; i < 10; ++i) {
    Pipe named;
    pthread_t thread = start_thread(
        [](void* pipe) -> void* {
          static_cast<Pipe*>(pipe)->take();
          return nullptr;
        },
        &named);
    CHECK_EQ(pthread_setname_np(thread, "named"), 0);
    named.post();
    join_thread(thread);
    char own[16] = "", next[16] = "";
    CHECK_EQ(pthread_getname_np(pthread_self(), own, sizeof own), 0);
    join_thread(start_thread(
        [](void* name) -> void* {
          pthread_getname_np(pthread_self(), static_cast<char*>(name), 16);
          return nullptr;
        },
        next));
    CHECK(strcmp(own, next) == 0);
  }
}

CASE(exceptions_cross_frames_in_threads) {
  std::atomic<int> caught{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&] {
      for (int j = 0; j < 50; ++j) {
        try {
          std::string("x").at(5);
        } catch (const std::exception&) {
          ++caught;
        }
      }
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK_EQ(caught.load(), 400);
}

// A thread needs no descriptor.
CASE(threads_are_made_with_no_descriptor_left) {
  rlimit before = {};
  REQUIRE(getrlimit(RLIMIT_NOFILE, &before) == 0);
  const rlimit few = {64, before.rlim_max};
  REQUIRE(setrlimit(RLIMIT_NOFILE, &few) == 0);
  Pipe end;
  int last = -1;
  for (int copy = dup(end.in()); copy >= 0; copy = dup(end.in())) last = copy;
  CHECK_EQ(last, 63);
  std::vector<std::thread> threads;
  for (int i = 0; i < 60; ++i) threads.emplace_back([&] { end.take(); });
  for (size_t i = 0; i < threads.size(); ++i) end.post();
  for (std::thread& thread : threads) thread.join();
  rlimit now = {};
  CHECK_EQ(getrlimit(RLIMIT_NOFILE, &now), 0);
  CHECK_EQ(now.rlim_cur, 64);
  CHECK_ERRNO(dup(end.in()), EMFILE);
  CHECK_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
  while (last > end.out()) close(last--);
}

CHECK_MAIN
