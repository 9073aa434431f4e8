// A guest kernel that wants the VMM to do harm. Argument: none.
#include "kernel.h"

DBOS_IMAGE_NOTE(0, 0);

enum task { TASK_WAIT = 1 };

static volatile uint32_t waiting, released;

static int64_t start(enum task task, uint32_t* index) {
  return CALL(DBOS_SERVICE_THREAD_CREATE, task, physical(index));
}

static void release_others(void) {
  released = 1;
  while (waiting != 0) CALL(DBOS_SERVICE_YIELD);
  released = 0;
}

// --- Page tables ---------------------------------------------------------------------------------

enum {
  TABLE_ENTRIES = 512,
  BLOCK_PAGES = DBOS_VCPU_STRIDE / DBOS_PAGE_SIZE,
  BLOCKS_OF_A_TABLE = TABLE_ENTRIES / BLOCK_PAGES,
};
static const uint64_t address_mask = 0x000ffffffffff000, present = 1, mark = 1 << 9;

static uint64_t* entry_of(uint64_t table, uint64_t address, int shift) {
  return (uint64_t*)direct(table & address_mask) + (address >> shift & (TABLE_ENTRIES - 1));
}

static uint64_t* directory_entry(uint64_t address) {
  const uint64_t pointers = *entry_of(boot()->kernel_tables, address, 39);
  return entry_of(*entry_of(pointers, address, 30), address, 21);
}

// A table of the blocks from `first` on, each with the pages of vCPU 0's; this guest knows its
// entries by their mark.
static void fill_table(uint64_t* table, uint64_t first) {
  const uint64_t own = *directory_entry(DBOS_VCPU_MAP_BASE);
  for (uint64_t i = 0; i < TABLE_ENTRIES; ++i) {
    const uint64_t like = *entry_of(own, DBOS_VCPU_MAP_BASE + i % BLOCK_PAGES * DBOS_PAGE_SIZE, 12);
    const uint64_t physical_page =
        DBOS_VCPU_REGION_BASE + first * DBOS_VCPU_STRIDE + i * DBOS_PAGE_SIZE;
    table[i] = (like & present) == 0 ? 0 : physical_page | (like & ~address_mask) | mark;
  }
}

// What the guest put behind the blocks of new vCPUs may be anything, also memory of the VMM's.
static const char* page_tables_are_not_followed(void) {
  static uint64_t table[TABLE_ENTRIES] __attribute__((aligned(DBOS_PAGE_SIZE)));
  const uint64_t base = DBOS_VCPU_MAP_BASE + BLOCKS_OF_A_TABLE * DBOS_VCPU_STRIDE;
  fill_table(table, BLOCKS_OF_A_TABLE);
  *directory_entry(base) = physical(table) | 3;
  __asm__ volatile("mov %%cr3, %%rax; mov %%rax, %%cr3" : : : "rax", "memory");
  uint32_t index = 0;
  while (index < 2 * BLOCKS_OF_A_TABLE - 1) {
    CHECK(start(TASK_WAIT, &index) > 0);
  }
  release_others();
  for (uint64_t i = 0; i < TABLE_ENTRIES; ++i) CHECK(table[i] == 0 || (table[i] & mark) != 0);
  return NULL;
}

// --- Memory --------------------------------------------------------------------------------------

// What is granted can be named in calls, and the rest is refused.
static const char* arena_with_gaps(void) {
  const uint64_t chunks = boot()->arena_size_max / DBOS_ARENA_CHUNK_SIZE;
  CHECK(chunks >= 40);
  int granted = 0;
  for (uint64_t index = 1; index < chunks; index += 2) {
    const int64_t size = CALL(DBOS_SERVICE_ARENA_GROW, index);
    const uint64_t address = DBOS_ARENA_BASE + index * DBOS_ARENA_CHUNK_SIZE;
    CHECK(size == (int64_t)DBOS_ARENA_CHUNK_SIZE || size == -ENOMEM);
    CHECK(CALL(SYS_CLOCK_GETTIME, 1, address) == (size > 0 ? 0 : -EFAULT));
    granted += size > 0;
  }
  CHECK(granted >= 8);
  return NULL;
}

// --- KVM -----------------------------------------------------------------------------------------

enum { EFER_SVME = 1 << 12 };
static const uint32_t kvm_features = 0x40000001, msr_efer = 0xc0000080;
static const uint32_t msr_kvm_wall_clock = 0x4b564d00, msr_kvm_steal_time = 0x4b564d03;

