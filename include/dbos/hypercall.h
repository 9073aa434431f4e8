// The hypercall interface of dbos-run: what a guest kernel and the VMM share.
//
// For authors of other runtimes, which `dbos-run --kernel FILE` boots in place of libdbos. Valid
// C11 and C++20, nothing else is included. docs/hypercall-abi.md explains it; its tables, the
// constants that other languages use, and the VMM's own C++ names come from this file.
//
// tools/gen-hypercall-abi reads it: one constant, enumerator or field to a line, its comment behind
// it. A line of dashes with a title begins a section. What is libdbos's alone has only its place
// here: hypercall/observe.h and hypercall/debug.h say what is in it, and another image leaves it
// alone.
#pragma once

#include <stddef.h>  // NOLINT: C has no <cstddef>
#include <stdint.h>  // NOLINT: nor <cstdint>

// --- Version ------------------------------------------------------------------------------------

#define DBOS_ABI_VERSION 1  // counts breaking changes; hypercall/CHANGES.md rates each release

// What this machine offers, in dbos_boot_information.features; what an image can't do without, in
// its note.
#define DBOS_FEATURE_CLOCK UINT64_C(0x1)  // the clock page tells the time
#define DBOS_FEATURE_XSAVE UINT64_C(0x2)  // XSAVE, with XCR0 set

// --- Image note ---------------------------------------------------------------------------------

#define DBOS_NOTE_NAME "DBOS"  // the ELF note's name
#define DBOS_NOTE_TYPE 1       // the ELF note's type

#define DBOS_IMAGE_LOADS_PROGRAM 0x1  // dbos_image_note.flags: the command line names a program

// An ELF note (SHT_NOTE, PT_NOTE, alignment 4) with its header. Every image has exactly one.
struct dbos_image_note {
  uint32_t name_size;         // 5: DBOS_NOTE_NAME with its NUL
  uint32_t description_size;  // 16: what follows `name`
  uint32_t type;              // DBOS_NOTE_TYPE
  char name[8];               // DBOS_NOTE_NAME, padded with NULs
  uint32_t abi_version;       // DBOS_ABI_VERSION that the image was built with
  uint32_t flags;             // DBOS_IMAGE_...; unknown ones are refused
  uint32_t features_low;      // DBOS_FEATURE_... that the image needs, bits 0 to 31
  uint32_t features_high;     // ... bits 32 to 63
};

// Defines the note, once in an image. The linker script must keep section .note.dbos and put it
// into a PT_NOTE segment.
#define DBOS_IMAGE_NOTE(image_flags, needed_features)                                          \
  __attribute__((section(".note.dbos"), used,                                                  \
                 aligned(4))) static const struct dbos_image_note dbos_image_note_instance = { \
      5,                                                                                       \
      16,                                                                                      \
      DBOS_NOTE_TYPE,                                                                          \
      DBOS_NOTE_NAME,                                                                          \
      DBOS_ABI_VERSION,                                                                        \
      (image_flags),                                                                           \
      (uint32_t)(needed_features),                                                             \
      (uint32_t)((uint64_t)(needed_features) >> 32)}

// --- Guest-physical addresses -------------------------------------------------------------------

#define DBOS_PAGE_SIZE 4096  // bytes

#define DBOS_KERNEL_REGION_BASE UINT64_C(0x1000000000)        // 64 GiB
#define DBOS_KERNEL_REGION_SIZE UINT64_C(0x1000000)           // 16 MiB
#define DBOS_CLOCK_PAGE_ADDRESS UINT64_C(0x1000000000)        // struct dbos_clock_page
#define DBOS_OBSERVE_PAGE_ADDRESS UINT64_C(0x1000001000)      // the VMM's and libdbos's
#define DBOS_BOOT_INFORMATION_ADDRESS UINT64_C(0x1000002000)  // struct dbos_boot_information
#define DBOS_BOOT_INFORMATION_SIZE_MAX UINT64_C(0x3fe000)     // with its strings
#define DBOS_IMAGE_ADDRESS UINT64_C(0x1000400000)             // where the image is copied to
#define DBOS_IMAGE_SIZE_MAX UINT64_C(0x3ff000)                // 4 MiB less a page
#define DBOS_RING_CHECK_ADDRESS UINT64_C(0x10007ff000)  // code that the VMM ran before the image
#define DBOS_TABLES_ADDRESS UINT64_C(0x1000800000)      // the boot page tables
#define DBOS_TABLES_SIZE_MAX UINT64_C(0x800000)         // 8 MiB

