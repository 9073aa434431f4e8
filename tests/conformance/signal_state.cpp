// What a handler may not disturb and what it may change: general, SSE, AVX and x87 registers,
// flags, the red zone; registers changed in the context; storms of signals over computing code.
#include <fenv.h>
#include <pthread.h>
#include <semaphore.h>
#include <sys/time.h>
#include <ucontext.h>

#include <thread>

#include "support.h"

namespace {

std::atomic<int> handled{0};
volatile double sink = 0;

// The next SIGALRM, in 300 us of real time. No signal by itself after the other: where a handler
// takes as long as that, nothing but handlers would run.
void ask_for_signal() {
  const itimerval soon = {{0, 0}, {0, 300}};
  REQUIRE(setitimer(ITIMER_REAL, &soon, nullptr) == 0);
}

// SIGALRMs, from construction to destruction.
struct Storm {
  struct sigaction old;
  explicit Storm(void (*handler)(int, siginfo_t*, void*), int flags = 0)
      : old(install(SIGALRM, handler, flags)) {
    handled = 0;
    ask_for_signal();
  }
  Storm(const Storm&) = delete;
  Storm& operator=(const Storm&) = delete;
  ~Storm() {
    itimerval off = {};
    setitimer(ITIMER_REAL, &off, nullptr);
    sigaction(SIGALRM, &old, nullptr);
  }
};

[[gnu::target("avx2")]] void clobber_avx() {
  asm volatile(
      "vpcmpeqd %%ymm0, %%ymm0, %%ymm0\n\tvmovdqa %%ymm0, %%ymm1\n\tvmovdqa %%ymm0, "
      "%%ymm2\n\tvmovdqa %%ymm0, %%ymm7\n\t"
      "vmovdqa %%ymm0, %%ymm8\n\tvmovdqa %%ymm0, %%ymm15\n\tvzeroupper"
      :
      :
      : "xmm0", "xmm1", "xmm2", "xmm7", "xmm8", "xmm15");
}
bool has_avx2() {
  return __builtin_cpu_supports("avx2") != 0;
}

void clobber_sse_and_x87() {
  asm volatile(
      "pcmpeqd %%xmm0, %%xmm0\n\tmovdqa %%xmm0, %%xmm3\n\tmovdqa %%xmm0, %%xmm9\n\tmovdqa %%xmm0, "
      "%%xmm15\n\t"
      "fninit\n\tfld1\n\tfldpi\n\tfldl2e\n\tfninit"
      :
      :
      : "xmm0", "xmm3", "xmm9", "xmm15");
  uint32_t odd_mxcsr = 0x7f80;
  uint16_t odd_control = 0x007f;
  asm volatile("ldmxcsr %0\n\tfldcw %1" : : "m"(odd_mxcsr), "m"(odd_control));
}
void clobbering_handler(int, siginfo_t*, void*) {
  ++handled;
  clobber_sse_and_x87();
  if (has_avx2()) clobber_avx();
}

uint32_t mxcsr() {
  uint32_t value;
  asm volatile("stmxcsr %0" : "=m"(value));
  return value;
}
uint16_t control_word() {
  uint16_t value;
  asm volatile("fnstcw %0" : "=m"(value));
  return value;
}

// Goes on until so many handlers ran, at least `rounds` times.
template <typename Round>
void compute_under_storm(int rounds, int handlers, Round round) {
  int seen = 0;
  for (int i = 0; i < rounds || handled.load() < handlers; ++i) {
    if (handled.load() != seen) {
      seen = handled.load();
      ask_for_signal();
    }
    round(i);
  }
}

}  // namespace

CASE(sse_and_x87_registers_survive) {
  Storm storm(clobbering_handler);
  compute_under_storm(2000, 10, [](int i) {
    double a = i, b = 2;
    long double c = 3;
    for (int j = 0; j < 20; ++j) {
      a = a * 1.5 + b;
      a /= 1.5;
      c += static_cast<long double>(j);
    }
    double again = i;
    for (int j = 0; j < 20; ++j) {
      again = again * 1.5 + b;
      again /= 1.5;
    }
    REQUIRE(a == again);
    REQUIRE(c == 3 + 190);
  });
}

