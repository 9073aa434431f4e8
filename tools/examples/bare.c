// A runtime of its own in ring 0: boots, takes a page fault, starts a second vCPU, which prints a
// file, and exits. It needs nothing but the header below.
//
//   dbos-run --kernel bare.elf FILE     prints FILE; status 0, or 1 if it can't be read
#include <dbos/hypercall.h>

DBOS_IMAGE_NOTE(0, 0);

// Numbers of Linux.
enum { READ = 0, WRITE = 1, CLOSE = 3, OPENAT = 257, AT_FDCWD = -100, STDOUT = 1, STDERR = 2 };

// The vCPU that runs this has its stack and its hypercall page in one block.
static struct dbos_hypercall_page* own_page(void) {
  uint64_t stack;
  __asm__ volatile("mov %%rsp, %0" : "=r"(stack));
  return (struct dbos_hypercall_page*)(stack / DBOS_VCPU_STRIDE * DBOS_VCPU_STRIDE +
                                       DBOS_VCPU_HYPERCALL_OFFSET);
}

// Makes one call.
static int64_t call(uint32_t number, uint64_t a, uint64_t b, uint64_t c, uint64_t d) {
  struct dbos_hypercall_page* page = own_page();
  page->calls[0] = (struct dbos_call){number, 0, {a, b, c, d}, 0};
  page->call_count = 1;
  __asm__ volatile("outb %%al, %0" : : "i"(DBOS_HYPERCALL_PORT), "a"(0) : "memory");
  return page->calls[0].result;
}

static void* direct(uint64_t physical) {
  return (void*)(DBOS_DIRECT_MAP_BASE + physical);
}

// The guest-physical address of something in the image.
static uint64_t physical(const void* in_image) {
  return (uint64_t)in_image - DBOS_IMAGE_BASE + DBOS_IMAGE_ADDRESS;
}

static const struct dbos_boot_information* boot(void) {
  return direct(DBOS_BOOT_INFORMATION_ADDRESS);
}

static uint64_t length(const char* text) {
  uint64_t count = 0;
  while (text[count] != 0) ++count;
  return count;
}

// `text` lies in the image. Linux may write less than asked.
static void print(uint64_t descriptor, const char* text) {
  for (uint64_t left = length(text); left != 0;) {
    const int64_t result = call(WRITE, descriptor, physical(text), left, 0);
    if (result <= 0) return;
    text += result;
    left -= (uint64_t)result;
  }
}

static _Noreturn void stop(int status) {
  for (;;) call(DBOS_SERVICE_EXIT, (uint64_t)status, 0, 0, 0);
}

static _Noreturn void fail(const char* why) {
  print(STDERR, "bare: ");
  print(STDERR, why);
  print(STDERR, "\n");
  stop(1);
}

// --- Memory: frames from the first chunk of the arena, one after the other -----------------------

static uint64_t next_frame, arena_end;

// A frame's guest-physical address. It reads as zero.
static uint64_t take_frame(void) {
  if (arena_end == 0) {
    const int64_t size = call(DBOS_SERVICE_ARENA_GROW, 0, 0, 0, 0);
    if (size <= 0) fail("there is no memory");
    next_frame = DBOS_ARENA_BASE;
    arena_end = DBOS_ARENA_BASE + (uint64_t)size;
  }
  if (next_frame == arena_end) fail("the memory is used up");
  next_frame += DBOS_PAGE_SIZE;
  return next_frame - DBOS_PAGE_SIZE;
}

enum { PRESENT = 1, WRITABLE = 2 };
static const uint64_t address_mask = 0x000ffffffffff000;

// Puts a new frame behind a virtual address, in the page tables that are in use.
static void map_frame(uint64_t address) {
  uint64_t table;
  __asm__ volatile("mov %%cr3, %0" : "=r"(table));
  for (int shift = 39;; shift -= 9) {
    uint64_t* entry = (uint64_t*)direct(table & address_mask) + (address >> shift & 511);
    if ((*entry & PRESENT) == 0) *entry = take_frame() | WRITABLE | PRESENT;
    if (shift == 12) return;
    table = *entry;
  }
}

// --- Traps ---------------------------------------------------------------------------------------

// The only page faults that are expected: in this range, the lower half's first terabyte.
static const uint64_t heap_begin = 0x100000000, heap_end = 0x10000000000;
static volatile uint64_t faults_taken;

// Traps run on the stack that they find, below what was interrupted: this image has no red zone.
__asm__(
    "page_fault_entry:\n"
    "  push %rax; push %rcx; push %rdx; push %rsi; push %rdi\n"
    "  push %r8; push %r9; push %r10; push %r11; sub $8, %rsp\n"
    "  mov %cr2, %rdi; call page_fault\n"
    "  add $8, %rsp; pop %r11; pop %r10; pop %r9; pop %r8\n"
    "  pop %rdi; pop %rsi; pop %rdx; pop %rcx; pop %rax\n"
    "  add $8, %rsp; iretq\n"  // over the error code
    "other_trap_entry: call other_trap\n");
