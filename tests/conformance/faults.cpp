// Faults that a handler sees: which signal, si_code and si_addr; mending the cause and returning;
// leaving by siglongjmp; alternate stacks and stack overflow.
#include <sys/resource.h>
#include <ucontext.h>

#include "support.h"

namespace {
void* const kNonCanonical = reinterpret_cast<void*>(uintptr_t{0x8000} << 48 | 0x1000);
volatile int zero = 0;
volatile int sink = 0;

void divide(int by) {
  sink = 100 / by;
}
[[gnu::noinline]] void undefined_instruction() {
  asm volatile("ud2");
}

siginfo_t seen;
volatile int handled = 0;
}  // namespace

CASE(null_pointer) {
  CHECK(is(fault_of([] { static_cast<void>(*bytes(nullptr)); }), SIGSEGV, SEGV_MAPERR, nullptr));
  void* field = reinterpret_cast<void*>(0x123);
  CHECK(is(fault_of([=] { *bytes(field) = 1; }), SIGSEGV, SEGV_MAPERR, field));
}

CASE(unmapped_memory) {
  void* at = map_anonymous(kPage);
  munmap(at, kPage);
  CHECK(is(fault_of([=] { static_cast<void>(*bytes(at, 77)); }), SIGSEGV, SEGV_MAPERR,
           offset(at, 77)));
  CHECK(is(fault_of([=] { *bytes(at, 4095) = 1; }), SIGSEGV, SEGV_MAPERR, offset(at, 4095)));
}

CASE(access_over_the_end_names_the_first_bad_byte) {
  void* at = map_anonymous(2 * kPage);
  munmap(offset(at, kPage), kPage);
  uint64_t word = 0;
  void* last = offset(at, kPage - 3);
  Fault fault = fault_of([&] { asm volatile("movq (%1), %0" : "=r"(word) : "r"(last)); });
  CHECK(is(fault, SIGSEGV, SEGV_MAPERR, offset(at, kPage)));
  fault = fault_of([&] { asm volatile("movq %0, (%1)" : : "r"(word), "r"(last) : "memory"); });
  CHECK(is(fault, SIGSEGV, SEGV_MAPERR, offset(at, kPage)));
  CHECK(all_are(at, kPage, 0));  // nothing of it was stored
  munmap(at, kPage);
}

CASE(read_only_and_no_access) {
  void* at = map_anonymous(2 * kPage, PROT_READ);
  CHECK(is(fault_of([=] { *bytes(at, 9) = 1; }), SIGSEGV, SEGV_ACCERR, offset(at, 9)));
  static_cast<void>(*bytes(at));  // now the page is present
  CHECK(is(fault_of([=] { *bytes(at, 9) = 1; }), SIGSEGV, SEGV_ACCERR, offset(at, 9)));
  mprotect(at, 2 * kPage, PROT_NONE);
  CHECK(
      is(fault_of([=] { static_cast<void>(*bytes(at, 9)); }), SIGSEGV, SEGV_ACCERR, offset(at, 9)));
  munmap(at, 2 * kPage);
}

CASE(executing_data) {
  void* at = map_anonymous(kPage);
  *bytes(at) = 0xc3;  // ret
  auto call = [=] { reinterpret_cast<void (*)()>(at)(); };
  CHECK(is(fault_of(call), SIGSEGV, SEGV_ACCERR, at));
  CHECK_EQ(mprotect(at, kPage, PROT_READ | PROT_EXEC), 0);
  CHECK_EQ(fault_of(call).signal, 0);
  CHECK_EQ(mprotect(at, kPage, PROT_READ), 0);
  CHECK(is(fault_of(call), SIGSEGV, SEGV_ACCERR, at));
  munmap(at, kPage);
  CHECK(is(fault_of(call), SIGSEGV, SEGV_MAPERR, at));
}