#define DBOS_FAULT_HOLE_BASE UINT64_C(0x1080000000)  // 66 GiB: never mapped, for bad pointers
#define DBOS_FAULT_HOLE_SIZE UINT64_C(0x80000000)    // 2 GiB

#define DBOS_VCPU_REGION_BASE UINT64_C(0x1100000000)  // 68 GiB: a block for each vCPU
#define DBOS_VCPU_STRIDE UINT64_C(0x40000)            // 256 KiB: the size of a block
#define DBOS_VCPU_COUNT_MAX 1024                      // blocks

#define DBOS_TRACE_REGION_BASE UINT64_C(0x1800000000)  // 96 GiB: libdbos's, a ring for each vCPU
#define DBOS_TRACE_STRIDE UINT64_C(0x40000)            // 256 KiB: the size of a ring

#define DBOS_WINDOW_BASE UINT64_C(0x2000000000)      // 128 GiB: host mappings of files
#define DBOS_WINDOW_SIZE_MAX UINT64_C(0x2000000000)  // 128 GiB

#define DBOS_ARENA_BASE UINT64_C(0x4000000000)      // 256 GiB: the guest's own memory
#define DBOS_ARENA_SIZE_MAX UINT64_C(0xc000000000)  // up to 1 TiB, or what the CPU can address
#define DBOS_ARENA_CHUNK_SIZE UINT64_C(0x40000000)  // 1 GiB: it grows by chunks

// --- Guest-virtual addresses --------------------------------------------------------------------

#define DBOS_DIRECT_MAP_BASE UINT64_C(0xffff800000000000)  // + guest-physical address
#define DBOS_VCPU_MAP_BASE UINT64_C(0xfffff00000000000)    // + index * DBOS_VCPU_STRIDE
#define DBOS_IMAGE_BASE UINT64_C(0xffffffff80000000)       // where the image is linked

// --- vCPU block ---------------------------------------------------------------------------------

#define DBOS_VCPU_STACK_OFFSET UINT64_C(0x1000)               // kernel stack, 28 KiB
#define DBOS_VCPU_STACK_TOP UINT64_C(0x8000)                  // RSP at entry
#define DBOS_VCPU_IST_STACK_OFFSET UINT64_C(0x9000)           // a stack for traps, 8 KiB
#define DBOS_VCPU_IST_STACK_TOP UINT64_C(0xb000)              // its end
#define DBOS_VCPU_DOUBLE_FAULT_STACK_OFFSET UINT64_C(0xc000)  // a stack for double faults, 4 KiB
#define DBOS_VCPU_DOUBLE_FAULT_STACK_TOP UINT64_C(0xd000)     // its end
#define DBOS_VCPU_DEBUG_STACK_OFFSET UINT64_C(0xe000)         // a stack for NMIs, 8 KiB
#define DBOS_VCPU_DEBUG_STACK_TOP UINT64_C(0x10000)           // its end
#define DBOS_VCPU_DATA_OFFSET UINT64_C(0x10000)               // the guest kernel's per-CPU data
#define DBOS_VCPU_DATA_SIZE UINT64_C(0x4000)                  // 16 KiB
#define DBOS_VCPU_HYPERCALL_OFFSET UINT64_C(0x14000)          // struct dbos_hypercall_page
#define DBOS_VCPU_COUNTERS_OFFSET UINT64_C(0x15000)           // libdbos's: what --metrics shows
#define DBOS_VCPU_COUNTERS_SIZE UINT64_C(0xb000)              // 44 KiB
#define DBOS_VCPU_BOUNCE_OFFSET UINT64_C(0x20000)             // a buffer for arguments
#define DBOS_VCPU_BOUNCE_SIZE UINT64_C(0x20000)               // 128 KiB

