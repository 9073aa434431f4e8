// Threads below the C library: clone and clone3, CLONE_CHILD_CLEARTID and its siblings,
// set_tid_address, thread ids, tgkill, the robust list, names, unmapping another thread's view.
#include <linux/futex.h>
#include <linux/sched.h>
#include <pthread.h>
#include <sched.h>
#include <sys/prctl.h>

#include <thread>

#include "support.h"

namespace {

const unsigned long kThreadFlags =
    CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM;
constexpr size_t kStack = 64 * kKiB;

long futex(volatile int* word, int operation, int value) {
  return syscall(SYS_futex, word, operation, value, nullptr, nullptr, 0);
}
void wait_until_zero(volatile int* word) {
  for (int value; (value = *word) != 0;) futex(word, FUTEX_WAIT, value);
}

// Such a thread has no thread block of its own: its body may only make raw system calls and must
// not return. What it shares with its creator:
struct Shared {
  volatile int child_tid = -1;
  volatile int parent_tid = -1;
  volatile int value = 0;
  volatile int process = 0;
  volatile int thread = 0;
};

// A system call without the C library's errno.
inline long raw(long number, long a = 0, long b = 0, long c = 0, long d = 0) {
  long result;
  register long r10 asm("r10") = d;
  asm volatile("syscall"
               : "=a"(result)
               : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10)
               : "rcx", "r11", "memory");
  return result;
}

[[gnu::noinline]] int body(void* argument) {
  Shared* shared = static_cast<Shared*>(argument);
  shared->process = static_cast<int>(raw(SYS_getpid));
  shared->thread = static_cast<int>(raw(SYS_gettid));
  shared->value = shared->value + 1;
  raw(SYS_exit, 0);
  __builtin_unreachable();
}

// clone3 with a body that runs on the new stack.
long clone3_thread(clone_args* arguments, size_t size, int (*function)(void*), void* argument) {
  long result;
  register void* code asm("r8") = reinterpret_cast<void*>(function);
  register void* data asm("r9") = argument;
  asm volatile(
      "syscall\n\t"
      "testq %%rax, %%rax\n\t"
      "jnz 1f\n\t"
      "xorl %%ebp, %%ebp\n\t"
      "movq %%r9, %%rdi\n\t"
      "callq *%%r8\n\t"
      "ud2\n"
      "1:"
      : "=a"(result)
      : "a"(SYS_clone3), "D"(arguments), "S"(size), "r"(code), "r"(data)
      : "rcx", "r11", "memory");
  return result;
}

}  // namespace

CASE(clone_sets_and_clears_the_thread_ids) {
  void* stack = map_anonymous(kStack);
  static Shared shared;
  for (int i = 0; i < 50; ++i) {
    shared = Shared();
    int tid = clone(body, offset(stack, kStack),
                    static_cast<int>(kThreadFlags | CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID |
                                     CLONE_CHILD_SETTID),
                    &shared, const_cast<int*>(&shared.parent_tid), nullptr,
                    const_cast<int*>(&shared.child_tid));
    REQUIRE(tid > 0);
    REQUIRE(shared.parent_tid == tid);
    wait_until_zero(&shared.child_tid);  // cleared and woken by the kernel
    REQUIRE(shared.thread == tid);
    REQUIRE(shared.process == getpid());
    REQUIRE(shared.value == 1);
  }
  munmap(stack, kStack);
}

CASE(clone_refuses_bad_flag_combinations) {
  auto try_clone = [](unsigned long flags) {
    return raw(SYS_clone, static_cast<long>(flags), 0, 0, 0);
  };
  CHECK_EQ(try_clone(CLONE_THREAD), -EINVAL);
  CHECK_EQ(try_clone(CLONE_SIGHAND), -EINVAL);
  CHECK_EQ(try_clone(CLONE_THREAD | CLONE_SIGHAND), -EINVAL);
  CHECK_EQ(try_clone(CLONE_FS | CLONE_NEWNS), -EINVAL);
}

CASE(clone_refuses_a_thread_pointer_outside_of_the_program) {
  char* stack = static_cast<char*>(map_anonymous(kStack));
  for (unsigned long pointer : {0x8000000000000000ul, 0xffff800000000000ul, 0x7ffffffff000ul}) {
    CHECK_ERRNO(syscall(SYS_clone, kThreadFlags | CLONE_SETTLS, stack + kStack, 0, 0, pointer),
                EPERM);
    CHECK_ERRNO(syscall(SYS_clone, CLONE_SETTLS | SIGCHLD, 0, 0, 0, pointer), EPERM);
  }
  munmap(stack, kStack);
}

