#include "kernel.h"

enum { TRAPS = 256, INVALID_OPCODE = 6, GENERAL_PROTECTION = 13, PAGE_FAULT = 14 };

struct dbos_hypercall_page* page_of(uint64_t index) {
  return (struct dbos_hypercall_page*)(DBOS_VCPU_MAP_BASE + index * DBOS_VCPU_STRIDE +
                                       DBOS_VCPU_HYPERCALL_OFFSET);
}

struct dbos_hypercall_page* own_page(void) {
  uint64_t stack;
  __asm__ volatile("mov %%rsp, %0" : "=r"(stack));
  return (struct dbos_hypercall_page*)(stack / DBOS_VCPU_STRIDE * DBOS_VCPU_STRIDE +
                                       DBOS_VCPU_HYPERCALL_OFFSET);
}

void* direct(uint64_t physical) {
  return (void*)(DBOS_DIRECT_MAP_BASE + physical);
}

const struct dbos_boot_information* boot(void) {
  return direct(DBOS_BOOT_INFORMATION_ADDRESS);
}

uint64_t physical(const volatile void* address) {
  const uint64_t virtual = (uint64_t)address;
  if (virtual >= DBOS_IMAGE_BASE) return virtual - DBOS_IMAGE_BASE + DBOS_IMAGE_ADDRESS;
  return virtual - DBOS_VCPU_MAP_BASE + DBOS_VCPU_REGION_BASE;
}

uint32_t exit_to_host(uint32_t call_count) {
  struct dbos_hypercall_page* page = own_page();
  page->call_count = call_count;
  __asm__ volatile("outb %%al, %0" : : "i"(DBOS_HYPERCALL_PORT), "a"(0) : "memory");
  return page->calls_done;
}

int64_t call(uint32_t number, uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e) {
  struct dbos_hypercall_page* page = own_page();
  page->calls[0] = (struct dbos_call){number, 0, {a, b, c, d, e}, 0};
  exit_to_host(1);
  return page->calls[0].result;
}

// What the compiler expects of a C library.
void* memcpy(void* to, const void* from, size_t size);
void* memcpy(void* to, const void* from, size_t size) {
  void* const start = to;
  __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(size) : : "memory");
  return start;
}

static void print(const char* text) {
  uint64_t length = 0;
  while (text[length] != 0) ++length;
  CALL(SYS_WRITE, 1, physical(text), length);
}

_Noreturn void stop(uint64_t status) {
  for (;;) CALL(DBOS_SERVICE_EXIT, status, 1);
}

void run_test(const char* name, test function) {
  const char* failure = function();
  print(failure == NULL ? "PASS " : "FAIL ");
  print(name);
  if (failure != NULL) {
    print(": ");
    print(failure);
  }
  print("\n");
}

// --- Traps ---------------------------------------------------------------------------------------

// Where a probe goes on after its fault, 0: none is under way; and whether it had one.
volatile uint64_t resume_at;
volatile uint8_t probe_faulted;

// A fault, or attention, goes on where the probe says.
__asm__(
    "fault_entry_with_code: add $8, %rsp\n"
    "fault_entry: cmpq $0, resume_at; je unexpected_trap\n"
    "  push resume_at; pop (%rsp); movb $1, probe_faulted; movq $0, resume_at; iretq\n"
    "unexpected_trap: and $-16, %rsp; call report_trap\n"
    // bool probe(uint64_t address, uint64_t kind): 0 read, 1 write, 2 jump
    "probe: mov $1f, %rax; mov %rax, resume_at; movb $0, probe_faulted; mov %rsp, %r8\n"
    "  cmp $1, %rsi; je 2f; ja 3f; mov (%rdi), %al; jmp 1f\n"
    "2: mov (%rdi), %al; mov %al, (%rdi); jmp 1f\n"
    "3: jmp *%rdi\n"
    "1: mov %r8, %rsp; movq $0, resume_at; movzbl probe_faulted, %eax; ret\n"
    ".globl wait_in_region, region_begin, region_end, region_restart\n"
    "wait_in_region: mov %rsp, region_stack\n"
    "region_begin: pause; jmp region_begin\n"
    "region_end:\n"
    "region_restart: mov region_stack, %rsp; ret\n");
volatile uint64_t region_stack;
extern const char fault_entry[], fault_entry_with_code[], unexpected_trap[];
bool probe(uint64_t address, uint64_t kind);

bool read_faults(uint64_t address) {
  return probe(address, 0);
}
bool write_faults(uint64_t address) {
  return probe(address, 1);
}
bool jump_faults(uint64_t address) {
  return probe(address, 2);
}

__attribute__((used)) _Noreturn static void report_trap(void) {
  print("FAIL traps: one that was not expected\n");
  stop(1);
}

struct gate {
  uint16_t offset_low, selector;
  uint8_t stack, type;
  uint16_t offset_middle;
  uint32_t offset_high, reserved;
};
struct __attribute__((packed)) table_register {
  uint16_t limit;
  uint64_t base;
};
static const uint64_t segments[] = {0, 0x00af9b000000ffff, 0x00cf93000000ffff};  // none, code, data
static struct gate gates[TRAPS];

static void set_gate(int vector, const char* entry) {
  const uint64_t address = (uint64_t)entry;
  gates[vector] = (struct gate){(uint16_t)address,         0x08, 0, 0x8e, (uint16_t)(address >> 16),
                                (uint32_t)(address >> 32), 0};
}

void set_up_traps(void) {
  for (int vector = 0; vector < TRAPS; ++vector) set_gate(vector, unexpected_trap);
  set_gate(INVALID_OPCODE, fault_entry);
  set_gate(GENERAL_PROTECTION, fault_entry_with_code);
  set_gate(PAGE_FAULT, fault_entry_with_code);
  set_gate(DBOS_ATTENTION_VECTOR, fault_entry);
  const struct table_register gdt = {sizeof segments - 1, (uint64_t)segments};
  const struct table_register idt = {sizeof gates - 1, (uint64_t)gates};
  __asm__ volatile("lgdt %0; lidt %1; mov %2, %%ss" : : "m"(gdt), "m"(idt), "r"(0x10) : "memory");
}

// --- Entry: the registers go to the stack as they are
// ----------------------------------------------

__asm__(
    ".globl _start\n"
    "_start: pushf; push %r15; push %r14; push %r13; push %r12; push %r11; push %r10; push %r9\n"
    "  push %r8; push %rsp; push %rbp; push %rdi; push %rsi; push %rdx; push %rcx; push %rbx\n"
    "  push %rax; mov %rsp, %rdi; sub $8, %rsp; call enter\n");

__attribute__((used)) static _Noreturn void enter(struct entry_state* state) {
  state->rsp += 9 * sizeof(uint64_t);  // what had been pushed before it
  if (state->rsi == 0) run_first(state);
  run_other(state);
}