// --- Calls --------------------------------------------------------------------------------------

#define DBOS_HYPERCALL_PORT 0xdb  // writing any byte to this I/O port makes the calls
#define DBOS_CALL_BATCH_MAX 16    // calls with one exit
#define DBOS_SERVICE_BASE 0x1000  // below: Linux's system calls; from here on: the VMM's services
#define DBOS_SIGNAL_COUNT 64      // signals 1 to 64
#define DBOS_RESULT_INTERRUPTED (-512)  // a signal ended the call; Linux would restart it
#define DBOS_RESULT_NOT_STARTED (-513)  // a signal came first; nothing was done

struct dbos_call {
  uint32_t number;        // of the system call or service
  uint32_t flags;         // must be 0
  uint64_t arguments[6];  // pointers are guest-physical addresses
  int64_t result;         // negative: -errno or DBOS_RESULT_...
};

// A signal that the VMM took from Linux for this vCPU.
struct dbos_pending_signal {
  uint32_t number;    // 1 to 64; 0: none
  uint32_t reserved;  // 0
  uint8_t info[128];  // Linux's siginfo_t
};

struct dbos_hypercall_page {
  uint32_t abi_version;               // VMM: DBOS_ABI_VERSION
  uint32_t vcpu_index;                // VMM: of the block that this page is in
  uint32_t call_count;                // guest: how many of `calls` are to be made
  uint32_t calls_done;                // VMM: how many were made
  uint32_t process_id;                // VMM: Linux's id of the process that runs this vCPU
  uint32_t thread_id;                 // VMM: ... and of the thread
  uint32_t dying;                     // VMM: 1: the host thread is gone; release all and exit
  uint32_t park_word;                 // 0: a park sleeps; 1: a wake came
  uint64_t start_argument;            // VMM: as given to thread_create or process_fork
  uint32_t attention;                 // anybody: 1: look at what changed
  uint32_t debug;                     // VMM: what its debugger asks of libdbos; 0: nothing
  struct dbos_pending_signal signal;  // VMM: see signal_action
  struct dbos_call calls[16];         // DBOS_CALL_BATCH_MAX
  uint32_t processor;                 // VMM: where the host thread was at the last entry
  uint32_t node;                      // VMM: ... and on which NUMA node
};

// --- Services -----------------------------------------------------------------------------------

// From hypercall/services.def, by tools/gen-hypercall-abi.
enum dbos_service {
  DBOS_SERVICE_LOG = 0x1000,
  DBOS_SERVICE_PANIC = 0x1001,
  DBOS_SERVICE_ARENA_GROW = 0x1002,
  DBOS_SERVICE_MEMORY_RELEASE = 0x1003,
  DBOS_SERVICE_WINDOW_MAP = 0x1004,
  DBOS_SERVICE_WINDOW_UNMAP = 0x1005,
  DBOS_SERVICE_WINDOW_POPULATE = 0x1006,
  DBOS_SERVICE_WINDOW_CONTROL = 0x1007,
  DBOS_SERVICE_THREAD_CREATE = 0x1008,
  DBOS_SERVICE_THREAD_EXIT = 0x1009,
  DBOS_SERVICE_PROCESS_FORK = 0x100a,
  DBOS_SERVICE_EXECUTE = 0x100b,
  DBOS_SERVICE_SIGNAL_ACTION = 0x100c,
  DBOS_SERVICE_SIGNAL_MASK = 0x100d,
  DBOS_SERVICE_DIE = 0x100e,
  DBOS_SERVICE_PARK = 0x100f,
  DBOS_SERVICE_WAKE = 0x1010,
  DBOS_SERVICE_CLOCK_REFRESH = 0x1011,
  DBOS_SERVICE_YIELD = 0x1012,
  DBOS_SERVICE_EXIT = 0x1013,
  DBOS_SERVICE_WINDOW_DUPLICATE = 0x1014,
  DBOS_SERVICE_INTERRUPT = 0x1015,
  DBOS_SERVICE_ATTENTION_REGION = 0x1016,
  DBOS_SERVICE_DEBUG_STOP = 0x1017,
  DBOS_SERVICE_TRACE = 0x1018,
  DBOS_SERVICE_HELPER = 0x1019,
  DBOS_SERVICE_WINDOW_ATTACH = 0x101a,
  DBOS_SERVICE_END_FORK = 0x101b,
};