// rdmsr and wrmsr of what was read, but for `set`; a jump to it faults, or comes back by faulting.
static volatile uint32_t msr, msr_set, msr_written;
extern const char change_msr[], change_cr4[];
__asm__(
    "change_msr: movl $0, msr_written; mov msr, %ecx; rdmsr; or msr_set, %eax; wrmsr\n"
    "  movl $1, msr_written; ud2\n"
    "change_cr4: movl $0, msr_written; mov %cr4, %rax; or $1 << 13, %rax; mov %rax, %cr4\n"
    "  movl $1, msr_written; ud2\n");

static bool msr_can_be_changed(uint32_t number, uint32_t set) {
  msr = number, msr_set = set;
  return jump_faults((uint64_t)change_msr) && msr_written;
}

// Nested virtualization, and interfaces of KVM's that CPUID does not name.
static const char* kvm_is_as_small_as_can_be(void) {
  uint32_t a = kvm_features, b, c = 0, d;
  __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
  CHECK(a == 0 && d == 0);
  CHECK(!msr_can_be_changed(msr_efer, EFER_SVME));
  CHECK(jump_faults((uint64_t)change_cr4) && !msr_written);
  CHECK(!msr_can_be_changed(msr_kvm_wall_clock, 0));
  CHECK(!msr_can_be_changed(msr_kvm_steal_time, 0));
  return NULL;
}

// --- Files ---------------------------------------------------------------------------------------

// /proc/self/mem is known whatever it is called. Needs root, as the emulated machine has.
static const char* memory_under_another_name(void) {
  enum { CURRENT_DIRECTORY = -100, CREATE = 0100, WRITE_ONLY = 1, READ_AND_WRITE = 2, BIND = 4096 };
  static const char memory[] = "/proc/self/mem", name[] = "/tmp/other-name", none[] = "";
  const int64_t file = CALL(SYS_OPENAT, CURRENT_DIRECTORY, physical(name), CREATE, 0600);
  CHECK(file >= 0 && CALL(SYS_CLOSE, file) == 0);
  CHECK(CALL(SYS_MOUNT, physical(memory), physical(name), physical(none), BIND) == 0);
  const int64_t readable = CALL(SYS_OPENAT, CURRENT_DIRECTORY, physical(name), 0);
  const int64_t both = CALL(SYS_OPENAT, CURRENT_DIRECTORY, physical(name), READ_AND_WRITE);
  const int64_t writable = CALL(SYS_OPENAT, CURRENT_DIRECTORY, physical(name), WRITE_ONLY);
  CHECK(CALL(SYS_UMOUNT, physical(name), 0) == 0);
  CHECK(readable == -EACCES && both == -EACCES && writable == -EACCES);
  return NULL;
}

// A device that may take addresses in what is written: one of no known kind.
static const char* devices_are_not_written(void) {
  enum { CURRENT_DIRECTORY = -100, READ_AND_WRITE = 2 };
  static const char kvm[] = "/dev/kvm", null[] = "/dev/null";
  CHECK(CALL(SYS_OPENAT, CURRENT_DIRECTORY, physical(kvm), READ_AND_WRITE) == -EACCES);
  const int64_t file = CALL(SYS_OPENAT, CURRENT_DIRECTORY, physical(null), READ_AND_WRITE);
  CHECK(file >= 0 && CALL(SYS_CLOSE, file) == 0);
  return NULL;
}

// --- Entries -------------------------------------------------------------------------------------

_Noreturn void run_first(const struct entry_state* state) {
  (void)state;
  set_up_traps();
  run_test("page_tables_are_not_followed", page_tables_are_not_followed);
  run_test("arena_with_gaps", arena_with_gaps);
  run_test("memory_under_another_name", memory_under_another_name);
  run_test("devices_are_not_written", devices_are_not_written);
  run_test("kvm_is_as_small_as_can_be", kvm_is_as_small_as_can_be);
  stop(0);
}

_Noreturn void run_other(const struct entry_state* state) {
  (void)state;
  __atomic_fetch_add(&waiting, 1, __ATOMIC_SEQ_CST);
  while (!released) CALL(DBOS_SERVICE_YIELD);
  __atomic_fetch_sub(&waiting, 1, __ATOMIC_SEQ_CST);
  for (;;) CALL(DBOS_SERVICE_THREAD_EXIT, 0);
}
