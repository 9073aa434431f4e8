// A guest kernel for tests of the hypercall ABI: just enough to make calls, take traps and report.
#pragma once

#include <dbos/hypercall.h>
#include <stdbool.h>

// Numbers of Linux.
enum {
  SYS_READ = 0,
  SYS_WRITE = 1,
  SYS_CLOSE = 3,
  SYS_POLL = 7,
  SYS_SHMGET = 29,
  SYS_SHMCTL = 31,
  SYS_SENDMSG = 46,
  SYS_SOCKETPAIR = 53,
  SYS_WAIT4 = 61,
  SYS_KILL = 62,
  SYS_GETDENTS = 78,
  SYS_READLINK = 89,
  SYS_GETPPID = 110,
  SYS_MOUNT = 165,
  SYS_UMOUNT = 166,
  SYS_GETDENTS64 = 217,
  SYS_CLOCK_GETTIME = 228,
  SYS_TGKILL = 234,
  SYS_OPENAT = 257,
  SYS_MEMFD_CREATE = 319,
  SYS_OPENAT2 = 437,
};
enum {
  EPERM = 1,
  EBADF = 9,
  ENOMEM = 12,
  EACCES = 13,
  EFAULT = 14,
  EINVAL = 22,
  ENOSYS = 38,
  ETIMEDOUT = 110,
  EALREADY = 114
};

// The registers that a vCPU has at the image's entry point.
struct entry_state {
  uint64_t rax, rbx, rcx, rdx, rsi, rdi, rbp, rsp, r8, r9, r10, r11, r12, r13, r14, r15, rflags;
};

struct dbos_hypercall_page* own_page(void);
const struct dbos_boot_information* boot(void);

void* direct(uint64_t physical);
// The guest-physical address of something in the image or on a vCPU's stack.
uint64_t physical(const volatile void* address);

int64_t call(uint32_t number, uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e);
#define CALL_5(number, a, b, c, d, e, ...) \
  call(number, (uint64_t)(a), (uint64_t)(b), (uint64_t)(c), (uint64_t)(d), (uint64_t)(e))
#define CALL(...) CALL_5(__VA_ARGS__, 0, 0, 0, 0, 0, 0)
// Makes the calls that are in the hypercall page; returns calls_done.
uint32_t exit_to_host(uint32_t call_count);

struct dbos_hypercall_page* page_of(uint64_t index);

// Traps of this vCPU.
void set_up_traps(void);
// Whether the access, or a jump there, faults; attention counts as a fault.
bool read_faults(uint64_t address);
bool write_faults(uint64_t address);
bool jump_faults(uint64_t address);

// Comes back when attention finds this vCPU in [region_begin, region_end).
void wait_in_region(void);
extern const char region_begin[], region_end[], region_restart[];

// A test ends at its first CHECK that fails.
typedef const char* (*test)(void);
#define TEXT_OF(line) #line
#define LINE_TEXT(line) TEXT_OF(line)
#define CHECK(condition) \
  if (!(condition)) return __FILE_NAME__ ":" LINE_TEXT(__LINE__) ": " #condition
void run_test(const char* name, test function);
_Noreturn void stop(uint64_t status);

// zero_memory.c
const char* zero_kernel_region(void);
const char* zero_vcpu_blocks(void);

// windows.c
const char* window_of_huge_pages(void);
const char* window_of_files(void);
const char* window_of_segments(void);

// The file that is given as an argument, anew.
int64_t open_file(void);

// descriptors.c
const char* descriptors_of_the_vmm(void);
const char* listings_of_descriptors(void);

// What the tests make of an entry: the first vCPU's (start argument 0), and the others'.
_Noreturn void run_first(const struct entry_state* state);
_Noreturn void run_other(const struct entry_state* state);
