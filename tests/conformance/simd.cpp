// Vector registers across everything that switches: many threads computing with SSE and AVX at
// once, signals, system calls, page faults and forks in the middle; results against a scalar
// computation.
#include <immintrin.h>
#include <sched.h>
#include <sys/time.h>

#include <thread>

#include "support.h"

namespace {

constexpr size_t kWords = 1024;
alignas(64) uint32_t input[kWords];

uint32_t scalar_sum(uint32_t seed, int rounds) {
  uint32_t sum = 0;
  for (int round = 0; round < rounds; ++round) {
    for (size_t i = 0; i < kWords; ++i)
      sum += (input[i] ^ seed) * 2654435761u + static_cast<uint32_t>(round);
  }
  return sum;
}
// `pause` is called in the middle, while sums live in vector registers around it or are spilled by
// it.
template <typename Between>
uint32_t sse_sum(uint32_t seed, int rounds, Between between) {
  __m128i sum = _mm_setzero_si128(), key = _mm_set1_epi32(static_cast<int>(seed));
  for (int round = 0; round < rounds; ++round) {
    __m128i add = _mm_set1_epi32(round);
    for (size_t i = 0; i < kWords; i += 4) {
      __m128i x = _mm_xor_si128(_mm_load_si128(reinterpret_cast<const __m128i*>(input + i)), key);
      // A 32-bit multiplication out of SSE2's two 64-bit ones.
      __m128i factor = _mm_set1_epi32(static_cast<int>(2654435761u));
      __m128i even = _mm_mul_epu32(x, factor), odd = _mm_mul_epu32(_mm_srli_si128(x, 4), factor);
      __m128i product = _mm_unpacklo_epi32(_mm_shuffle_epi32(even, 8), _mm_shuffle_epi32(odd, 8));
      sum = _mm_add_epi32(sum, _mm_add_epi32(product, add));
    }
    between(round);
  }
  alignas(16) uint32_t lanes[4];
  _mm_store_si128(reinterpret_cast<__m128i*>(lanes), sum);
  return lanes[0] + lanes[1] + lanes[2] + lanes[3];
}
[[gnu::target("avx2")]] uint32_t avx2_sum(uint32_t seed, int rounds, void (*between)(int)) {
  __m256i sum = _mm256_setzero_si256(), key = _mm256_set1_epi32(static_cast<int>(seed));
  __m256i factor = _mm256_set1_epi32(static_cast<int>(2654435761u));
  for (int round = 0; round < rounds; ++round) {
    __m256i add = _mm256_set1_epi32(round);
    for (size_t i = 0; i < kWords; i += 8) {
      __m256i x =
          _mm256_xor_si256(_mm256_load_si256(reinterpret_cast<const __m256i*>(input + i)), key);
      sum = _mm256_add_epi32(sum, _mm256_add_epi32(_mm256_mullo_epi32(x, factor), add));
    }
    between(round);
  }
  alignas(32) uint32_t lanes[8];
  _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), sum);
  uint32_t all = 0;
  for (uint32_t lane : lanes) all += lane;
  return all;
}
bool has_avx2() {
  return __builtin_cpu_supports("avx2") != 0;
}
bool has_avx512() {
  return __builtin_cpu_supports("avx512f") != 0;
}
uint32_t sum_of(uint32_t seed, int rounds, void (*between)(int)) {
  return has_avx2() ? avx2_sum(seed, rounds, between) : sse_sum(seed, rounds, between);
}
void nothing(int) {}

void prepare() {
  for (size_t i = 0; i < kWords; ++i) input[i] = static_cast<uint32_t>(mix(1, i));
}

