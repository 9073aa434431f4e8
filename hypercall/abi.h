// The hypercall ABI: what the guest kernel and the VMM share, and all that they share.
//
// A vCPU makes calls by filling `HypercallPage::calls`, setting `call_count`, and writing any byte
// to I/O port kHypercallPort. The VMM performs the calls in order and stores each result; it stops
// early at the first call that a signal interrupted (is_interrupted) and sets `calls_done`.
//
// Numbers below kServiceBase are Linux x86-64 system calls; the arguments are Linux's, with every
// pointer replaced by a guest-physical address. The table in hypercall/syscalls.def says which
// calls are accepted and what each argument is. Numbers from kServiceBase on are services of the
// VMM (hypercall/services.def). A negative result is -errno.
#pragma once

#include <cstddef>
#include <cstdint>

#include "hypercall/layout.h"

namespace dbos {

inline constexpr uint32_t kAbiVersion = 1;
inline constexpr uint16_t kHypercallPort = 0xdb;
inline constexpr uint32_t kCallBatchMax = 16;
inline constexpr uint32_t kSignalCount = 64;
inline constexpr uint32_t kServiceBase = 0x1000;

// Results of a call that a signal ended; never seen by a program. (Linux uses the same numbers for
// the same things: ERESTARTSYS and ERESTARTNOINTR.)
//   kInterrupted  Linux would restart the call after a handler with SA_RESTART: the guest restarts
//   it
//                 or answers EINTR, as the handler says.
//   kNotStarted   the signal came first, nothing was done: the guest runs the handler, then the
//   call.
// EINTR itself means that Linux does not restart the call.
inline constexpr int64_t kInterrupted = -512;
inline constexpr int64_t kNotStarted = -513;
constexpr bool is_interrupted(int64_t result) {
  return result == kInterrupted || result == kNotStarted;
}

enum class Service : uint32_t {
#define DBOS_SERVICE(number, name, constant, arguments, meaning) k##constant = (number),
#include "hypercall/services.def"
#undef DBOS_SERVICE
};

enum class SignalDisposition : uint32_t { kDefault, kIgnore, kCatch };

// Flag of Service::kProcessFork: the caller sleeps until the child has executed or ended (vfork).
inline constexpr uint64_t kForkWaitForExec = 1;

struct Call {
  uint32_t number;
  uint32_t flags;  // must be 0
  uint64_t arguments[6];
  int64_t result;
};
static_assert(sizeof(Call) == 64);

// A signal that the VMM took from Linux for the program's thread on this vCPU. While `number` is
// not zero, Linux's signal mask of the host thread is full; the guest kernel clears `number` and
// then sets the mask that the handler runs with (Service::kSignalMask).
struct PendingSignal {
  uint32_t number;  // 1..64; 0: none
  uint32_t reserved;
  uint8_t info[128];  // Linux's siginfo_t
};

struct HypercallPage {
  uint32_t abi_version;
  uint32_t vcpu_index;
  uint32_t call_count;  // guest: how many of `calls` are to be made
  uint32_t calls_done;  // VMM: how many were made
  uint32_t process_id;  // VMM: the host's ids of the process and thread that run this vCPU
  uint32_t thread_id;
  uint32_t dying;           // VMM: the host thread is gone; release what this vCPU holds and exit
  uint32_t park_word;       // 0: a park sleeps; 1: a wake came. Linux futex, see Service::kPark
  uint64_t start_argument;  // the argument of Service::kThreadCreate, for the new vCPU
  uint32_t attention;       // anybody: look at what changed before the program runs on
  uint32_t reserved;
  PendingSignal signal;
  Call calls[kCallBatchMax];
};
static_assert(sizeof(HypercallPage) <= kPageSize);

// The clock page: how the guest reads time without an exit. Written by the VMM, read by the vDSO.
// Two copies: `generation` selects the one at (generation & 1); the writer fills the other one and
// then increments. A reader that sees `generation` change while it read starts again.
struct ClockParameters {
  uint64_t tsc_base;
  uint64_t monotonic_base_ns;
  int64_t realtime_offset_ns;  // CLOCK_REALTIME = CLOCK_MONOTONIC + this
  int64_t boottime_offset_ns;
  uint64_t tsc_valid_ticks;  // after that many ticks the parameters are stale: ask Linux
  uint32_t multiplier;       // ns = (ticks * multiplier) >> shift, ticks and product in 128 bits
  uint32_t shift;
};
struct ClockPage {
  uint32_t abi_version;
  uint32_t enabled;  // 0: the TSC can't be trusted, ask Linux
  uint64_t generation;
  ClockParameters parameters[2];
};
static_assert(sizeof(ClockPage) <= kPageSize);

// One segment of an ELF image, as the loader checked it: page-aligned, in order, not overlapping.
struct LoadSegment {
  uint64_t address;      // as linked (relative to the image's base for ET_DYN), page-aligned
  uint64_t file_offset;  // page-aligned
  uint64_t file_size;    // bytes from `address` that come from the file; 0: none
  uint64_t memory_size;  // bytes from `address` in all; the rest is zero
  uint32_t protection;   // PROT_READ | PROT_WRITE | PROT_EXEC
  uint32_t reserved;
};

inline constexpr uint32_t kLoadSegmentsMax = 32;

struct LoadImage {
  int32_t descriptor;  // open for reading; the guest closes it after mapping. -1: no such image
  uint32_t position_independent;
  uint32_t segment_count;
  uint32_t stack_executable;
  uint64_t alignment;        // of the base, at least a page
  uint64_t entry;            // as linked
  uint64_t program_headers;  // AT_PHDR as linked; 0: not in any segment
  uint32_t program_header_count;
  uint32_t program_header_size;
  LoadSegment segments[kLoadSegmentsMax];
};

struct BootInformation {
  uint32_t abi_version;
  uint32_t vcpu_count_max;
  uint64_t size;            // of this structure and the strings behind it
  uint64_t arena_size_max;  // bytes that the arena may grow to
  uint64_t kernel_tables;   // guest-physical address of the boot root page table
  uint64_t stack_size;      // RLIMIT_STACK, clamped
  uint64_t tsc_khz;
  uint64_t extended_state_mask;  // XCR0 to set; 0: no XSAVE, use FXSAVE
  uint64_t flags;                // BootFlags
  uint64_t cow_limit;            // bytes; 0: none
  uint64_t ignored_signals;      // as inherited; bit n - 1 is signal n
  uint64_t blocked_signals;
  uint32_t user_id, effective_user_id, group_id, effective_group_id;
  uint32_t secure;                   // AT_SECURE
  uint32_t clock_ticks;              // AT_CLKTCK
  uint64_t hardware_capabilities;    // AT_HWCAP
  uint64_t hardware_capabilities_2;  // AT_HWCAP2
  uint8_t random[16];                // AT_RANDOM's bytes
  uint8_t seed[16];                  // for address space randomization
  // Offsets from the start of this structure to NUL-terminated strings, one behind the other.
  uint64_t arguments_offset;
  uint64_t argument_count;
  uint64_t environment_offset;
  uint64_t environment_count;
  uint64_t executable_path_offset;  // absolute, links resolved: /proc/self/exe
  uint64_t executable_name_offset;  // as the user gave it: AT_EXECFN
  LoadImage program;
  LoadImage interpreter;
};

enum BootFlags : uint64_t {
  kBootNoRandomization = 1 << 0,  // personality(ADDR_NO_RANDOMIZE)
  kBootTraceCalls = 1 << 1,       // print each system call of the program
  kBootNoLargePages = 1 << 2,
  kBootStatistics = 1 << 3,  // print counters at exit
  kBootSelfTest = 1 << 4,
};

// Where the boot information and the clock page lie in the kernel region.
inline constexpr uint64_t kClockPageAddress = kKernelRegionBase;
inline constexpr uint64_t kStatisticsAddress = kKernelRegionBase + 0x1000;  // guest's counters
inline constexpr uint64_t kBootInformationAddress = kKernelRegionBase + 0x2000;
inline constexpr uint64_t kBootInformationSizeMax = 4 * kMiB - 0x2000;
inline constexpr uint64_t kKernelImageAddress = kKernelRegionBase + 4 * kMiB;
inline constexpr uint64_t kKernelImageSizeMax = 4 * kMiB;
inline constexpr uint64_t kKernelTablesAddress = kKernelRegionBase + 8 * kMiB;
inline constexpr uint64_t kKernelTablesSizeMax = 8 * kMiB;

// Attention: how a vCPU that runs the program is brought into its kernel. There are no interrupts.
// Whoever wants it sets HypercallPage::attention; the VMM does so for a signal, another vCPU before
// it calls Service::kInterrupt. Then the VMM takes the vCPU out of KVM_RUN and, before it goes on,
//   - in the program (below kKernelImageBase), raises this exception: AMD's "hypervisor injection",
//     which no processor raises by itself (APM volume 2, 8.2.23);
//   - in the region of Service::kAttentionRegion, whose code has looked already and is about to
//     return to the program, moves it to the region's restart address, with the kernel stack empty;
//   - elsewhere in the kernel does nothing: the kernel looks before it returns.
inline constexpr uint8_t kAttentionVector = 28;

}  // namespace dbos