CASE(all_xmm_registers_survive_a_synchronous_handler) {
  auto old = install(SIGUSR1, clobbering_handler);
  alignas(16) static uint64_t in[32], out[32];
  for (uint64_t i = 0; i < 32; ++i) in[i] = mix(1, i);
  // The signal is raised between the loads and the stores.
  asm volatile(
      "movdqa 0(%0), %%xmm0\n\tmovdqa 16(%0), %%xmm1\n\tmovdqa 48(%0), %%xmm3\n\tmovdqa 144(%0), "
      "%%xmm9\n\t"
      "movdqa 240(%0), %%xmm15\n\t"
      "movl %2, %%eax\n\tsyscall\n\t"
      "movdqa %%xmm0, 0(%1)\n\tmovdqa %%xmm1, 16(%1)\n\tmovdqa %%xmm3, 48(%1)\n\tmovdqa %%xmm9, "
      "144(%1)\n\t"
      "movdqa %%xmm15, 240(%1)"
      :
      : "r"(in), "r"(out), "i"(SYS_tkill), "D"(gettid()), "S"(SIGUSR1)
      : "rax", "rcx", "r11", "memory", "xmm0", "xmm1", "xmm3", "xmm9", "xmm15");
  for (int i : {0, 1, 2, 3, 6, 7, 18, 19, 30, 31}) CHECK_EQ(in[i], out[i]);
  sigaction(SIGUSR1, &old, nullptr);
}

CASE(ymm_registers_survive) {
  if (!has_avx2()) SKIP("no AVX2");
  Storm storm(clobbering_handler);
  alignas(32) static uint64_t in[16], out[16];
  compute_under_storm(2000, 10, [](int i) {
    for (uint64_t j = 0; j < 16; ++j) in[j] = mix(static_cast<uint64_t>(i), j);
    asm volatile(
        "vmovdqa 0(%0), %%ymm1\n\tvmovdqa 32(%0), %%ymm7\n\tvmovdqa 64(%0), %%ymm8\n\tvmovdqa "
        "96(%0), %%ymm15\n\t"
        "movl $300, %%ecx\n1:\tdecl %%ecx\n\tjnz 1b\n\t"
        "vmovdqa %%ymm1, 0(%1)\n\tvmovdqa %%ymm7, 32(%1)\n\tvmovdqa %%ymm8, 64(%1)\n\tvmovdqa "
        "%%ymm15, 96(%1)\n\tvzeroupper"
        :
        : "r"(in), "r"(out)
        : "ecx", "cc", "memory", "xmm1", "xmm7", "xmm8", "xmm15");
    REQUIRE(memcmp(in, out, sizeof in) == 0);
  });
}

CASE(control_words_survive) {
  auto old = install(SIGUSR1, clobbering_handler);
  uint32_t odd = 0x1f80 | 0x6000;  // round towards zero
  uint16_t control = 0x0f7f;
  asm volatile("ldmxcsr %0\n\tfldcw %1" : : "m"(odd), "m"(control));
  raise(SIGUSR1);
  uint32_t after = mxcsr();
  uint16_t control_after = control_word();
  CHECK_EQ(after & ~0x3fu, odd);
  CHECK_EQ(control_after, control);
  uint32_t usual = 0x1f80;
  asm volatile("ldmxcsr %0\n\tfninit" : : "m"(usual));
  sigaction(SIGUSR1, &old, nullptr);
}

CASE(handler_starts_with_usual_control_words) {
  static uint32_t seen;
  static uint16_t seen_control;
  static int seen_round;
  auto old = install(SIGUSR1, [](int) {
    seen = mxcsr();
    seen_control = control_word();
    seen_round = fegetround();
  });
  fesetround(FE_TOWARDZERO);
  raise(SIGUSR1);
  int after = fegetround();
  fesetround(FE_TONEAREST);
  check::print("in the handler: mxcsr %#x, control word %#x, rounding %#x\n", seen, seen_control,
               static_cast<unsigned>(seen_round));
  CHECK_EQ(after, FE_TOWARDZERO);
  sigaction(SIGUSR1, &old, nullptr);
}

