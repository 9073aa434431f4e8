// Holds dbos-run to docs/hypercall-abi.md, from inside: a guest kernel that tries what the page
// promises. Arguments: the path of a file of some pages, and "clock" or "no-clock".
#include "kernel.h"

DBOS_IMAGE_NOTE(0, 0);

static struct entry_state first_state;
static uint8_t buffer[2 * DBOS_PAGE_SIZE] __attribute__((aligned(DBOS_PAGE_SIZE)));
static const uint64_t pattern = 0x5ca1ab1e0ddba11;

static const char* argument(uint64_t index) {
  const char* text = (const char*)boot() + boot()->arguments_offset;
  for (; index > 0; --index) {
    while (*text++ != 0) {
    }
  }
  return text;
}

static bool is_text(const char* a, const char* b) {
  while (*a != 0 && *a == *b) ++a, ++b;
  return *a == *b;
}

int64_t open_file(void) {
  return CALL(SYS_OPENAT, -100,
              DBOS_BOOT_INFORMATION_ADDRESS + (uint64_t)(argument(1) - (const char*)boot()));
}

// --- Boot ----------------------------------------------------------------------------------------

static uint64_t block(uint64_t index) {
  return DBOS_VCPU_MAP_BASE + index * DBOS_VCPU_STRIDE;
}

static const char* check_registers(const struct entry_state* s, uint64_t index) {
  CHECK(s->rdi == index);
  CHECK(s->rsp == block(index) + DBOS_VCPU_STACK_TOP);
  CHECK(s->rflags == 2);
  CHECK((s->rax | s->rbx | s->rcx | s->rdx | s->rbp) == 0);
  CHECK((s->r8 | s->r9 | s->r10 | s->r11 | s->r12 | s->r13 | s->r14 | s->r15) == 0);
  return NULL;
}

static const char* check_control_registers(void) {
  uint64_t cr0, cr3, cr4, cs, ss;
  uint32_t efer;
  __asm__("mov %%cr0, %0; mov %%cr3, %1; mov %%cr4, %2" : "=r"(cr0), "=r"(cr3), "=r"(cr4));
  __asm__("xor %k0, %k0; xor %k1, %k1; mov %%cs, %w0; mov %%ss, %w1" : "=&r"(cs), "=&r"(ss));
  __asm__("rdmsr" : "=a"(efer) : "c"(0xc0000080) : "edx");
  CHECK(cr0 == 0x80010031);
  CHECK(cr3 == boot()->kernel_tables);
  CHECK(cr4 == 0x20);
  CHECK(cs == 0x08 && ss == 0x10);
  CHECK(efer == 0xd00);
  return NULL;
}

static const char* first_entry(void) {
  const char* failure = check_registers(&first_state, 0);
  return failure != NULL ? failure : check_control_registers();
}

static const char* boot_information(void) {
  CHECK(boot()->abi_version == DBOS_ABI_VERSION);
  CHECK(boot()->size > sizeof *boot());
  CHECK(boot()->size <= DBOS_BOOT_INFORMATION_SIZE_MAX);
  CHECK(boot()->argument_count == 3);
  CHECK(is_text(argument(0), (const char*)boot() + boot()->executable_name_offset));
  CHECK(((const char*)boot())[boot()->executable_path_offset] == '/');
  CHECK(boot()->program.descriptor == -1 && boot()->interpreter.descriptor == -1);
  CHECK((boot()->features & ~(DBOS_FEATURE_CLOCK | DBOS_FEATURE_XSAVE)) == 0);
  CHECK((boot()->extended_state_mask != 0) == ((boot()->features & DBOS_FEATURE_XSAVE) != 0));
  return NULL;
}

