// Faults that nobody handles end the process, and a parent that waits sees which signal did it.
#include <pthread.h>
#include <sys/resource.h>

#include "support.h"

namespace {
template <typename Action>
int death_of(Action action) {
  return run_child([&] {
    rlimit none = {0, 0};
    setrlimit(RLIMIT_CORE, &none);
    for (int signal : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT})
      ::signal(signal, SIG_DFL);
    action();
  });
}
volatile int zero = 0;
[[gnu::noinline]] int overflow(int depth) {
  volatile char frame[4000];
  frame[depth % 4000] = 1;
  if (depth == -1) return 0;
  return overflow(depth + 1) + frame[depth % 4000];
}
}  // namespace

CASE(write_to_null) {
  CHECK(killed(death_of([] { *bytes(nullptr) = 1; }), SIGSEGV));
}
CASE(write_to_read_only_memory) {
  void* at = map_anonymous(kPage, PROT_READ);
  CHECK(killed(death_of([=] { *bytes(at) = 1; }), SIGSEGV));
  munmap(at, kPage);
}
CASE(jump_to_data) {
  void* at = map_anonymous(kPage);
  CHECK(killed(death_of([=] { reinterpret_cast<void (*)()>(at)(); }), SIGSEGV));
  munmap(at, kPage);
}
CASE(non_canonical_address) {
  void* at = reinterpret_cast<void*>(uintptr_t{1} << 62);
  CHECK(killed(death_of([=] { *bytes(at) = 1; }), SIGSEGV));
}
CASE(stack_overflow) {
  rlimit limit = {};
  REQUIRE(getrlimit(RLIMIT_STACK, &limit) == 0);
  if (limit.rlim_cur > 64 * kMiB) SKIP("no stack limit");
  CHECK(killed(death_of([] { zero = overflow(0); }), SIGSEGV));
}
CASE(stack_pointer_ruined) {
  CHECK(killed(death_of([] {
                 asm volatile("movq $8, %%rsp\n\tpushq %%rax" : : : "memory");
               }),
               SIGSEGV));
}
CASE(stack_pointer_non_canonical) {
  // A push through it is a stack fault, hence SIGBUS; QEMU makes a general protection fault of it.
  int status = death_of([] {
    asm volatile("movq %0, %%rsp\n\tpushq %%rax" : : "r"(uintptr_t{1} << 62) : "memory");
  });
  CHECK(WIFSIGNALED(status));
  CHECK(WTERMSIG(status) == SIGBUS || WTERMSIG(status) == SIGSEGV);
  check::print("ended by %s\n", sigabbrev_np(WTERMSIG(status)));
}
CASE(integer_division_by_zero) {
  CHECK(killed(death_of([] { zero = 100 / zero; }), SIGFPE));
}
CASE(undefined_instruction) {
  CHECK(killed(death_of([] { asm volatile("ud2"); }), SIGILL));
}
CASE(breakpoint) {
  CHECK(killed(death_of([] { asm volatile("int3"); }), SIGTRAP));
}
CASE(beyond_the_end_of_a_file) {
  int file = memfd_create("empty", MFD_CLOEXEC);
  void* at = mmap(nullptr, kPage, PROT_READ, MAP_SHARED, file, 0);
  REQUIRE(at != MAP_FAILED);
  CHECK(killed(death_of([=] { static_cast<void>(*bytes(at)); }), SIGBUS));
  munmap(at, kPage);
  close(file);
}
CASE(abort_and_failed_trap) {
  CHECK(killed(death_of([] { abort(); }), SIGABRT));
  CHECK(killed(death_of([] { __builtin_trap(); }), SIGILL));
}

CASE(blocked_or_ignored_fault_still_kills) {
  CHECK(killed(death_of([] {
                 sigset_t set = set_of(SIGSEGV);
                 sigprocmask(SIG_BLOCK, &set, nullptr);
                 install(SIGSEGV, [](int) { _exit(3); });
                 *bytes(nullptr) = 1;
               }),
               SIGSEGV));
  CHECK(killed(death_of([] {
                 signal(SIGSEGV, SIG_IGN);
                 *bytes(nullptr) = 1;
               }),
               SIGSEGV));
}