// All 16 ymm registers loaded, something done, all stored.
#define LOAD_YMM                                                                                  \
  "vmovdqa 0(%[in]), %%ymm0\n\tvmovdqa 32(%[in]), %%ymm1\n\tvmovdqa 64(%[in]), %%ymm2\n\t"        \
  "vmovdqa 96(%[in]), %%ymm3\n\tvmovdqa 128(%[in]), %%ymm4\n\tvmovdqa 160(%[in]), %%ymm5\n\t"     \
  "vmovdqa 192(%[in]), %%ymm6\n\tvmovdqa 224(%[in]), %%ymm7\n\tvmovdqa 256(%[in]), %%ymm8\n\t"    \
  "vmovdqa 288(%[in]), %%ymm9\n\tvmovdqa 320(%[in]), %%ymm10\n\tvmovdqa 352(%[in]), %%ymm11\n\t"  \
  "vmovdqa 384(%[in]), %%ymm12\n\tvmovdqa 416(%[in]), %%ymm13\n\tvmovdqa 448(%[in]), %%ymm14\n\t" \
  "vmovdqa 480(%[in]), %%ymm15\n\t"
#define STORE_YMM                                                                                 \
  "vmovdqa %%ymm0, 0(%[out])\n\tvmovdqa %%ymm1, 32(%[out])\n\tvmovdqa %%ymm2, 64(%[out])\n\t"     \
  "vmovdqa %%ymm3, 96(%[out])\n\tvmovdqa %%ymm4, 128(%[out])\n\tvmovdqa %%ymm5, 160(%[out])\n\t"  \
  "vmovdqa %%ymm6, 192(%[out])\n\tvmovdqa %%ymm7, 224(%[out])\n\tvmovdqa %%ymm8, 256(%[out])\n\t" \
  "vmovdqa %%ymm9, 288(%[out])\n\tvmovdqa %%ymm10, 320(%[out])\n\tvmovdqa %%ymm11, "              \
  "352(%[out])\n\t"                                                                               \
  "vmovdqa %%ymm12, 384(%[out])\n\tvmovdqa %%ymm13, 416(%[out])\n\t"                              \
  "vmovdqa %%ymm14, 448(%[out])\n\tvmovdqa %%ymm15, 480(%[out])\n\tvzeroupper"
#define XMM_CLOBBERS                                                                       \
  "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", \
      "xmm11", "xmm12", "xmm13", "xmm14", "xmm15"
struct alignas(64) Ymm {
  uint64_t words[64];
};
Ymm ymm_pattern(uint64_t seed) {
  Ymm all;
  for (uint64_t i = 0; i < 64; ++i) all.words[i] = mix(seed, i);
  return all;
}
bool same(const Ymm& a, const Ymm& b) {
  return memcmp(&a, &b, sizeof a) == 0;
}

// A system call with full vector registers; the result, and whether the registers came back.
struct Call {
  long result;
  bool kept;
};
Call call_with_ymm(uint64_t seed, long number, long a = 0, long b = 0, long c = 0) {
  Ymm in = ymm_pattern(seed), out = {};
  long result;
  asm volatile(LOAD_YMM "syscall\n\t" STORE_YMM
               : "=a"(result)
               : [in] "r"(&in), [out] "r"(&out), "a"(number), "D"(a), "S"(b), "d"(c)
               : "rcx", "r11", "memory", XMM_CLOBBERS);
  return {result, same(in, out)};
}

}  // namespace