static const char* clock_page(void) {
  const struct dbos_clock_page* clock = direct(DBOS_CLOCK_PAGE_ADDRESS);
  const bool wanted = is_text(argument(2), "clock");
  CHECK((clock->enabled != 0) == wanted);
  CHECK(((boot()->features & DBOS_FEATURE_CLOCK) != 0) == wanted);
  if (!wanted) return NULL;
  CHECK(clock->abi_version == DBOS_ABI_VERSION);
  CHECK(boot()->tsc_khz != 0);
  CHECK(CALL(DBOS_SERVICE_CLOCK_REFRESH) == 0);
  const struct dbos_clock_parameters* line = &clock->parameters[clock->generation & 1];
  CHECK(line->tsc_base != 0 && line->multiplier != 0 && line->shift < 64);
  return NULL;
}

static const char* extended_state(void) {
  if (boot()->extended_state_mask == 0) return NULL;
  uint32_t low, high;
  uint64_t cr4;
  __asm__ volatile("mov %%cr4, %0" : "=r"(cr4));
  __asm__ volatile("mov %0, %%cr4" : : "r"(cr4 | 1 << 18));  // OSXSAVE
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  CHECK(((uint64_t)high << 32 | low) == boot()->extended_state_mask);
  return NULL;
}

static const char* page_rights(void) {
  extern const char _start[];
  CHECK(!read_faults((uint64_t)_start) && write_faults((uint64_t)_start));
  CHECK(!read_faults((uint64_t)&pattern) && write_faults((uint64_t)&pattern));
  CHECK(!write_faults((uint64_t)buffer) && jump_faults((uint64_t)buffer));
  CHECK(jump_faults((uint64_t)direct(DBOS_IMAGE_ADDRESS)));
  CHECK(read_faults(0) && read_faults(0x400000));  // the lower half is empty
  // Guards, and the pieces between them.
  CHECK(read_faults(block(0)) && !read_faults(block(0) + DBOS_VCPU_STACK_OFFSET));
  CHECK(read_faults(block(0) + DBOS_VCPU_STACK_TOP));
  CHECK(!read_faults(block(0) + DBOS_VCPU_IST_STACK_OFFSET));
  CHECK(read_faults(block(0) + DBOS_VCPU_IST_STACK_TOP));
  CHECK(!write_faults(block(0) + DBOS_VCPU_DATA_OFFSET + DBOS_VCPU_DATA_SIZE - 1));
  CHECK(!write_faults(block(0) + DBOS_VCPU_BOUNCE_OFFSET + DBOS_VCPU_BOUNCE_SIZE - 1));
  CHECK(read_faults(block(1)) && !read_faults(block(1) + DBOS_VCPU_STACK_OFFSET));
  CHECK(!write_faults(block(DBOS_VCPU_COUNT_MAX - 1) + DBOS_VCPU_DATA_OFFSET));
  CHECK(read_faults(block(DBOS_VCPU_COUNT_MAX)));
  return NULL;
}

// --- Calls ---------------------------------------------------------------------------------------

static const char* refused_calls(void) {
  CHECK(CALL(9, 0, 4096, 3, 0x22, -1) == -ENOSYS);  // mmap is the guest's
  CHECK(CALL(60, 0) == -ENOSYS);                    // exit, too
  CHECK(CALL(0xfff) == -ENOSYS);
  CHECK(CALL(0x1fff) == -ENOSYS);
  CHECK(CALL(0xffffffff) == -ENOSYS);
  struct dbos_hypercall_page* page = own_page();
  page->calls[0] = (struct dbos_call){.number = SYS_GETPPID, .flags = 1};
  page->calls[1] = (struct dbos_call){.number = DBOS_SERVICE_YIELD, .flags = 1};
  CHECK(exit_to_host(2) == 2);
  CHECK(page->calls[0].result == -EINVAL && page->calls[1].result == -EINVAL);
  return NULL;
}