CASE(direction_flag_is_clear_in_a_handler_and_restored) {
  static volatile uint64_t inside;
  auto old = install(SIGUSR1, [](int) { inside = __builtin_ia32_readeflags_u64(); });
  uint64_t after = 0;
  asm volatile("std\n\tmovl %1, %%eax\n\tsyscall\n\tpushfq\n\tpopq %0\n\tcld"
               : "=r"(after)
               : "i"(SYS_tkill), "D"(gettid()), "S"(SIGUSR1)
               : "rax", "rcx", "r11", "memory", "cc");
  CHECK_EQ(inside & 0x400, 0);
  CHECK_EQ(after & 0x400, 0x400);
  sigaction(SIGUSR1, &old, nullptr);
}

CASE(general_registers_survive_a_storm) {
  Storm storm([](int, siginfo_t*, void*) {
    ++handled;
    asm volatile("xorl %%ebx, %%ebx\n\txorl %%r12d, %%r12d\n\txorl %%r15d, %%r15d"
                 :
                 :
                 : "rbx", "r12", "r15");
  });
  compute_under_storm(2000, 10, [](int i) {
    uint64_t seed = mix(7, static_cast<uint64_t>(i)), sum = 0, expected = 0;
    asm volatile(
        "movq %1, %%rax\n\tleaq 1(%1), %%rbx\n\tleaq 2(%1), %%rcx\n\tleaq 3(%1), %%rdx\n\tleaq "
        "4(%1), %%r8\n\t"
        "leaq 5(%1), %%r9\n\tleaq 6(%1), %%r10\n\tleaq 7(%1), %%r11\n\tleaq 8(%1), %%r12\n\tleaq "
        "9(%1), %%r13\n\t"
        "leaq 10(%1), %%r14\n\tleaq 11(%1), %%r15\n\t"
        "movl $200, %%esi\n1:\tdecl %%esi\n\tjnz 1b\n\t"
        "addq %%rbx, %%rax\n\taddq %%rcx, %%rax\n\taddq %%rdx, %%rax\n\taddq %%r8, %%rax\n\taddq "
        "%%r9, %%rax\n\t"
        "addq %%r10, %%rax\n\taddq %%r11, %%rax\n\taddq %%r12, %%rax\n\taddq %%r13, %%rax\n\taddq "
        "%%r14, %%rax\n\t"
        "addq %%r15, %%rax\n\tmovq %%rax, %0"
        : "=D"(sum)
        : "D"(seed)
        : "rax", "rbx", "rcx", "rdx", "rsi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
          "cc");
    expected = 12 * seed + 66;
    REQUIRE(sum == expected);
  });
}

CASE(red_zone_survives_a_storm) {
  Storm storm([](int, siginfo_t*, void*) {
    ++handled;
    volatile unsigned char frame[2000];
    for (volatile unsigned char& one : frame) one = 0xee;
  });
  compute_under_storm(2000, 20, [](int i) {
    uint64_t value = mix(8, static_cast<uint64_t>(i)), back = 0;
    // Nothing may be written below the stack pointer for 128 bytes.
    asm volatile(
        "movq %1, -8(%%rsp)\n\tmovq %1, -64(%%rsp)\n\tmovq %1, -128(%%rsp)\n\t"
        "movl $200, %%ecx\n1:\tdecl %%ecx\n\tjnz 1b\n\t"
        "movq -8(%%rsp), %0\n\taddq -64(%%rsp), %0\n\taddq -128(%%rsp), %0"
        : "=&r"(back)
        : "r"(value)
        : "rcx", "cc", "memory");
    REQUIRE(back == 3 * value);
  });
}