// log's severity. dbos-run --log-level shows those up to its own.
enum dbos_log_severity {
  DBOS_LOG_ERROR = 0,    // what the guest can't go on with
  DBOS_LOG_WARNING = 1,  // what a person should look at; shown without --log-level
  DBOS_LOG_INFO = 2,     // what happens
  DBOS_LOG_DEBUG = 3,    // ... in detail
};

// signal_action's disposition.
enum dbos_signal_disposition {
  DBOS_SIGNAL_DEFAULT = 0,  // Linux's default action
  DBOS_SIGNAL_IGNORE = 1,   // Linux drops it
  DBOS_SIGNAL_CATCH = 2,    // the VMM stores it in the hypercall page
};

#define DBOS_EXECUTE_LIMIT_COUNT 3   // execute's limits: RLIMIT_AS, RLIMIT_DATA, RLIMIT_STACK
#define DBOS_FORK_WAIT_FOR_EXEC 0x1  // process_fork's flags: the caller sleeps, as with vfork

#define DBOS_HELPER_AFTER_FORK 0x1  // helper's flags: not now, but when the process has forked

// The exception that brings a vCPU into its kernel. Every processor lets a hypervisor inject it
// (AMD APM volume 2, 15.20: no vector that is not an exception).
#define DBOS_ATTENTION_VECTOR 7  // #NM; keep CR0.TS and CR0.EM clear, then nothing else raises it

// --- Clock page ---------------------------------------------------------------------------------

struct dbos_clock_parameters {
  uint64_t tsc_base;           // the time stamp counter at monotonic_base_ns
  uint64_t monotonic_base_ns;  // CLOCK_MONOTONIC there
  int64_t realtime_offset_ns;  // CLOCK_REALTIME - CLOCK_MONOTONIC
  int64_t boottime_offset_ns;  // CLOCK_BOOTTIME - CLOCK_MONOTONIC
  uint64_t tsc_valid_ticks;    // beyond tsc_base + this: stale, call clock_refresh
  uint32_t multiplier;         // ns = (ticks * multiplier) >> shift, in 128 bits
  uint32_t shift;              // less than 64
};

struct dbos_clock_page {
  uint32_t abi_version;                        // DBOS_ABI_VERSION; may be 0 while `enabled` is 0
  uint32_t enabled;                            // 0: the counter can't be trusted, ask Linux
  uint64_t generation;                         // its lowest bit says which of the two is valid
  struct dbos_clock_parameters parameters[2];  // the other one may be being written
};

// --- Boot information ---------------------------------------------------------------------------

#define DBOS_LOAD_SEGMENTS_MAX 32  // segments of a program

// A segment of an ELF program, as the VMM checked it: page-aligned, in order, not overlapping.
struct dbos_load_segment {
  uint64_t address;      // as linked (relative to the base if position independent)
  uint64_t file_offset;  // page-aligned
  uint64_t file_size;    // bytes from `address` on that come from the file; 0: none
  uint64_t memory_size;  // bytes from `address` on in all; the rest is zero
  uint32_t protection;   // Linux's PROT_READ, PROT_WRITE, PROT_EXEC
  uint32_t reserved;     // 0
};