static const char* batches(void) {
  struct dbos_hypercall_page* page = own_page();
  for (int i = 0; i < DBOS_CALL_BATCH_MAX; ++i) {
    page->calls[i] = (struct dbos_call){.number = i % 2 == 0 ? SYS_GETPPID : 0xfff, .result = 77};
  }
  CHECK(exit_to_host(1000) == DBOS_CALL_BATCH_MAX);
  for (int i = 0; i < DBOS_CALL_BATCH_MAX; ++i) {
    CHECK(i % 2 == 0 ? page->calls[i].result > 0 : page->calls[i].result == -ENOSYS);
  }
  page->calls[1].result = 77;
  CHECK(exit_to_host(1) == 1);
  CHECK(page->calls[1].result == 77);
  CHECK(exit_to_host(0) == 0);
  return NULL;
}

static const char* addresses(void) {
  static const uint64_t outside[] = {
      1,
      0x400000,
      DBOS_KERNEL_REGION_BASE - 8,
      DBOS_KERNEL_REGION_BASE + DBOS_KERNEL_REGION_SIZE - 8,  // its last bytes, and more
      DBOS_FAULT_HOLE_BASE,
      DBOS_VCPU_REGION_BASE - 8,
      DBOS_WINDOW_BASE + DBOS_WINDOW_SIZE_MAX - 16,
      DBOS_ARENA_BASE + DBOS_ARENA_SIZE_MAX - 16,
      DBOS_DIRECT_MAP_BASE + DBOS_IMAGE_ADDRESS,  // virtual
      UINT64_MAX - 15,
  };
  for (size_t i = 0; i < sizeof outside / sizeof *outside; ++i) {
    CHECK(CALL(SYS_CLOCK_GETTIME, 1, outside[i]) == -EFAULT);
    CHECK(CALL(DBOS_SERVICE_LOG, outside[i], 16) == -EFAULT);
  }
  CHECK(CALL(SYS_CLOCK_GETTIME, 1, physical(buffer) + 1) == 0);
  CHECK(CALL(DBOS_SERVICE_LOG, physical(buffer), 1025) == -EFAULT);
  CHECK(CALL(DBOS_SERVICE_LOG, physical(buffer), 1, DBOS_LOG_DEBUG + 1) == -EINVAL);
  return NULL;
}

// Its files in /proc show the VMM's memory, by whatever way they are opened.
static const char* memory_files(void) {
  static const char* const paths[] = {"mem", "maps", "smaps", "pagemap", "task/../mem"};
  static const char directory[] = "/proc/self", other[] = "limits";
  static struct { uint64_t flags, mode, resolve; } how = {.flags = 0};
  const int64_t self = CALL(SYS_OPENAT, -100, physical(directory), 0200000);  // O_DIRECTORY
  CHECK(self >= 0);
  for (uint32_t i = 0; i < sizeof paths / sizeof *paths; ++i) {
    CHECK(CALL(SYS_OPENAT, self, physical(paths[i]), 0) == -EACCES);
    CHECK(CALL(SYS_OPENAT2, self, physical(paths[i]), physical(&how), sizeof how) == -EACCES);
  }
  const int64_t limits = CALL(SYS_OPENAT, self, physical(other), 0);
  CHECK(limits >= 0 && CALL(SYS_CLOSE, limits) == 0 && CALL(SYS_CLOSE, self) == 0);
  return NULL;
}

// --- Memory --------------------------------------------------------------------------------------