CASE(stack_below_the_red_zone_is_aligned_for_handlers) {
  static std::atomic<int> misaligned;
  misaligned = 0;
  Storm storm([](int, siginfo_t*, void*) {
    ++handled;
    alignas(16) volatile char aligned[16];
    aligned[0] = 1;
    if (reinterpret_cast<uintptr_t>(&aligned) % 16 != 0) ++misaligned;
    asm volatile("movaps %%xmm0, %0" : : "m"(*const_cast<char(*)[16]>(&aligned)));
  });
  compute_under_storm(1000, 10, [](int i) {
    // Any odd stack pointer is allowed when a signal comes.
    asm volatile(
        "movq %%rsp, %%rbx\n\tsubq %0, %%rsp\n\tmovl $100, %%ecx\n1:\tdecl %%ecx\n\tjnz 1b\n\tmovq "
        "%%rbx, %%rsp"
        :
        : "r"(static_cast<uint64_t>(256 + i % 64))
        : "rbx", "rcx", "cc", "memory");
  });
  CHECK_EQ(misaligned.load(), 0);
}

CASE(flags_survive_a_storm) {
  Storm storm([](int, siginfo_t*, void*) {
    ++handled;
    asm volatile("xorl %%eax, %%eax\n\tclc" : : : "rax", "cc");
  });
  compute_under_storm(2000, 10, [](int) {
    unsigned char carry = 0, zero = 1;
    asm volatile(
        "movl $200, %%ecx\n\tstc\n1:\tnop\n\tnop\n\tdecl %%ecx\n\tjnz 1b\n\t"  // dec leaves the
                                                                               // carry alone
        "setc %0\n\tmovl $1, %%eax\n\torl %%eax, %%eax\n\tnop\n\tnop\n\tnop\n\tsetz %1"
        : "=r"(carry), "=r"(zero)
        :
        : "rax", "rcx", "cc");
    REQUIRE(carry == 1 && zero == 0);
  });
}

CASE(recursion_under_a_storm_gives_the_right_result) {
  struct Compute {
    [[gnu::noinline]] static int fibonacci(int n) {
      return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2);
    }
  };
  Storm storm([](int, siginfo_t*, void*) { ++handled; });
  compute_under_storm(3, 10, [](int) { REQUIRE(Compute::fibonacci(20) == 6765); });
}

CASE(malloc_free_and_system_calls_under_a_storm) {
  Storm storm([](int, siginfo_t*, void*) { ++handled; }, SA_RESTART);
  compute_under_storm(300, 10, [](int i) {
    size_t size = mix(9, static_cast<uint64_t>(i)) % 300000 + 1;
    auto* block = static_cast<unsigned char*>(malloc(size));
    memset(block, i, size);
    REQUIRE(block[size - 1] == static_cast<unsigned char>(i));
    free(block);
    void* at = map_anonymous(4 * kPage);
    *bytes(at, 3 * kPage) = 1;
    REQUIRE(mprotect(at, kPage, PROT_READ) == 0);
    REQUIRE(munmap(at, 4 * kPage) == 0);
    REQUIRE(getppid() > 0);
  });
}

CASE(fork_and_wait_under_a_storm) {
  Storm storm([](int, siginfo_t*, void*) { ++handled; }, SA_RESTART);
  compute_under_storm(5, 5,
                      [](int i) { REQUIRE(exited(run_child([i] { _exit(i % 100); }), i % 100)); });
}

CASE(changed_instruction_pointer_skips_an_instruction) {
  auto old = install(SIGILL, [](int, siginfo_t*, void* context) {
    static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_RIP] += 2;  // ud2 has two bytes
    ++handled;
  });
  handled = 0;
  int value = 1;
  for (int i = 0; i < 100; ++i) asm volatile("ud2\n\taddl $1, %0" : "+r"(value) : : "cc");
  CHECK_EQ(handled.load(), 100);
  CHECK_EQ(value, 101);
  sigaction(SIGILL, &old, nullptr);
}