extern const char page_fault_entry[], other_trap_entry[];

__attribute__((used)) static void page_fault(uint64_t address) {
  if (address < heap_begin || address >= heap_end) fail("a page fault that was not expected");
  map_frame(address);
  ++faults_taken;
}

__attribute__((used)) static void other_trap(void) {
  fail("a trap that was not expected");
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

enum { VECTORS = 32, PAGE_FAULT = 14, CODE_SELECTOR = 0x08, INTERRUPT_GATE = 0x8e };
static const uint64_t segments[] = {0, 0x00af9b000000ffff, 0x00cf93000000ffff};  // none, code, data
static struct gate gates[VECTORS];

static void set_gate(int vector, const char* entry) {
  const uint64_t address = (uint64_t)entry;
  gates[vector] = (struct gate){(uint16_t)address,
                                CODE_SELECTOR,
                                0,
                                INTERRUPT_GATE,
                                (uint16_t)(address >> 16),
                                (uint32_t)(address >> 32),
                                0};
}

static void set_up_traps(void) {
  for (int vector = 0; vector < VECTORS; ++vector) set_gate(vector, other_trap_entry);
  set_gate(PAGE_FAULT, page_fault_entry);
  const struct table_register gdt = {sizeof segments - 1, (uint64_t)segments};
  const struct table_register idt = {sizeof gates - 1, (uint64_t)gates};
  __asm__ volatile("lgdt %0; lidt %1; mov %2, %%ss" : : "m"(gdt), "m"(idt), "r"(0x10) : "memory");
}

// --- The two vCPUs -------------------------------------------------------------------------------

struct work {
  uint64_t path;    // guest-physical address
  uint64_t buffer;  // ... of a frame
  volatile int64_t result;
  volatile uint32_t done;
};
static struct work work;

static int64_t print_file(const struct work* job) {
  const int64_t file = call(OPENAT, (uint64_t)AT_FDCWD, job->path, 0, 0);
  if (file < 0) return file;
  int64_t got;
  while ((got = call(READ, (uint64_t)file, job->buffer, DBOS_PAGE_SIZE, 0)) > 0) {
    for (int64_t done = 0; done < got;) {
      const int64_t result =
          call(WRITE, STDOUT, job->buffer + (uint64_t)done, (uint64_t)(got - done), 0);
      if (result < 0) return result;
      done += result;
    }
  }
  call(CLOSE, (uint64_t)file, 0, 0, 0);
  return got;
}

// The second vCPU's: its start argument is `job`.
static _Noreturn void run_work(struct work* job) {
  print(STDERR, "bare: the second vCPU runs\n");
  job->result = print_file(job);
  __atomic_store_n(&job->done, 1, __ATOMIC_RELEASE);
  call(DBOS_SERVICE_WAKE, 0, 0, 0, 0);
  for (;;) call(DBOS_SERVICE_THREAD_EXIT, 0, 0, 0, 0);
}

// Writes where nothing is mapped, on two pages, and reads it back.
static void use_heap(void) {
  volatile uint64_t* words = (volatile uint64_t*)heap_begin;
  for (uint64_t i = 0; i < 1024; ++i) words[i] = i * i;
  for (uint64_t i = 0; i < 1024; ++i) {
    if (words[i] != i * i) fail("memory does not hold what was written");
  }
  if (faults_taken != 2) fail("two page faults were expected");
  print(STDERR, "bare: took 2 page faults\n");
}

static _Noreturn void run_first(void) {
  if (boot()->abi_version != DBOS_ABI_VERSION) fail("another version of the hypercall ABI");
  if (boot()->argument_count != 2) fail("name one file: dbos-run --kernel bare.elf FILE");
  use_heap();
  const char* arguments = (const char*)boot() + boot()->arguments_offset;
  work.path = DBOS_BOOT_INFORMATION_ADDRESS + boot()->arguments_offset + length(arguments) + 1;
  work.buffer = take_frame();
  if (call(DBOS_SERVICE_THREAD_CREATE, (uint64_t)&work, 0, 0, 0) < 0) fail("no second vCPU");
  while (__atomic_load_n(&work.done, __ATOMIC_ACQUIRE) == 0) {
    call(DBOS_SERVICE_PARK, UINT64_MAX, 1, 0, 0);
  }
  if (work.result < 0) fail("can't read the file");
  stop(0);
}

// Every vCPU begins here, on its kernel stack: RDI and RSI are the arguments.
__asm__(".globl _start\n_start: call run\n");

__attribute__((used)) static _Noreturn void run(uint64_t vcpu, uint64_t start_argument) {
  (void)vcpu;
  set_up_traps();
  if (start_argument != 0) run_work((struct work*)start_argument);
  run_first();
}