static const char* arena(void) {
  const uint64_t chunks =
      (boot()->arena_size_max + DBOS_ARENA_CHUNK_SIZE - 1) / DBOS_ARENA_CHUNK_SIZE;
  const int64_t size = CALL(DBOS_SERVICE_ARENA_GROW, 0);
  CHECK(size > 0 && (uint64_t)size <= DBOS_ARENA_CHUNK_SIZE);
  CHECK(CALL(DBOS_SERVICE_ARENA_GROW, chunks) == -ENOMEM);
  CHECK(CALL(DBOS_SERVICE_ARENA_GROW, UINT64_MAX) == -ENOMEM);
  volatile uint64_t* const word = direct(DBOS_ARENA_BASE + (uint64_t)size - DBOS_PAGE_SIZE);
  CHECK(*word == 0);
  *word = pattern;
  CHECK(CALL(DBOS_SERVICE_ARENA_GROW, 0) == size && *word == pattern);
  const uint64_t page = DBOS_ARENA_BASE + (uint64_t)size - DBOS_PAGE_SIZE;
  CHECK(CALL(DBOS_SERVICE_MEMORY_RELEASE, page + 8, DBOS_PAGE_SIZE) == -EINVAL);
  CHECK(CALL(DBOS_SERVICE_MEMORY_RELEASE, page, 2 * DBOS_PAGE_SIZE) == -EINVAL);
  CHECK(CALL(DBOS_SERVICE_MEMORY_RELEASE, DBOS_IMAGE_ADDRESS, DBOS_PAGE_SIZE) == -EINVAL);
  CHECK(*word == pattern);
  CHECK(CALL(DBOS_SERVICE_MEMORY_RELEASE, page, DBOS_PAGE_SIZE) == 0 && *word == 0);
  return NULL;
}

// --- Further vCPUs -------------------------------------------------------------------------------

static struct {
  struct entry_state state;
  const char* control_failure;
  uint32_t thread_id, process_id, index;
  uint64_t start_argument;
  volatile uint32_t seen;
} other;

enum { SIGUSR1 = 10, SIGKILL = 9 };

enum task { TASK_RECORD = 1, TASK_CHILD, TASK_CALL, TASK_HELPER, TASK_SIGNAL };

static int64_t start(enum task task, uint32_t* index) {
  return CALL(DBOS_SERVICE_THREAD_CREATE, task, index == NULL ? 0 : physical(index));
}

// The other vCPU wakes this one just once, after it has been seen: no wake is left for later.
static bool await_other(void) {
  while (CALL(DBOS_SERVICE_PARK, UINT64_MAX, 1) != 0) {
  }
  const bool seen = other.seen != 0;
  other.seen = 0;
  return seen;
}

static const char* second_vcpu(void) {
  static uint32_t index;
  CHECK(start(TASK_RECORD, (uint32_t*)(DBOS_IMAGE_BASE + DBOS_KERNEL_REGION_SIZE)) == -EFAULT);
  CHECK(CALL(DBOS_SERVICE_THREAD_CREATE, TASK_RECORD, physical(&index) + 1) == -EFAULT);
  CHECK(start(0, &index) == -EINVAL);
  for (int round = 0; round < 3; ++round) {  // the later ones on a vCPU that was used before
    const int64_t id = start(TASK_RECORD, &index);
    CHECK(id > 0 && await_other());
    CHECK(index == other.index && index != 0);
    CHECK(other.thread_id == id && other.thread_id != own_page()->thread_id);
    CHECK(other.process_id == own_page()->process_id);
    CHECK(other.state.rsi == TASK_RECORD && other.start_argument == TASK_RECORD);
    const char* failure = check_registers(&other.state, index);
    if (failure != NULL) return failure;
    if (other.control_failure != NULL) return other.control_failure;
  }
  return NULL;
}

static const char* helper(void) {
  CHECK(CALL(DBOS_SERVICE_HELPER, 0, 0) == -EINVAL);
  CHECK(CALL(DBOS_SERVICE_HELPER, TASK_HELPER, 2) == -EINVAL);
  CHECK(CALL(DBOS_SERVICE_HELPER, TASK_HELPER, 0) == 0);
  CHECK(await_other());
  CHECK(other.state.rsi == TASK_HELPER && other.process_id == own_page()->process_id);
  CHECK(CALL(DBOS_SERVICE_HELPER, TASK_HELPER, 0) == -EALREADY);
  return other.control_failure;
}