CASE(clone_by_whom_nobody_traces) {
  const long child = syscall(SYS_clone, CLONE_PTRACE | SIGCHLD, 0, 0, 0, 0);
  if (child == 0) _exit(7);
  REQUIRE(child > 0);
  CHECK(exited(status_of(static_cast<pid_t>(child)), 7));
}

CASE(clone3_makes_a_thread) {
  void* stack = map_anonymous(kStack);
  static Shared shared;
  for (int i = 0; i < 50; ++i) {
    shared = Shared();
    clone_args arguments = {};
    arguments.flags =
        kThreadFlags | CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID | CLONE_CHILD_SETTID;
    arguments.parent_tid = reinterpret_cast<uintptr_t>(&shared.parent_tid);
    arguments.child_tid = reinterpret_cast<uintptr_t>(&shared.child_tid);
    arguments.stack = reinterpret_cast<uintptr_t>(stack);
    arguments.stack_size = kStack;
    long tid = clone3_thread(&arguments, sizeof arguments, body, &shared);
    REQUIRE(tid > 0);
    REQUIRE(shared.parent_tid == tid);
    wait_until_zero(&shared.child_tid);
    REQUIRE(shared.thread == tid);
    REQUIRE(shared.process == getpid());
  }
  munmap(stack, kStack);
}

CASE(clone3_refuses_bad_arguments) {
  clone_args arguments = {};
  auto try_clone3 = [&](size_t size) {
    return raw(SYS_clone3, reinterpret_cast<long>(&arguments), static_cast<long>(size));
  };
  CHECK_EQ(try_clone3(8), -EINVAL);
  CHECK_EQ(try_clone3(100000), -E2BIG);
  arguments.exit_signal = 200;
  CHECK_EQ(try_clone3(sizeof arguments), -EINVAL);
  arguments = {};
  arguments.flags = CLONE_THREAD;
  CHECK_EQ(try_clone3(sizeof arguments), -EINVAL);
  arguments = {};
  arguments.flags = CLONE_VM | CLONE_SIGHAND | CLONE_THREAD;
  arguments.exit_signal = SIGCHLD;
  CHECK_EQ(try_clone3(sizeof arguments), -EINVAL);
  arguments = {};
  arguments.stack_size = kPage;
  CHECK_EQ(try_clone3(sizeof arguments), -EINVAL);  // a size without a stack
  CHECK_EQ(raw(SYS_clone3, 8, sizeof arguments), -EFAULT);
}

CASE(clone3_makes_a_process) {
  clone_args arguments = {};
  arguments.exit_signal = SIGCHLD;
  int descriptor = -1;
  arguments.flags = CLONE_PIDFD;
  arguments.pidfd = reinterpret_cast<uintptr_t>(&descriptor);
  long pid = raw(SYS_clone3, reinterpret_cast<long>(&arguments), sizeof arguments);
  REQUIRE(pid >= 0);
  if (pid == 0) _exit(31);
  CHECK(descriptor >= 0);
  pollfd poll_one = {descriptor, POLLIN, 0};
  CHECK_EQ(poll(&poll_one, 1, -1), 1);
  CHECK(exited(status_of(static_cast<pid_t>(pid)), 31));
  close(descriptor);
}

CASE(clone_with_its_own_stack_and_shared_memory_is_a_process) {
  void* stack = map_anonymous(kStack);
  static volatile int value;
  value = 0;
  int pid = clone(
      [](void*) {
        value = 9;
        return 32;
      },
      offset(stack, kStack), CLONE_VM | SIGCHLD, nullptr);
  REQUIRE(pid > 0);
  CHECK(exited(status_of(pid), 32));
  CHECK_EQ(value, 9);
  munmap(stack, kStack);
}

CASE(set_tid_address_moves_the_cleared_word) {
  static volatile int word;
  word = 77;
  static volatile int returned, id;
  std::thread([] {
    returned = static_cast<int>(syscall(SYS_set_tid_address, &word));
    id = gettid();
    // glibc waits for its own word at join; a raw exit with ours leaves it set, so end both ways.
    syscall(SYS_set_tid_address, &word);
  }).detach();
  wait_until_zero(&word);
  CHECK_EQ(word, 0);
  CHECK_EQ(returned, id);
}