CASE(code_written_at_run_time) {
  void* at = map_anonymous(kPage, PROT_READ | PROT_WRITE | PROT_EXEC);
  for (int i = 1; i < 50; ++i) {
    unsigned char code[] = {0xb8, static_cast<unsigned char>(i), 0, 0, 0, 0xc3};  // mov eax, i; ret
    memcpy(at, code, sizeof code);
    REQUIRE(reinterpret_cast<int (*)()>(at)() == i);
  }
  munmap(at, kPage);
}

CASE(executing_a_null_and_a_wild_pointer) {
  void (*volatile null)() = nullptr;
  CHECK(is(fault_of([&] { null(); }), SIGSEGV, SEGV_MAPERR, nullptr));
  void* wild = reinterpret_cast<void*>(0x1000);
  CHECK(is(fault_of([=] { reinterpret_cast<void (*)()>(wild)(); }), SIGSEGV, SEGV_MAPERR, wild));
}

// The fourth argument is in the register that a system call's return uses.
CASE(jumping_to_an_error_value) {
  for (uintptr_t target : {~uintptr_t{0}, ~uintptr_t{0} - 4095, ~uintptr_t{0} << 30}) {
    void* wild = reinterpret_cast<void*>(target);
    for (long fourth : {5L, -1L}) {
      auto jump = [=] {
        reinterpret_cast<void (*)(long, long, long, long)>(wild)(0, 0, 0, fourth);
      };
      Fault fault = fault_of(jump);
      CHECK(is(fault, SIGSEGV, SEGV_MAPERR, wild));
      CHECK_EQ(fault.registers[REG_RIP], static_cast<long>(target));
      CHECK_EQ(fault.registers[REG_RCX], fourth);
    }
  }
}

// Runs an instruction, which must be one of two bytes or fewer, as its own function; whether it was
// refused to ring 3: a general protection fault at it.
template <typename... Bytes>
bool is_refused(long error_code, Bytes... instruction) {
  const unsigned char code[] = {static_cast<unsigned char>(instruction)..., 0xc3};  // ret
  void* at = map_anonymous(kPage, PROT_READ | PROT_WRITE | PROT_EXEC);
  memcpy(at, code, sizeof code);
  Fault fault = fault_of([=] {
    long port = 0x64, count = 3, from = reinterpret_cast<long>(&sink);
    asm volatile("call *%3"
                 : "+d"(port), "+c"(count), "+S"(from)
                 : "r"(at)
                 : "rax", "rdi", "memory");
  });
  bool good = is(fault, SIGSEGV, SI_KERNEL, nullptr) &&
              (fault.registers[REG_ERR] & 7) == error_code && fault.registers[REG_TRAPNO] == 13 &&
              fault.registers[REG_RDX] == 0x64 &&
              fault.registers[REG_RIP] == reinterpret_cast<long>(at);
  if (!good)
    check::print("%02x %02x: at %+lld, trap %lld, error %lld\n", code[0], code[1],
                 fault.registers[REG_RIP] - reinterpret_cast<long>(at), fault.registers[REG_TRAPNO],
                 fault.registers[REG_ERR]);
  munmap(at, kPage);
  return good;
}

CASE(ports_are_refused) {
  CHECK(is_refused(0, 0xec));        // in al, dx
  CHECK(is_refused(0, 0xed));        // in eax, dx
  CHECK(is_refused(0, 0xe4, 0x60));  // in al, 0x60
  CHECK(is_refused(0, 0xee));        // out dx, al
  CHECK(is_refused(0, 0xe7, 0x80));  // out 0x80, eax
  CHECK(is_refused(0, 0xf3, 0x6e));  // rep outsb
}

CASE(halt_is_refused) {
  CHECK(is_refused(0, 0xf4));
}

// QEMU's own error code has the gate's number twice as large.
CASE(software_interrupts_are_refused) {
  for (long vector : {2, 8, 9, 10, 11, 12, 13, 14, 15, 17, 20, 21, 22, 29, 30, 31, 32, 100, 255})
    CHECK(is_refused(2, 0xcd, vector));
}