// On the helper: its host thread may have rights that the program has given up since.
static const char* calls_of_helper(void) {
  static const uint32_t refused[] = {SYS_READ,
                                     SYS_SOCKETPAIR,
                                     SYS_GETPPID,
                                     DBOS_SERVICE_PROCESS_FORK,
                                     DBOS_SERVICE_EXECUTE,
                                     SYS_OPENAT,
                                     DBOS_SERVICE_WINDOW_MAP};
  for (uint32_t i = 0; i < sizeof refused / sizeof *refused; ++i) CHECK(CALL(refused[i]) == -EPERM);
  CHECK(CALL(DBOS_SERVICE_YIELD) == 0 && CALL(DBOS_SERVICE_CLOCK_REFRESH) == 0);
  CHECK(CALL(DBOS_SERVICE_PARK, 1, 1) == -ETIMEDOUT);
  CHECK(CALL(SYS_CLOCK_GETTIME, 1, physical(buffer)) == 0);
  CHECK(CALL(SYS_KILL, own_page()->process_id, SIGKILL) == -EPERM);  // not one that was forked
  CHECK(CALL(SYS_KILL, 1, 0) == -EPERM);
  return NULL;
}

static const char* parking(void) {
  CHECK(CALL(DBOS_SERVICE_PARK, 1, 1) == -ETIMEDOUT);
  CHECK(CALL(DBOS_SERVICE_WAKE, 0) == 0 && own_page()->park_word == 1);
  CHECK(CALL(DBOS_SERVICE_PARK, UINT64_MAX, 1) == 0 && own_page()->park_word == 0);
  CHECK(CALL(DBOS_SERVICE_WAKE, DBOS_VCPU_COUNT_MAX) == -EINVAL);
  CHECK(CALL(DBOS_SERVICE_WAKE, 1000) == -EINVAL);
  return NULL;
}

static const char* fork_and_wait(void) {
  static uint32_t index;
  static uint32_t status;
  CHECK(CALL(DBOS_SERVICE_PROCESS_FORK, 0, 17, 0, physical(&index)) == -EINVAL);
  CHECK(CALL(DBOS_SERVICE_PROCESS_FORK, TASK_CHILD, 17, 2, physical(&index)) == -EINVAL);
  CHECK(CALL(DBOS_SERVICE_DIE, 0) == -EINVAL && CALL(DBOS_SERVICE_DIE, 65) == -EINVAL);
  const int64_t child = CALL(DBOS_SERVICE_PROCESS_FORK, TASK_CHILD, 17, 0, physical(&index));
  CHECK(child > 0 && child != own_page()->process_id);
  CHECK(CALL(SYS_WAIT4, child, physical(&status), 0, 0) == child);
  CHECK(status == 42 << 8);
  CHECK(other.seen && other.process_id == child && other.index == index);
  other.seen = 0;
  return NULL;
}

// --- Signals -------------------------------------------------------------------------------------

static const char* signals(void) {
  struct dbos_hypercall_page* page = own_page();
  CHECK(CALL(DBOS_SERVICE_SIGNAL_ACTION, SIGKILL, DBOS_SIGNAL_IGNORE) == -EINVAL);
  CHECK(CALL(DBOS_SERVICE_SIGNAL_ACTION, 65, DBOS_SIGNAL_IGNORE) == -EINVAL);
  CHECK(CALL(DBOS_SERVICE_SIGNAL_ACTION, SIGUSR1, 3) == -EINVAL);
  CHECK(CALL(DBOS_SERVICE_SIGNAL_ACTION, SIGUSR1, DBOS_SIGNAL_IGNORE) == 0);
  CHECK(CALL(SYS_KILL, page->process_id, SIGUSR1) == 0 && page->signal.number == 0);
  CHECK(CALL(DBOS_SERVICE_SIGNAL_ACTION, SIGUSR1, DBOS_SIGNAL_CATCH) == 0);
  // The call that waits is not begun, and those behind it are not made.
  page->calls[0] = (struct dbos_call){SYS_KILL, 0, {page->process_id, SIGUSR1}, 77};
  page->calls[1] = (struct dbos_call){SYS_POLL, 0, {0, 0, UINT64_MAX}, 77};
  page->calls[2] = (struct dbos_call){SYS_GETPPID, 0, {0}, 77};
  CHECK(exit_to_host(3) == 2);
  CHECK(page->calls[0].result == 0);
  CHECK(page->calls[1].result == DBOS_RESULT_NOT_STARTED);
  CHECK(page->calls[2].result == 77);
  CHECK(page->signal.number == SIGUSR1);
  CHECK(*(const uint32_t*)page->signal.info == SIGUSR1);
  CHECK(CALL(DBOS_SERVICE_SIGNAL_MASK, 0) == DBOS_RESULT_NOT_STARTED);
  page->signal.number = 0;
  CHECK(CALL(DBOS_SERVICE_SIGNAL_MASK, 1 << (SIGUSR1 - 1)) == 0);
  CHECK(CALL(SYS_KILL, page->process_id, SIGUSR1) == 0);
  CHECK(page->signal.number == 0);  // blocked
  CHECK(CALL(DBOS_SERVICE_SIGNAL_MASK, 0) < 0 || page->signal.number != 0);
  CHECK(page->signal.number == SIGUSR1);
  page->signal.number = 0;
  CHECK(CALL(DBOS_SERVICE_SIGNAL_MASK, 0) == 0);
  return NULL;
}