CASE(thread_ids_are_numbers_of_the_same_kind) {
  static volatile pid_t id;
  std::thread([] { id = gettid(); }).join();
  CHECK(id > 0);
  CHECK(id != getpid());
  CHECK_EQ(gettid(), getpid());
  // The join returns a moment before the thread is gone.
  while (syscall(SYS_tgkill, getpid(), id, 0) == 0) sched_yield();
  CHECK_EQ(errno, ESRCH);
  CHECK_EQ(syscall(SYS_tgkill, getpid(), gettid(), 0), 0);
  CHECK_ERRNO(syscall(SYS_tgkill, getpid(), 0, 0), EINVAL);
  CHECK_ERRNO(syscall(SYS_tgkill, -1, gettid(), 0), EINVAL);
  CHECK_ERRNO(syscall(SYS_tgkill, getpid(), gettid(), 65), EINVAL);
  CHECK_EQ(syscall(SYS_tkill, gettid(), 0), 0);
}

CASE(tgkill_reaches_the_thread_it_names) {
  static volatile pid_t receiver, target;
  static std::atomic<bool> go;
  receiver = 0;
  target = 0;
  go = false;
  auto old = install(SIGUSR1, [](int) { receiver = gettid(); });
  std::thread thread([] {
    target = gettid();
    while (!go) sched_yield();
  });
  while (target == 0) sched_yield();
  CHECK_EQ(syscall(SYS_tgkill, getpid(), target, SIGUSR1), 0);
  while (receiver == 0) sched_yield();
  CHECK_EQ(receiver, target);
  receiver = 0;
  CHECK_EQ(syscall(SYS_tgkill, getpid(), gettid(), SIGUSR1), 0);
  CHECK_EQ(receiver, gettid());  // delivered before the call returns
  go = true;
  thread.join();
  sigaction(SIGUSR1, &old, nullptr);
}

CASE(robust_list_is_kept_per_thread) {
  void* head = nullptr;
  size_t length = 0;
  CHECK_EQ(syscall(SYS_get_robust_list, 0, &head, &length), 0);
  CHECK(head != nullptr);
  CHECK_EQ(length, sizeof(robust_list_head));
  CHECK_ERRNO(syscall(SYS_set_robust_list, head, 5), EINVAL);
  CHECK_ERRNO(syscall(SYS_get_robust_list, -1, &head, &length), ESRCH);
}

CASE(robust_list_words_are_marked_at_exit) {
  static struct {
    robust_list_head head;
    robust_list entry;
    volatile uint32_t word;
  } list;
  list.head.list.next = &list.entry;
  list.entry.next = &list.head.list;
  list.head.futex_offset = reinterpret_cast<char*>(const_cast<uint32_t*>(&list.word)) -
                           reinterpret_cast<char*>(&list.entry);
  list.head.list_op_pending = nullptr;
  std::thread([] {
    list.word = static_cast<uint32_t>(gettid());
    REQUIRE(syscall(SYS_set_robust_list, &list.head, sizeof list.head) == 0);
  }).join();
  // The join may return a moment before: both happen in the exit, the robust list first.
  CHECK_EQ(list.word, FUTEX_OWNER_DIED);
}

CASE(threads_have_names_of_their_own) {
  char mine[16] = "";
  REQUIRE(prctl(PR_GET_NAME, mine) == 0);
  std::thread([] {
    CHECK_EQ(pthread_setname_np(pthread_self(), "worker 1"), 0);
    char name[16] = "";
    CHECK_EQ(prctl(PR_GET_NAME, name), 0);
    CHECK(strcmp(name, "worker 1") == 0);
    CHECK_EQ(pthread_setname_np(pthread_self(), "a name that is too long"), ERANGE);
    CHECK_EQ(prctl(PR_SET_NAME, "a name that is too long"), 0);
    CHECK_EQ(prctl(PR_GET_NAME, name), 0);
    CHECK(strcmp(name, "a name that is ") == 0);
  }).join();
  char after[16] = "";
  REQUIRE(prctl(PR_GET_NAME, after) == 0);
  CHECK(strcmp(mine, after) == 0);
}