struct dbos_load_image {
  int32_t descriptor;                     // open for reading, the guest's to close; -1: no file
  uint32_t position_independent;          // 1: the guest chooses the base
  uint32_t segment_count;                 // how many of `segments` are filled
  uint32_t stack_executable;              // 1: as PT_GNU_STACK asks
  uint64_t alignment;                     // bytes, of the base; at least a page
  uint64_t entry;                         // as linked
  uint64_t program_headers;               // AT_PHDR as linked; 0: not in any segment
  uint32_t program_header_count;          // AT_PHNUM
  uint32_t program_header_size;           // AT_PHENT, bytes
  struct dbos_load_segment segments[32];  // DBOS_LOAD_SEGMENTS_MAX
};

// Offsets lead from the start of this structure to NUL-terminated strings, one behind the other.
struct dbos_boot_information {
  uint32_t abi_version;                // DBOS_ABI_VERSION
  uint32_t vcpu_count_max;             // vCPUs that there can be
  uint64_t size;                       // bytes, of this structure and the strings behind it
  uint64_t arena_size_max;             // bytes that the arena may grow to
  uint64_t kernel_tables;              // guest-physical address of the boot root page table
  uint64_t stack_size;                 // bytes: RLIMIT_STACK, clamped
  uint64_t tsc_khz;                    // of the time stamp counter; 0: unknown
  uint64_t extended_state_mask;        // XCR0 as it is set; 0: no XSAVE
  uint64_t flags;                      // DBOS_BOOT_...
  uint64_t cow_limit;                  // --cow-limit, bytes; 0: none
  uint64_t ignored_signals;            // as inherited; bit n - 1 is signal n
  uint64_t blocked_signals;            // as inherited
  uint32_t user_id;                    // AT_UID
  uint32_t effective_user_id;          // AT_EUID
  uint32_t group_id;                   // AT_GID
  uint32_t effective_group_id;         // AT_EGID
  uint32_t secure;                     // AT_SECURE
  uint32_t clock_ticks;                // AT_CLKTCK
  uint64_t hardware_capabilities;      // AT_HWCAP
  uint64_t hardware_capabilities_2;    // AT_HWCAP2
  uint8_t random[16];                  // AT_RANDOM's bytes
  uint8_t seed[16];                    // for the guest kernel's own use
  uint64_t arguments_offset;           // of the first argument
  uint64_t argument_count;             // at least 1
  uint64_t environment_offset;         // of the first NAME=VALUE
  uint64_t environment_count;          // may be 0
  uint64_t executable_path_offset;     // of the program's, or image's, absolute path
  uint64_t executable_name_offset;     // of its name as the user gave it
  struct dbos_load_image program;      // descriptor -1 without DBOS_IMAGE_LOADS_PROGRAM
  struct dbos_load_image interpreter;  // descriptor -1: none
  uint64_t features;                   // DBOS_FEATURE_... that this machine offers
  uint64_t auxiliary_begin;            // image: the program's auxiliary vector; 0: none
  uint64_t auxiliary_end;              // image: where it ends
  uint64_t ready_copies;               // --ready-copies, 0: --snapshot=shared
  uint64_t mapping_count_max;          // vm.max_map_count: of an address space
};

// What the user asked for; a runtime for which one means nothing ignores it.
#define DBOS_BOOT_NO_RANDOMIZATION UINT64_C(0x1)  // personality(ADDR_NO_RANDOMIZE)
#define DBOS_BOOT_NO_LARGE_PAGES UINT64_C(0x2)    // --no-large-pages
#define DBOS_BOOT_COW_KILL UINT64_C(0x4)          // --cow-policy kill-snapshot
#define DBOS_BOOT_OVERCOMMIT UINT64_C(0x8)        // vm.overcommit_memory is 1: refuse no size