// The other one ends with it, and this one blocks it till then.
static const char* signal_of_an_ended_thread(void) {
  struct dbos_hypercall_page* page = own_page();
  CHECK(CALL(DBOS_SERVICE_SIGNAL_MASK, 1 << (SIGUSR1 - 1)) == 0);
  CHECK(start(TASK_SIGNAL, NULL) > 0 && await_other());
  CHECK(other.control_failure == NULL);
  for (int turns = 0; turns < 50000 && page->signal.number == 0; ++turns) {
    CALL(DBOS_SERVICE_SIGNAL_MASK, 0);
    CALL(DBOS_SERVICE_YIELD);
  }
  CHECK(page->signal.number == SIGUSR1);
  CHECK(((const uint32_t*)page->signal.info)[4] == page->process_id);  // si_pid
  page->signal.number = 0;
  CHECK(CALL(DBOS_SERVICE_SIGNAL_MASK, 0) == 0);
  return NULL;
}

// On the other one.
static const char* get_signal(void) {
  CHECK(CALL(DBOS_SERVICE_SIGNAL_MASK, 0) == 0);
  CHECK(CALL(SYS_KILL, own_page()->process_id, SIGUSR1) == 0);
  CHECK(own_page()->signal.number == SIGUSR1);
  return NULL;
}

// --- Attention -----------------------------------------------------------------------------------

// What TASK_CALL sends to vCPU 0, again and again, until it is told to stop.
static volatile uint32_t calling, called_signal;

static bool start_calling(bool with_signal) {
  called_signal = with_signal;
  calling = 1;
  return start(TASK_CALL, NULL) > 0;
}

static bool end_calling(void) {
  struct dbos_hypercall_page* page = own_page();
  calling = 0;
  page->signal.number = 0;  // or no call would wait
  const bool seen = await_other();
  do {
    page->signal.number = 0;
  } while (CALL(DBOS_SERVICE_SIGNAL_MASK, 0) != 0 || page->signal.number != 0);
  page->attention = 0;
  return seen;
}

static const char* attention_in_the_kernel(void) {
  CHECK(CALL(DBOS_SERVICE_INTERRUPT, DBOS_VCPU_COUNT_MAX) == -EINVAL);
  own_page()->attention = 0;
  CHECK(start_calling(true));
  // No exception: there would be a trap that was not expected.
  while (own_page()->signal.number == 0) __asm__ volatile("pause");
  CHECK(own_page()->signal.number == SIGUSR1 && own_page()->attention == 1);
  CHECK(end_calling());
  return NULL;
}

// Puts a frame of the arena's end behind an address of the lower half.
static void map_program_page(uint64_t address, uint64_t frames) {
  uint64_t table = boot()->kernel_tables;
  for (int shift = 39;; shift -= 9, frames += DBOS_PAGE_SIZE) {
    uint64_t* entry = (uint64_t*)direct(table & 0x000ffffffffff000) + (address >> shift & 511);
    *entry = frames | 3;
    if (shift == 12) return;
    table = frames;
  }
}