CASE(non_canonical_address_is_a_general_protection_fault) {
  CHECK(
      is(fault_of([] { static_cast<void>(*bytes(kNonCanonical)); }), SIGSEGV, SI_KERNEL, nullptr));
  CHECK(is(fault_of([] { *bytes(kNonCanonical) = 1; }), SIGSEGV, SI_KERNEL, nullptr));
}

CASE(misaligned_sse_access_is_a_general_protection_fault) {
  alignas(16) static unsigned char buffer[48];
  void* odd = buffer + 1;
  Fault fault = fault_of([=] { asm volatile("movaps (%0), %%xmm0" : : "r"(odd) : "xmm0"); });
  CHECK(is(fault, SIGSEGV, SI_KERNEL, nullptr));
}

CASE(divide_by_zero_and_overflow) {
  Fault fault = fault_of([] { divide(zero); });
  CHECK_EQ(fault.signal, SIGFPE);
  CHECK_EQ(fault.code, FPE_INTDIV);
  CHECK(fault.address != nullptr);
  fault = fault_of([] {
    int low = 0, high = 5;
    asm volatile("idivl %2" : "+a"(low), "+d"(high) : "r"(1) : "cc");
  });
  CHECK_EQ(fault.signal, SIGFPE);
  CHECK_EQ(fault.code, FPE_INTDIV);
}

CASE(unmasked_sse_division_by_zero) {
  Fault fault = fault_of([] {
    uint32_t unmasked = 0x1f80 & ~0x200u, usual = 0x1f80;
    double one = 1;
    asm volatile("ldmxcsr %1\n\tdivsd %2, %0\n\tldmxcsr %3"
                 : "+x"(one)
                 : "m"(unmasked), "x"(0.0), "m"(usual));
  });
  uint32_t usual = 0x1f80;
  asm volatile("ldmxcsr %0" : : "m"(usual));
  if (fault.signal == 0) SKIP("this (emulated) processor raises no SSE exceptions");
  CHECK_EQ(fault.signal, SIGFPE);
  CHECK_EQ(fault.code, FPE_FLTDIV);
}

CASE(undefined_instruction) {
  Fault fault = fault_of(undefined_instruction);
  CHECK_EQ(fault.signal, SIGILL);
  CHECK_EQ(fault.code, ILL_ILLOPN);
  CHECK(fault.address != nullptr);
}

CASE(breakpoint_and_single_step) {
  handled = 0;
  auto old = install(SIGTRAP, [](int, siginfo_t* info, void* context) {
    seen = *info;
    handled = handled + 1;
    static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_EFL] &= ~0x100;
  });
  asm volatile("int3");
  CHECK_EQ(handled, 1);
  CHECK_EQ(seen.si_code, SI_KERNEL);
  asm volatile(
      "lea -128(%%rsp), %%rsp\n\tpushfq\n\torl $0x100, (%%rsp)\n\tpopfq\n\tnop\n\tlea 128(%%rsp), "
      "%%rsp"
      :
      :
      : "cc", "memory");
  CHECK_EQ(handled, 2);
  CHECK_EQ(seen.si_code, TRAP_TRACE);
  sigaction(SIGTRAP, &old, nullptr);
}

CASE(time_stamp_counter_is_readable) {
  uint64_t value = 0;
  Fault fault = fault_of([&] { value = __builtin_ia32_rdtsc(); });
  CHECK_EQ(fault.signal, 0);
  CHECK(value != 0);
}