CASE(fs_base_belongs_to_the_thread) {
  unsigned long base = 0;
  CHECK_EQ(syscall(SYS_arch_prctl, 0x1003 /* ARCH_GET_FS */, &base), 0);
  CHECK_EQ(base, reinterpret_cast<unsigned long>(pthread_self()));
  std::thread([main_base = base] {
    unsigned long mine = 0;
    CHECK_EQ(syscall(SYS_arch_prctl, 0x1003, &mine), 0);
    CHECK_EQ(mine, reinterpret_cast<unsigned long>(pthread_self()));
    CHECK(mine != main_base);
  }).join();
  static unsigned long block[4] = {0x1234, 0x5678, 0, 0};
  CHECK_EQ(syscall(SYS_arch_prctl, 0x1001 /* ARCH_SET_GS */, block), 0);
  unsigned long word = 0, gs = 0;
  for (int i = 0; i < 100; ++i) {
    asm volatile("movq %%gs:8, %0" : "=r"(word));
    REQUIRE(word == 0x5678);
    if (i % 10 == 0) sched_yield();
  }
  CHECK_EQ(syscall(SYS_arch_prctl, 0x1004 /* ARCH_GET_GS */, &gs), 0);
  CHECK_EQ(gs, reinterpret_cast<unsigned long>(block));
  CHECK_ERRNO(syscall(SYS_arch_prctl, 0x1001, uintptr_t{1} << 62), EPERM);
  CHECK_ERRNO(syscall(SYS_arch_prctl, 0x99999, 0), EINVAL);
  if (syscall(SYS_arch_prctl, 0x1012 /* ARCH_SET_CPUID */, 1) != 0) CHECK_EQ(errno, ENODEV);
  CHECK_EQ(syscall(SYS_arch_prctl, 0x1001, 0), 0);
}

CASE(unmapping_is_seen_by_other_threads) {
  static void* at;
  static std::atomic<int> step;
  step = 0;
  at = map_anonymous(16 * kPage);
  memset(at, 3, 16 * kPage);
  std::thread thread([] {
    CHECK_EQ(*bytes(at, kPage), 3);  // its TLB knows the page
    step = 1;
    while (step != 2) sched_yield();
    CHECK(!readable(offset(at, kPage)));
    CHECK(readable(at));
    CHECK(!writable(offset(at, 2 * kPage)));
    step = 3;
    while (step != 4) sched_yield();
    CHECK_EQ(*bytes(at, kPage), 0);
    CHECK(writable(offset(at, 2 * kPage)));
  });
  while (step != 1) sched_yield();
  munmap(offset(at, kPage), kPage);
  mprotect(offset(at, 2 * kPage), kPage, PROT_READ);
  step = 2;
  while (step != 3) sched_yield();
  mmap(offset(at, kPage), kPage, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
  mprotect(offset(at, 2 * kPage), kPage, PROT_READ | PROT_WRITE);
  step = 4;
  thread.join();
  munmap(at, 16 * kPage);
}

CASE(two_threads_fault_on_the_same_fresh_pages) {
  for (int round = 0; round < 20; ++round) {
    static void* at;
    static std::atomic<int> ready;
    ready = 0;
    at = map_aligned(kLarge);
    auto touch = [](size_t from) {
      ++ready;
      while (ready != 2) {
      }
      for (size_t i = from; i < 512; i += 8)
        bytes(at, i * kPage)[from] = static_cast<unsigned char>(from + 1);
      for (size_t i = (from + 1) % 2; i < 512; i += 8) bytes(at, i * kPage)[100 + from] = 7;
    };
    std::thread other(touch, 1);
    touch(0);
    other.join();
    for (size_t i = 0; i < 512; ++i) {
      REQUIRE(*bytes(at, i * kPage) == (i % 8 == 0 ? 1 : 0));
      REQUIRE(bytes(at, i * kPage)[1] == (i % 8 == 1 ? 2 : 0));
      REQUIRE(bytes(at, i * kPage)[100] == (i % 8 == 1 ? 7 : 0));
      REQUIRE(bytes(at, i * kPage)[101] == (i % 8 == 0 ? 7 : 0));
    }
    munmap(at, kLarge);
  }
}

CASE(atomic_counters_over_all_pages) {
  const size_t pages = 64;
  static std::atomic<uint64_t>* counters[pages];
  void* at = map_anonymous(pages * kPage);
  for (size_t i = 0; i < pages; ++i)
    counters[i] = reinterpret_cast<std::atomic<uint64_t>*>(offset(at, i * kPage));
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([] {
      for (int round = 0; round < 50; ++round) {
        for (auto* counter : counters) counter->fetch_add(1);
      }
    });
  }
  for (auto& thread : threads) thread.join();
  for (auto* counter : counters) CHECK_EQ(counter->load(), 200);
  munmap(at, pages * kPage);
}

CHECK_MAIN