static const char* attention_in_the_program(void) {
  static const uint8_t endless_loop[] = {0xf3, 0x90, 0xeb, 0xfc};  // 1: pause; jmp 1b
  const uint64_t address = 0x400000;
  map_program_page(address, DBOS_ARENA_BASE);
  for (size_t i = 0; i < sizeof endless_loop; ++i) {
    ((volatile uint8_t*)address)[i] = endless_loop[i];
  }
  CHECK(start_calling(false));
  CHECK(jump_faults(address));
  CHECK(end_calling());
  return NULL;
}

static const char* attention_in_the_region(void) {
  CHECK(CALL(DBOS_SERVICE_ATTENTION_REGION, 0x400000, 0x500000, region_restart) == -EINVAL);
  CHECK(CALL(DBOS_SERVICE_ATTENTION_REGION, region_end, region_begin, region_restart) == -EINVAL);
  CHECK(CALL(DBOS_SERVICE_ATTENTION_REGION, region_begin, region_end, region_restart) == 0);
  CHECK(CALL(DBOS_SERVICE_ATTENTION_REGION, region_begin, region_end, region_restart) == -EINVAL);
  CHECK(start_calling(false));
  wait_in_region();
  CHECK(end_calling());
  return NULL;
}

// --- Entries -------------------------------------------------------------------------------------

_Noreturn void run_first(const struct entry_state* state) {
  first_state = *state;
  run_test("first_entry", first_entry);
  run_test("zero_kernel_region", zero_kernel_region);
  run_test("zero_vcpu_blocks", zero_vcpu_blocks);
  set_up_traps();
  run_test("boot_information", boot_information);
  run_test("clock_page", clock_page);
  run_test("extended_state", extended_state);
  run_test("page_rights", page_rights);
  run_test("refused_calls", refused_calls);
  run_test("batches", batches);
  run_test("addresses", addresses);
  run_test("descriptors_of_the_vmm", descriptors_of_the_vmm);
  run_test("listings_of_descriptors", listings_of_descriptors);
  run_test("memory_files", memory_files);
  run_test("arena", arena);
  run_test("huge_pages", window_of_huge_pages);
  run_test("window", window_of_files);
  run_test("segment", window_of_segments);
  run_test("second_vcpu", second_vcpu);
  run_test("helper", helper);
  run_test("parking", parking);
  run_test("fork_and_wait", fork_and_wait);
  run_test("signals", signals);
  run_test("signal_of_an_ended_thread", signal_of_an_ended_thread);
  run_test("attention_in_the_kernel", attention_in_the_kernel);
  run_test("attention_in_the_program", attention_in_the_program);
  run_test("attention_in_the_region", attention_in_the_region);
  stop(0);
}

_Noreturn void run_other(const struct entry_state* state) {
  const struct dbos_hypercall_page* page = own_page();
  while (state->rsi == TASK_CALL && calling) {
    if (called_signal) CALL(SYS_TGKILL, page->process_id, page->process_id, SIGUSR1);
    page_of(0)->attention = 1;
    CALL(DBOS_SERVICE_INTERRUPT, 0);
    CALL(DBOS_SERVICE_YIELD);
  }
  other.state = *state;
  other.control_failure = state->rsi == TASK_HELPER   ? calls_of_helper()
                          : state->rsi == TASK_SIGNAL ? get_signal()
                                                      : check_control_registers();
  other.thread_id = page->thread_id;
  other.process_id = page->process_id;
  other.index = page->vcpu_index;
  other.start_argument = page->start_argument;
  __atomic_store_n(&other.seen, 1, __ATOMIC_RELEASE);
  if (state->rsi == TASK_CHILD) stop(42);
  CALL(DBOS_SERVICE_WAKE, 0);
  for (;;) CALL(DBOS_SERVICE_THREAD_EXIT, 0);
}