CASE(second_fault_in_the_handler_kills) {
  CHECK(killed(death_of([] {
                 install(SIGSEGV, [](int) { *bytes(nullptr) = 2; });
                 *bytes(nullptr) = 1;
               }),
               SIGSEGV));
}

CASE(handler_that_repairs_nothing_until_reset_kills) {
  CHECK(killed(death_of([] {
                 install(
                     SIGSEGV, [](int) { check::print("handler ran once\n"); },
                     static_cast<int>(SA_RESETHAND));
                 *bytes(nullptr) = 1;
               }),
               SIGSEGV));
}

// As crash handlers do when their report is written, so that the system's own follows.
CASE(fault_that_is_queued_again_kills) {
  CHECK(killed(death_of([] {
                 siginfo_t info = {};
                 info.si_signo = SIGSEGV;
                 info.si_code = SEGV_MAPERR;
                 syscall(SYS_rt_tgsigqueueinfo, getpid(), gettid(), SIGSEGV, &info);
               }),
               SIGSEGV));
}

CASE(fault_that_is_queued_runs_the_handler) {
  static volatile int code = 0;
  CHECK(exited(run_child([] {
    struct sigaction action = {};
    action.sa_flags = SA_SIGINFO;
    action.sa_sigaction = [](int, siginfo_t* info, void*) { code = info->si_code; };
    CHECK_EQ(sigaction(SIGBUS, &action, nullptr), 0);
    siginfo_t info = {};
    info.si_signo = SIGBUS;
    info.si_code = BUS_MCEERR_AO;
    CHECK_EQ(syscall(SYS_rt_tgsigqueueinfo, getpid(), gettid(), SIGBUS, &info), 0);
    CHECK_EQ(code, BUS_MCEERR_AO);
  })));
}

CASE(no_stack_for_the_handler_kills) {
  CHECK(killed(death_of([] {
                 install(SIGUSR1, [](int) { _exit(3); });
                 pid_t me = getpid();
                 asm volatile("movq $8, %%rsp\n\tsyscall"
                              :
                              : "a"(SYS_kill), "D"(me), "S"(SIGUSR1)
                              : "rcx", "r11", "memory");
               }),
               SIGSEGV));
}

CASE(fault_in_a_thread_ends_the_process) {
  CHECK(killed(death_of([] {
                 pthread_t thread;
                 auto body = [](void*) -> void* {
                   *bytes(nullptr) = 1;
                   return nullptr;
                 };
                 REQUIRE(pthread_create(&thread, nullptr, body, nullptr) == 0);
                 pthread_join(thread, nullptr);
               }),
               SIGSEGV));
}

CASE(parent_goes_on_and_its_memory_is_its_own) {
  static int value = 1;
  for (int i = 0; i < 20; ++i) {
    CHECK(killed(death_of([] {
                   value = 2;
                   *bytes(nullptr) = 1;
                 }),
                 SIGSEGV));
  }
  CHECK_EQ(value, 1);
}

CASE(wait_reports_the_death_in_full) {
  pid_t child = start_child([] {
    rlimit none = {0, 0};
    setrlimit(RLIMIT_CORE, &none);
    signal(SIGSEGV, SIG_DFL);
    *bytes(nullptr) = 1;
  });
  siginfo_t info = {};
  REQUIRE(waitid(P_PID, static_cast<id_t>(child), &info, WEXITED | WNOWAIT) == 0);
  CHECK_EQ(info.si_signo, SIGCHLD);
  CHECK_EQ(info.si_pid, child);
  CHECK_EQ(info.si_status, SIGSEGV);
  CHECK(info.si_code == CLD_KILLED || info.si_code == CLD_DUMPED);
  CHECK(killed(status_of(child), SIGSEGV));
}

CHECK_MAIN
