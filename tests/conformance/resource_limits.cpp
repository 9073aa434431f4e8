// The limits on memory: whose they are, and that they hold in the programs that are executed.
#include <pthread.h>
#include <sys/resource.h>

#include <atomic>
#include <latch>
#include <thread>

#include "support.h"

namespace {
const rlim_t kStack = 16 * kMiB, kData = 300 * kMiB, kSpace = 600 * kMiB;

void set_soft(__rlimit_resource resource, rlim_t soft) {
  rlimit limit = {};
  REQUIRE(getrlimit(resource, &limit) == 0);
  limit.rlim_cur = soft;
  REQUIRE(setrlimit(resource, &limit) == 0);
}
rlim_t soft(__rlimit_resource resource, pid_t process = 0) {
  rlimit limit = {};
  REQUIRE(prlimit(process, resource, nullptr, &limit) == 0);
  return limit.rlim_cur;
}
bool may_map(size_t length) {
  void* at = mmap(nullptr, length, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (at != MAP_FAILED) munmap(at, length);
  return at != MAP_FAILED;
}
bool may_map_file() {
  const int file = memfd_create("shared", MFD_CLOEXEC);
  REQUIRE(ftruncate(file, 64 * kMiB) == 0);
  return mmap(nullptr, 64 * kMiB, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0) != MAP_FAILED;
}
void fail_to_execute(int times) {
  char* nothing[] = {nullptr};
  for (int i = 0; i < times; ++i) CHECK_EQ(execve("/nonexistent", nothing, nothing), -1);
}
void become_reporter() {
  char helper[] = "--helper", name[] = "limits";
  char* arguments[] = {check::self.data(), helper, name, nullptr};
  execv(check::self.c_str(), arguments);
  _exit(1);
}
}  // namespace

HELPER(limits) {
  check::print("stack %llu, data %llu, address space %llu\n",
               static_cast<unsigned long long>(soft(RLIMIT_STACK)),
               static_cast<unsigned long long>(soft(RLIMIT_DATA)),
               static_cast<unsigned long long>(soft(RLIMIT_AS)));
  check::print("700 MiB: %s\n", may_map(700 * kMiB) ? "mapped" : "refused");
  return 0;
}

CASE(executed_program_has_the_limits_on_memory) {
  CHECK(exited(run_child([] {
    set_soft(RLIMIT_STACK, kStack);
    set_soft(RLIMIT_DATA, kData);
    set_soft(RLIMIT_AS, kSpace);
    become_reporter();
  })));
}

CASE(data_limit_holds_for_mremap_and_not_for_what_is_replaced) {
  CHECK(exited(run_child([] {
    constexpr int kFixed = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED;
    void* data = map_aligned(128 * kMiB);
    void* read_only = map_aligned(64 * kMiB, kLarge, PROT_READ);
    set_soft(RLIMIT_DATA, 192 * kMiB);
    CHECK(mremap(data, 128 * kMiB, 256 * kMiB, MREMAP_MAYMOVE) == MAP_FAILED);
    CHECK_EQ(errno, ENOMEM);
    constexpr int kKeepOld = MREMAP_MAYMOVE | MREMAP_DONTUNMAP;
    CHECK_ERRNO(syscall(SYS_mremap, data, 128 * kMiB, 128 * kMiB, kKeepOld, nullptr), ENOMEM);
    CHECK(mmap(data, 128 * kMiB, PROT_READ | PROT_WRITE, kFixed, -1, 0) == data);
    CHECK(mmap(read_only, 64 * kMiB, PROT_READ, kFixed, -1, 0) == read_only);
    CHECK(mremap(read_only, 64 * kMiB, 256 * kMiB, MREMAP_MAYMOVE) != MAP_FAILED);
    CHECK(mremap(data, 128 * kMiB, 160 * kMiB, MREMAP_MAYMOVE) != MAP_FAILED);
  })));
}

// While one tries, another may be refused memory (docs/differences.md).
CASE(execve_that_fails_in_many_threads_leaves_nothing_limited) {
  CHECK(exited(run_child([] {
    set_soft(RLIMIT_AS, 8 * kGiB);
    // Linux makes no thread while another is in execve (EAGAIN): all are there before it begins.
    std::latch all_exist(4);
    std::vector<std::thread> threads;
    for (int i = 0; i < 3; ++i) {
      threads.emplace_back([&] {
        all_exist.arrive_and_wait();
        fail_to_execute(200);
      });
    }
    all_exist.count_down();
    for (auto& thread : threads) thread.join();
    CHECK(may_map_file());
    std::thread([] {}).join();
  })));
}

CASE(children_of_a_process_in_execve_are_not_limited) {
  CHECK(exited(run_child([] {
    set_soft(RLIMIT_AS, 8 * kGiB);
    std::atomic<bool> is_over{false};
    std::thread executes([&] {
      while (!is_over) fail_to_execute(1);
    });
    for (int i = 0; i < 50; ++i) {
      const pid_t child = fork();
      if (child == 0) _exit(may_map_file() ? 0 : 1);
      if (child > 0) CHECK(exited(status_of(child)));
    }
    is_over = true;
    executes.join();
  })));
}

CASE(limits_without_an_address) {
  for (int resource : {RLIMIT_STACK, RLIMIT_DATA, RLIMIT_AS, RLIMIT_NOFILE}) {
    CHECK_ERRNO(syscall(SYS_getrlimit, resource, nullptr), EFAULT);
    CHECK_ERRNO(syscall(SYS_setrlimit, resource, nullptr), EFAULT);
    CHECK_EQ(syscall(SYS_prlimit64, 0, resource, nullptr, nullptr), 0);
  }
}

// 24 is CAP_SYS_RESOURCE. Who is root without it may lower a hard limit, not raise it.
CASE(hard_limit_is_raised_by_capability) {
  CHECK(exited(run_child([] {
    struct {
      unsigned version;
      int process;
    } header = {0x20080522, 0};
    unsigned sets[6] = {};
    REQUIRE(syscall(SYS_capget, &header, sets) == 0);
    sets[0] &= ~(1u << 24);
    REQUIRE(syscall(SYS_capset, &header, sets) == 0);
    rlimit limit = {};
    limit.rlim_cur = limit.rlim_max = 64 * kMiB;
    CHECK_EQ(setrlimit(RLIMIT_STACK, &limit), 0);
    limit.rlim_max = 65 * kMiB;
    CHECK_ERRNO(setrlimit(RLIMIT_STACK, &limit), EPERM);
  })));
}

CASE(limits_outlast_an_exec_that_fails) {
  CHECK(exited(run_child([] {
    set_soft(RLIMIT_AS, kSpace);
    char* arguments[] = {check::self.data(), nullptr};
    CHECK_ERRNO(execv("/nowhere/at/all", arguments), ENOENT);
    CHECK(!may_map(700 * kMiB));
    int file = open(check::self.c_str(), O_RDONLY | O_CLOEXEC);
    CHECK(mmap(nullptr, kPage, PROT_READ, MAP_SHARED, file, 0) != MAP_FAILED);
    set_soft(RLIMIT_AS, RLIM_INFINITY);
    CHECK(may_map(700 * kMiB));
  })));
}

CASE(limits_of_a_vfork_child_are_its_own) {
  const rlim_t before = soft(RLIMIT_AS);
  pid_t child = vfork();
  if (child == 0) {
    set_soft(RLIMIT_AS, kSpace);
    become_reporter();
  }
  CHECK(exited(status_of(child)));
  CHECK_EQ(soft(RLIMIT_AS), before);
  CHECK(may_map(700 * kMiB));
}

CASE(limits_of_a_child_are_set_from_outside) {
  Pipe ready, go;
  pid_t child = start_child([&] {
    ready.post();
    go.take();
    CHECK_EQ(soft(RLIMIT_AS), kSpace);
    CHECK(!may_map(700 * kMiB));
    int file = open(check::self.c_str(), O_RDONLY | O_CLOEXEC);
    CHECK(mmap(nullptr, kPage, PROT_READ, MAP_SHARED, file, 0) != MAP_FAILED);
  });
  ready.take();
  rlimit limit = {}, old = {};
  REQUIRE(getrlimit(RLIMIT_AS, &limit) == 0);
  const rlim_t before = limit.rlim_cur;
  limit.rlim_cur = kSpace;
  CHECK_EQ(prlimit(child, RLIMIT_AS, &limit, &old), 0);
  CHECK_EQ(old.rlim_cur, before);
  CHECK_EQ(soft(RLIMIT_AS, child), kSpace);
  CHECK_EQ(soft(RLIMIT_AS), before);
  go.post();
  CHECK(exited(status_of(child)));
}

// Of an ordinary user, who has this process at least.
CASE(processes_and_threads_beyond_the_limit_are_refused_until_it_is_raised) {
  CHECK(exited(run_child([] {
    if (getuid() == 0) REQUIRE(setuid(65534) == 0);
    const rlim_t before = soft(RLIMIT_NPROC);
    auto start_nothing = [](pthread_t* thread) {
      return pthread_create(
          thread, nullptr, [](void*) -> void* { return nullptr; }, nullptr);
    };
    pthread_t thread;
    for (int turn = 0; turn < 3; ++turn) {
      set_soft(RLIMIT_NPROC, 1);
      for (int i = 0; i < 10; ++i) {
        CHECK_ERRNO(fork(), EAGAIN);
        CHECK_ERRNO(vfork(), EAGAIN);
        CHECK_EQ(start_nothing(&thread), EAGAIN);
      }
      set_soft(RLIMIT_NPROC, before);
      CHECK(exited(run_child([] {})));
    }
    REQUIRE(start_nothing(&thread) == 0);
    CHECK_EQ(pthread_join(thread, nullptr), 0);
    CHECK(exited(run_child([] {})));
  })));
}

CHECK_MAIN
