// The hypercall ABI under its C++ names: what any guest kernel and the VMM share. Every number and
// structure comes from dbos/hypercall.h, the header for other runtimes. What the VMM shares with
// libdbos alone, in places that the ABI keeps for it, is in hypercall/observe.h and
// hypercall/debug.h.
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
#include "include/dbos/hypercall.h"

namespace dbos {

inline constexpr uint32_t kAbiVersion = DBOS_ABI_VERSION;
inline constexpr uint16_t kHypercallPort = DBOS_HYPERCALL_PORT;
inline constexpr uint32_t kCallBatchMax = DBOS_CALL_BATCH_MAX;
inline constexpr uint32_t kSignalCount = DBOS_SIGNAL_COUNT;
inline constexpr uint32_t kServiceBase = DBOS_SERVICE_BASE;

// BootInformation::features, and what an image's note asks for.
inline constexpr uint64_t kFeatureClock = DBOS_FEATURE_CLOCK;
inline constexpr uint64_t kFeatureXsave = DBOS_FEATURE_XSAVE;

// Results of a call that a signal ended; never seen by a program. (Linux uses the same numbers for
// the same things: ERESTARTSYS and ERESTARTNOINTR.)
//   kInterrupted  Linux would restart the call after a handler with SA_RESTART: the guest restarts
//                 it or answers EINTR, as the handler says.
//   kNotStarted   the signal came first, nothing was done: the guest runs the handler, then the
//                 call.
// EINTR itself means that Linux does not restart the call.
inline constexpr int64_t kInterrupted = DBOS_RESULT_INTERRUPTED;
inline constexpr int64_t kNotStarted = DBOS_RESULT_NOT_STARTED;
constexpr bool is_interrupted(int64_t result) {
  return result == kInterrupted || result == kNotStarted;
}
// Whether it is -errno, rather than a large number or an address.
constexpr bool is_errno(int64_t result) {
  return result < 0 && result > -4096;
}

enum class Service : uint32_t {
#define DBOS_SERVICE(number, name, constant, ...) k##constant = (number),
#include "hypercall/services.def"
#undef DBOS_SERVICE
};

inline constexpr Service kServices[] = {
#define DBOS_SERVICE(number, name, constant, ...) Service::k##constant,
#include "hypercall/services.def"
#undef DBOS_SERVICE
};
inline constexpr uint32_t kServiceCount = sizeof kServices / sizeof kServices[0];
// By number, with none left out.
static_assert(static_cast<uint32_t>(kServices[kServiceCount - 1]) ==
              kServiceBase + kServiceCount - 1);

enum class LogSeverity : uint32_t {
  kError = DBOS_LOG_ERROR,
  kWarning = DBOS_LOG_WARNING,
  kInfo = DBOS_LOG_INFO,
  kDebug = DBOS_LOG_DEBUG,
};

enum class SignalDisposition : uint32_t {
  kDefault = DBOS_SIGNAL_DEFAULT,
  kIgnore = DBOS_SIGNAL_IGNORE,
  kCatch = DBOS_SIGNAL_CATCH,
};

// How many limits Service::kExecute takes.
inline constexpr uint32_t kExecuteLimitCount = DBOS_EXECUTE_LIMIT_COUNT;

// Flag of Service::kProcessFork: the caller sleeps until the child has executed or ended (vfork).
inline constexpr uint64_t kForkWaitForExec = DBOS_FORK_WAIT_FOR_EXEC;

using Call = ::dbos_call;
static_assert(sizeof(Call) == 64);

constexpr bool is(uint32_t number, Service service) {
  return number == static_cast<uint32_t>(service);
}
constexpr bool is(const Call& call, Service service) {
  return is(call.number, service);
}

// A signal's bit in a mask of Linux's.
constexpr uint64_t signal_bit(uint32_t signal) {
  return uint64_t{1} << (signal - 1);
}

// While `number` is not zero, Linux's signal mask of the host thread is full; the guest kernel
// clears `number` and then sets the mask that the handler runs with (Service::kSignalMask).
using PendingSignal = ::dbos_pending_signal;

using HypercallPage = ::dbos_hypercall_page;
static_assert(sizeof(HypercallPage) <= kPageSize);
static_assert(sizeof(HypercallPage::calls) == kCallBatchMax * sizeof(Call));

// The clock page: how the guest reads time without an exit. Written by the VMM, read by the vDSO.
// Two copies: `generation` selects the one at (generation & 1); the writer fills the other one and
// then increments. A reader that sees `generation` change while it read starts again.
using ClockParameters = ::dbos_clock_parameters;
using ClockPage = ::dbos_clock_page;
static_assert(sizeof(ClockPage) <= kPageSize);

// One segment of an ELF image, as the loader checked it: page-aligned, in order, not overlapping.
using LoadSegment = ::dbos_load_segment;
inline constexpr uint32_t kLoadSegmentsMax = DBOS_LOAD_SEGMENTS_MAX;
using LoadImage = ::dbos_load_image;
static_assert(sizeof(LoadImage::segments) == kLoadSegmentsMax * sizeof(LoadSegment));
using BootInformation = ::dbos_boot_information;

// BootInformation::flags.
inline constexpr uint64_t kBootNoRandomization = DBOS_BOOT_NO_RANDOMIZATION;
inline constexpr uint64_t kBootOvercommit = DBOS_BOOT_OVERCOMMIT;
inline constexpr uint64_t kBootNoLargePages = DBOS_BOOT_NO_LARGE_PAGES;

// Of BootInformation::ready_copies.
inline constexpr uint32_t kReadyCopiesMax = 8;

// Where the boot information and the clock page lie in the kernel region.
inline constexpr uint64_t kClockPageAddress = DBOS_CLOCK_PAGE_ADDRESS;
inline constexpr uint64_t kBootInformationAddress = DBOS_BOOT_INFORMATION_ADDRESS;
inline constexpr uint64_t kBootInformationSizeMax = DBOS_BOOT_INFORMATION_SIZE_MAX;
inline constexpr uint64_t kKernelImageAddress = DBOS_IMAGE_ADDRESS;
inline constexpr uint64_t kKernelImageSizeMax = DBOS_IMAGE_SIZE_MAX;
inline constexpr uint64_t kKernelTablesAddress = DBOS_TABLES_ADDRESS;
inline constexpr uint64_t kKernelTablesSizeMax = DBOS_TABLES_SIZE_MAX;
inline constexpr uint64_t kRingCheckAddress = DBOS_RING_CHECK_ADDRESS;
static_assert(kKernelImageAddress + kKernelImageSizeMax == kRingCheckAddress);
static_assert(kRingCheckAddress + kPageSize == kKernelTablesAddress);

// Attention: how a vCPU that runs the program is brought into its kernel. There are no interrupts.
// Whoever wants it sets HypercallPage::attention; the VMM does so for a signal, another vCPU before
// it calls Service::kInterrupt. Then the VMM takes the vCPU out of KVM_RUN and, before it goes on,
//   - in the program (below kKernelImageBase), raises this exception: #NM, which nothing else
//     raises while CR0.TS and CR0.EM are clear;
//   - in the region of Service::kAttentionRegion, whose code has looked already and is about to
//     return to the program, moves it to the region's restart address, with the kernel stack empty;
//   - elsewhere in the kernel does nothing: the kernel looks before it returns.
inline constexpr uint8_t kAttentionVector = DBOS_ATTENTION_VECTOR;

// The others that the VMM raises, by the processor's numbers: where the program has used an
// instruction that ring 3 refuses; where a page of a file mapping is no more (the file was cut).
inline constexpr uint8_t kGeneralProtectionVector = 13;
inline constexpr uint8_t kMachineCheckVector = 18;

}  // namespace dbos