CASE(handler_mends_the_page_and_returns) {
  static void* at;
  at = map_anonymous(4 * kPage, PROT_NONE);
  handled = 0;
  auto old = install(SIGSEGV, [](int, siginfo_t* info, void*) {
    handled = handled + 1;
    uintptr_t page = reinterpret_cast<uintptr_t>(info->si_addr) & ~(kPage - 1);
    if (mprotect(reinterpret_cast<void*>(page), kPage, PROT_READ | PROT_WRITE) != 0) _exit(9);
  });
  for (size_t i = 0; i < 4; ++i) *bytes(at, i * kPage + i) = static_cast<unsigned char>(i + 1);
  CHECK_EQ(handled, 4);
  for (size_t i = 0; i < 4; ++i) CHECK_EQ(*bytes(at, i * kPage + i), i + 1);
  CHECK_EQ(handled, 4);
  mprotect(at, 4 * kPage, PROT_READ);  // a write barrier, as a garbage collector sets
  for (size_t i = 0; i < 4; ++i) *bytes(at, i * kPage) = 9;
  CHECK_EQ(handled, 8);
  sigaction(SIGSEGV, &old, nullptr);
  munmap(at, 4 * kPage);
}

CASE(handler_maps_the_page_and_returns) {
  handled = 0;
  static char* base;
  base = static_cast<char*>(map_anonymous(64 * kPage));
  munmap(base, 64 * kPage);
  auto old = install(SIGSEGV, [](int, siginfo_t* info, void*) {
    handled = handled + 1;
    char* page = base + (static_cast<char*>(info->si_addr) - base) / static_cast<long>(kPage) *
                            static_cast<long>(kPage);
    void* got =
        mmap(page, kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    if (got != page) _exit(9);
    memset(page, static_cast<int>((page - base) / static_cast<long>(kPage)), kPage);
  });
  for (size_t i = 0; i < 64; ++i) REQUIRE(*bytes(base, i * kPage + 100) == i);
  CHECK_EQ(handled, 64);
  sigaction(SIGSEGV, &old, nullptr);
  munmap(base, 64 * kPage);
}

CASE(many_faults_left_by_siglongjmp) {
  void* at = map_anonymous(kPage, PROT_NONE);
  for (int i = 0; i < 500; ++i) REQUIRE(!readable(at));
  sigset_t mask;
  sigprocmask(SIG_BLOCK, nullptr, &mask);
  CHECK_EQ(sigismember(&mask, SIGSEGV), 0);
  munmap(at, kPage);
}

CASE(registers_at_the_fault_are_in_the_context) {
  static void* at;
  static greg_t rbx, r12, error, trap, cr2;
  at = map_anonymous(kPage, PROT_NONE);
  auto old = install(SIGSEGV, [](int, siginfo_t*, void* context) {
    greg_t* registers = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
    rbx = registers[REG_RBX];
    r12 = registers[REG_R12];
    error = registers[REG_ERR];
    trap = registers[REG_TRAPNO];
    cr2 = registers[REG_CR2];
    registers[REG_RIP] += 2;  // over the store: movb %al, (%rdx)
    registers[REG_R12] = 0x77;
  });
  uint64_t r12_after = 0;
  asm volatile(
      "movq $0x1111, %%rbx\n\tmovq $0x2222, %%r12\n\tmovq %1, %%rdx\n\tmovb %%al, (%%rdx)\n\tmovq "
      "%%r12, %0"
      : "=r"(r12_after)
      : "r"(at)
      : "rbx", "r12", "rdx", "memory");
  sigaction(SIGSEGV, &old, nullptr);
  CHECK_EQ(rbx, 0x1111);
  CHECK_EQ(r12, 0x2222);
  CHECK_EQ(r12_after, 0x77);
  CHECK_EQ(trap, 14);
  CHECK_EQ(error & 6, 6);  // a write, from user mode
  CHECK_EQ(cr2, reinterpret_cast<uintptr_t>(at));
  munmap(at, kPage);
}

CASE(file_end_gives_sigbus) {
  int file = memfd_create("short", MFD_CLOEXEC);
  REQUIRE(file != -1 && ftruncate(file, 100) == 0);
  void* at = mmap(nullptr, 2 * kPage, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  REQUIRE(at != MAP_FAILED);
  CHECK_EQ(*bytes(at, 4095), 0);
  CHECK(is(fault_of([=] { static_cast<void>(*bytes(at, kPage + 5)); }), SIGBUS, BUS_ADRERR,
           offset(at, kPage + 5)));
  munmap(at, 2 * kPage);
  close(file);
}

namespace {
sigjmp_buf overflow_back;
volatile bool on_alternate = false;
void* alternate = nullptr;
void overflow_handler(int, siginfo_t* info, void*) {
  seen = *info;
  volatile char here = 0;
  uintptr_t address = reinterpret_cast<uintptr_t>(&here),
            start = reinterpret_cast<uintptr_t>(alternate);
  on_alternate = address >= start && address < start + 64 * kKiB;
  siglongjmp(overflow_back, 1);
}
[[gnu::noinline]] int overflow(int depth) {
  volatile char frame[2000];
  frame[depth % 2000] = 1;
  if (depth == -1) return 0;
  return overflow(depth + 1) + frame[depth % 2000];
}
}  // namespace

CASE(stack_overflow_is_handled_on_the_alternate_stack) {
  rlimit limit = {};
  REQUIRE(getrlimit(RLIMIT_STACK, &limit) == 0);
  if (limit.rlim_cur > 64 * kMiB) SKIP("no stack limit");
  alternate = map_anonymous(64 * kKiB);
  stack_t stack = {}, old_stack = {};
  stack.ss_sp = alternate;
  stack.ss_size = 64 * kKiB;
  REQUIRE(sigaltstack(&stack, &old_stack) == 0);
  auto old = install(SIGSEGV, overflow_handler, SA_ONSTACK);
  for (int round = 0; round < 3; ++round) {
    on_alternate = false;
    if (sigsetjmp(overflow_back, 1) == 0) sink = overflow(0);
    CHECK(on_alternate);
    CHECK_EQ(seen.si_signo, SIGSEGV);
    CHECK_EQ(seen.si_code, SEGV_MAPERR);
  }
  sigaction(SIGSEGV, &old, nullptr);
  REQUIRE(sigaltstack(&old_stack, nullptr) == 0);
  munmap(alternate, 64 * kKiB);
}

CASE(nested_faults_in_a_handler) {
  static void* outer;
  static void* inner;
  outer = map_anonymous(kPage, PROT_NONE);
  inner = map_anonymous(kPage, PROT_NONE);
  handled = 0;
  auto old = install(
      SIGSEGV,
      [](int, siginfo_t* info, void*) {
        handled = handled + 1;
        if (info->si_addr == outer) *bytes(inner) = 5;
        mprotect(info->si_addr, kPage, PROT_READ | PROT_WRITE);
      },
      SA_NODEFER);
  *bytes(outer) = 4;
  CHECK_EQ(handled, 2);
  CHECK_EQ(*bytes(outer) * 10 + *bytes(inner), 45);
  sigaction(SIGSEGV, &old, nullptr);
  munmap(outer, kPage);
  munmap(inner, kPage);
}

CASE(fault_in_string_instruction_can_be_resumed) {
  void* at = map_anonymous(4 * kPage);
  static void* wall;
  wall = offset(at, 2 * kPage);
  mprotect(wall, kPage, PROT_NONE);
  auto old = install(SIGSEGV,
                     [](int, siginfo_t*, void*) { mprotect(wall, kPage, PROT_READ | PROT_WRITE); });
  void* to = at;
  size_t count = 4 * kPage;
  asm volatile("rep stosb" : "+D"(to), "+c"(count) : "a"(0x3c) : "memory");
  CHECK(all_are(at, 4 * kPage, 0x3c));
  sigaction(SIGSEGV, &old, nullptr);
  munmap(at, 4 * kPage);
}

CHECK_MAIN