CASE(changed_registers_take_effect) {
  auto old = install(SIGUSR1, [](int, siginfo_t*, void* context) {
    greg_t* registers = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
    registers[REG_RBX] = 0x1234567890;
    registers[REG_R13] = -5;
    registers[REG_RAX] = 77;  // over the system call's result
  });
  long rbx = 0, r13 = 0, rax = SYS_tkill;
  asm volatile("syscall\n\tmovq %%rbx, %1\n\tmovq %%r13, %2"
               : "+a"(rax), "=&r"(rbx), "=&r"(r13)
               : "D"(gettid()), "S"(SIGUSR1)
               : "rbx", "r13", "rcx", "r11", "memory");
  CHECK_EQ(rbx, 0x1234567890);
  CHECK_EQ(r13, -5);
  CHECK_EQ(rax, 77);
  sigaction(SIGUSR1, &old, nullptr);
}

CASE(changed_xmm_register_takes_effect) {
  auto old = install(SIGUSR1, [](int, siginfo_t*, void* context) {
    auto* state = static_cast<ucontext_t*>(context)->uc_mcontext.fpregs;
    REQUIRE(state != nullptr);
    CHECK_EQ(state->_xmm[5].element[0], 0x11111111u);
    state->_xmm[5].element[0] = 0x22222222;
  });
  uint32_t value = 0x11111111;
  asm volatile("movd %0, %%xmm5\n\tmovl %1, %%eax\n\tsyscall\n\tmovd %%xmm5, %0"
               : "+r"(value)
               : "i"(SYS_tkill), "D"(gettid()), "S"(SIGUSR1)
               : "rax", "rcx", "r11", "memory", "xmm5");
  CHECK_EQ(value, 0x22222222);
  sigaction(SIGUSR1, &old, nullptr);
}

CASE(context_tells_stack_and_code) {
  static uintptr_t stack_pointer, instruction;
  auto old = install(SIGUSR1, [](int, siginfo_t*, void* context) {
    greg_t* registers = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
    stack_pointer = static_cast<uintptr_t>(registers[REG_RSP]);
    instruction = static_cast<uintptr_t>(registers[REG_RIP]);
  });
  uintptr_t expected_stack = 0, expected_instruction = 0;
  asm volatile("movq %%rsp, %0\n\tmovl %2, %%eax\n\tsyscall\n1:\tleaq 1b(%%rip), %1"
               : "=&r"(expected_stack), "=&r"(expected_instruction)
               : "i"(SYS_tkill), "D"(gettid()), "S"(SIGUSR1)
               : "rax", "rcx", "r11", "memory");
  CHECK_EQ(stack_pointer, expected_stack);
  CHECK_EQ(instruction, expected_instruction);
  sigaction(SIGUSR1, &old, nullptr);
}

CASE(signals_reach_the_computing_thread_they_name) {
  static std::atomic<int> hits[3];
  static thread_local int index = -1;
  static sem_t arrived;
  REQUIRE(sem_init(&arrived, 0, 0) == 0);
  auto old = install(SIGUSR1, [](int) {
    ++hits[index];
    sem_post(&arrived);
  });
  std::atomic<bool> stop{false};
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 3; ++t) {
    hits[t] = 0;
    threads.emplace_back([&, t] {
      index = t;
      sem_post(&arrived);
      while (!stop) {
        double x = t, y = t;
        for (int j = 0; j < 100; ++j) x = x * 1.25 + 1;
        for (int j = 0; j < 100; ++j) y = y * 1.25 + 1;
        if (x != y) ++wrong;
        sink = x;
      }
    });
    REQUIRE(sem_wait(&arrived) == 0);
  }
  for (int round = 1; round <= 10; ++round) {
    for (int t = 0; t < 3; ++t) {
      REQUIRE(pthread_kill(threads[static_cast<size_t>(t)].native_handle(), SIGUSR1) == 0);
      REQUIRE(sem_wait(&arrived) == 0);
      REQUIRE(hits[t].load() == round);
    }
  }
  stop = true;
  for (auto& thread : threads) thread.join();
  CHECK_EQ(wrong.load(), 0);
  sem_destroy(&arrived);
  sigaction(SIGUSR1, &old, nullptr);
}

CHECK_MAIN