CASE(threads_compute_side_by_side) {
  prepare();
  std::vector<std::thread> threads;
  std::atomic<int> wrong{0};
  for (uint32_t t = 0; t < 8; ++t) {
    threads.emplace_back([&, t] {
      uint32_t expected = scalar_sum(t, 20);
      for (int i = 0; i < 5; ++i) {
        if (sum_of(t, 20, [](int) { sched_yield(); }) != expected) ++wrong;
        if (sse_sum(t, 20, nothing) != expected) ++wrong;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK_EQ(wrong.load(), 0);
}

CASE(results_are_right_while_signals_arrive) {
  prepare();
  static std::atomic<int> handled;
  handled = 0;
  auto old = install(SIGALRM, [](int) {
    ++handled;
    sum_of(99, 1, nothing);  // uses every register itself
  });
  itimerval soon = {{0, 0}, {0, 300}}, off = {};
  uint32_t expected = scalar_sum(5, 10);
  int seen = -1;
  for (int i = 0; i < 200 || handled < 10; ++i) {
    // Not by itself: where a handler takes that long, nothing but handlers would run.
    if (handled != seen) {
      seen = handled;
      REQUIRE(setitimer(ITIMER_REAL, &soon, nullptr) == 0);
    }
    REQUIRE(sum_of(5, 10, nothing) == expected);
  }
  setitimer(ITIMER_REAL, &off, nullptr);
  sigaction(SIGALRM, &old, nullptr);
}

CASE(all_ymm_registers_survive_system_calls_in_many_threads) {
  if (!has_avx2()) SKIP("no AVX2");
  std::vector<std::thread> threads;
  std::atomic<int> wrong{0};
  for (uint64_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      const long calls[] = {SYS_sched_yield, SYS_getppid, SYS_gettid, SYS_getpid};
      for (uint64_t i = 0; i < 100; ++i) {
        if (!call_with_ymm(t * 1000 + i, calls[i % 4]).kept) ++wrong;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK_EQ(wrong.load(), 0);
}

CASE(all_ymm_registers_survive_a_blocking_read) {
  if (!has_avx2()) SKIP("no AVX2");
  Pipe pipe;
  char byte = 0;
  for (uint64_t i = 0; i < 10; ++i) {
    std::thread writer([&] {
      sleep_ms(1);
      call_with_ymm(1000 + i, SYS_write, pipe.out(), reinterpret_cast<long>("z"), 1);
    });
    Call call = call_with_ymm(i, SYS_read, pipe.in(), reinterpret_cast<long>(&byte), 1);
    CHECK_EQ(call.result, 1);
    CHECK(call.kept);
    writer.join();
  }
}

CASE(all_ymm_registers_survive_page_faults) {
  if (!has_avx2()) SKIP("no AVX2");
  for (uint64_t i = 0; i < 50; ++i) {
    char* at = static_cast<char*>(map_anonymous(3 * kLarge));
    char* page = at + kLarge + i * 7 * kPage;
    Ymm in = ymm_pattern(i), out = {};
    asm volatile(LOAD_YMM "movb $1, (%[page])\n\tmovb (%[other]), %%al\n\t" STORE_YMM
                 :
                 : [in] "r"(&in), [out] "r"(&out), [page] "r"(page), [other] "r"(at)
                 : "rax", "memory", XMM_CLOBBERS);
    REQUIRE(same(in, out));
    munmap(at, 3 * kLarge);
  }
}

CASE(all_ymm_registers_survive_a_fork_on_both_sides) {
  if (!has_avx2()) SKIP("no AVX2");
  for (uint64_t i = 0; i < 5; ++i) {
    Call call = call_with_ymm(i, SYS_fork);
    REQUIRE(call.result >= 0);
    if (call.result == 0) _exit(call.kept ? 17 : 18);
    CHECK(call.kept);
    CHECK(exited(status_of(static_cast<pid_t>(call.result)), 17));
  }
}

CASE(vector_stores_copy_pages_after_a_fork) {
  if (!has_avx2()) SKIP("no AVX2");
  // The first store to a shared page is a 32-byte one, also across the boundary of two pages.
  char* at = static_cast<char*>(map_aligned(kLarge));
  memset(at, 'o', kLarge);
  Pipe go;
  pid_t child = start_child([&] {
    go.take();
    CHECK(all_are(at, kLarge, 'o'));
  });
  for (size_t i = 1; i < 512; i += 2) {
    asm volatile("vpcmpeqd %%ymm0, %%ymm0, %%ymm0\n\tvmovdqu %%ymm0, (%0)\n\tvzeroupper"
                 :
                 : "r"(at + i * kPage - 10)
                 : "memory", "xmm0");
  }
  for (size_t i = 1; i < 512; i += 2) {
    REQUIRE(all_are(at + i * kPage - 10, 32, 0xff));
    REQUIRE(at[i * kPage - 11] == 'o' && at[i * kPage + 22] == 'o');
  }
  go.post();
  CHECK(exited(status_of(child)));
  munmap(at, kLarge);
}

CASE(zmm_and_mask_registers_survive) {
  if (!has_avx512()) SKIP("no AVX-512");
  for (uint64_t i = 0; i < 50; ++i) {
    Ymm in = ymm_pattern(i), out = {};
    uint64_t mask = 0xa5a5, mask_after = 0;
    asm volatile(
        "vmovdqa64 0(%[in]), %%zmm0\n\tvmovdqa64 64(%[in]), %%zmm16\n\tvmovdqa64 128(%[in]), "
        "%%zmm31\n\t"
        "kmovw %k[mask], %%k3\n\tmovl %[call], %%eax\n\tsyscall\n\t"
        "vmovdqa64 %%zmm0, 0(%[out])\n\tvmovdqa64 %%zmm16, 64(%[out])\n\tvmovdqa64 %%zmm31, "
        "128(%[out])\n\t"
        "kmovw %%k3, %k[after]\n\tvzeroupper"
        : [after] "=&r"(mask_after)
        : [in] "r"(&in), [out] "r"(&out), [mask] "r"(mask), [call] "i"(SYS_sched_yield)
        : "rax", "rcx", "r11", "memory", "xmm0");
    REQUIRE(memcmp(&in, &out, 192) == 0);
    REQUIRE(mask_after == mask);
  }
}

CASE(rounding_modes_are_each_threads_own) {
  std::vector<std::thread> threads;
  std::atomic<int> wrong{0};
  for (uint32_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      _mm_setcsr(0x1f80 | t << 13);
      uint16_t control = static_cast<uint16_t>(0x37f | t << 10);
      asm volatile("fldcw %0" : : "m"(control));
      for (int i = 0; i < 50; ++i) {
        sched_yield();
        uint16_t now = 0;
        asm volatile("fnstcw %0" : "=m"(now));
        if ((_mm_getcsr() & 0x6000) != t << 13 || now != control) ++wrong;
        std::thread([&] {  // a new thread inherits them
          if ((_mm_getcsr() & 0x6000) != t << 13) ++wrong;
        })
            .join();
      }
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK_EQ(wrong.load(), 0);
  CHECK_EQ(_mm_getcsr() & 0x6000, 0);
}

CASE(rounding_mode_is_inherited_by_a_child) {
  _mm_setcsr(0x1f80 | 0x4000);
  int status = run_child([] {
    bool kept = (_mm_getcsr() & 0x6000) == 0x4000;
    _mm_setcsr(0x1f80 | 0x2000);
    _exit(kept ? 0 : 1);
  });
  uint32_t after = _mm_getcsr() & 0x6000;
  _mm_setcsr(0x1f80);
  CHECK(exited(status));
  CHECK_EQ(after, 0x4000);
}

CASE(x87_stack_survives_a_system_call) {
  for (int i = 0; i < 50; ++i) {
    double value = i * 1.25, back = 0, second = 0;
    asm volatile(
        "fldl %[value]\n\tfldpi\n\tmovl %[call], %%eax\n\tsyscall\n\tfstpl %[second]\n\tfstpl "
        "%[back]"
        : [back] "=m"(back), [second] "=m"(second)
        : [value] "m"(value), [call] "i"(SYS_sched_yield)
        : "rax", "rcx", "r11", "memory", "st", "st(1)");
    REQUIRE(back == value && second > 3.14159 && second < 3.1416);
  }
}

CASE(cpu_features_are_the_same_in_a_child_and_in_threads) {
  bool mine = has_avx2();
  CHECK(exited(run_child([=] { CHECK_EQ(has_avx2(), mine); })));
  std::thread([=] { CHECK_EQ(has_avx2(), mine); }).join();
  check::print("AVX2: %d\n", mine);
}

CHECK_MAIN
