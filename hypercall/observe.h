// What can be seen of a running guest from outside, without stopping it and without its help:
// counters, latencies, a trace of its system calls, and where the kernel's own structures lie.
//
// The guest writes all of it but for ObserveControl, so the VMM believes none of it: each index and
// pointer is checked where it is used (vmm/observe/).
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "hypercall/abi.h"
#include "hypercall/syscall_table.h"

namespace dbos {

// ---- Latencies ----

// Bucket i counts what took less than 2^(i+1) ns and at least 2^i; the last one all that was longer
// (from 9 minutes on), the first one all below 2 ns.
struct LatencyHistogram {
  static constexpr uint32_t kBuckets = 40;
  uint64_t buckets[kBuckets];
  uint64_t total_ns;

  static constexpr uint32_t bucket_of(uint64_t ns) {
    if (ns < 2) return 0;
    const auto bit = static_cast<uint32_t>(63 - __builtin_clzll(ns));
    return bit < kBuckets ? bit : kBuckets - 1;
  }
  void add(uint64_t ns) {
    ++buckets[bucket_of(ns)];
    total_ns += ns;
  }
};

// Unless somebody looks, one call in so many is timed: reading the clock twice each time would cost
// more than a hundredth of a short exit. A prime, so that it is no multiple of a loop of calls.
inline constexpr uint32_t kSamplePeriod = 17;

// ---- Counters of a vCPU ----

enum class Counter : uint32_t {
#define DBOS_COUNTER(constant, family, label, meaning) k##constant,
#include "hypercall/counters.def"
#undef DBOS_COUNTER
  kCount,
};

inline constexpr uint32_t kCounterCount = static_cast<uint32_t>(Counter::kCount);
inline constexpr uint32_t kCallIndexCount = syscalls::kNumberMax + 2;  // the last: unknown numbers
constexpr uint32_t call_index(uint64_t number) {
  return number <= syscalls::kNumberMax ? static_cast<uint32_t>(number) : kCallIndexCount - 1;
}

// In each vCPU's block at kVcpuCountersOffset. Only its own guest kernel writes to it, which
// nothing interrupts; a reader sees each number as it was a moment ago.
struct VcpuCounters {
  static constexpr uint32_t kRows = 64;  // row 0: all calls that found no row of their own

  uint64_t calls[kCallIndexCount];   // the program's system calls
  uint64_t failed[kCallIndexCount];  // ... that answered an error
  uint64_t events[kCounterCount];
  uint64_t space_root;  // of the address space that the vCPU is in; 0: none
  uint32_t until_sample;
  uint32_t rows_used;
  uint8_t row_of_call[kCallIndexCount];  // 0: none yet
  LatencyHistogram rows[kRows];          // from the program's `syscall` to its return

  void count(Counter counter) { add(counter, 1); }
  void add(Counter counter, uint64_t amount) { events[static_cast<uint32_t>(counter)] += amount; }
  LatencyHistogram& row_for(uint32_t index) {
    if (row_of_call[index] == 0 && rows_used + 1 < kRows) {
      row_of_call[index] = static_cast<uint8_t>(++rows_used);
    }
    return rows[row_of_call[index]];
  }
};
static_assert(sizeof(VcpuCounters) <= kVcpuCountersSize);

// Guest-physical address of the counters of vCPU `index`.
constexpr uint64_t vcpu_counters_address(uint32_t index) {
  return vcpu_block(index) + kVcpuCountersOffset;
}

// ---- Trace ----

// A system call of the program, or a fault of its that became a signal.
struct TraceEvent {
  static constexpr uint32_t kPayloadMax = 128;
  static constexpr uint8_t kNoPayload = 0xff;

  uint64_t begin_ticks;  // TSC
  uint64_t end_ticks;
  uint32_t process_id;
  uint32_t thread_id;
  uint64_t space_root;
  uint32_t number;
  uint32_t flags;  // TraceFlags
  uint64_t arguments[6];
  int64_t result;  // of a fault: the signal
  // What the arguments pointed to: for each the number of bytes in `payload`, one after the other;
  // kNoPayload: nothing was captured.
  uint8_t payload_size[6];
  uint8_t reserved[2];
  uint8_t payload[kPayloadMax];
};
static_assert(sizeof(TraceEvent) == 232);

enum TraceFlags : uint32_t {
  kTraceNoResult = 1 << 0,  // the call does not return: exit, execve
  kTraceFault = 1 << 1,     // arguments: vector, address, instruction
};

// One per vCPU, in the trace region. Its guest kernel adds events, the VMM takes them away. What
// finds no place is counted and lost; the program never waits.
struct TraceRing {
  static constexpr uint32_t kEvents = 1024;
  alignas(64) std::atomic<uint64_t> written;  // events ever added
  std::atomic<uint64_t> lost;
  alignas(64) std::atomic<uint64_t> taken;  // by the VMM
  alignas(64) TraceEvent events[kEvents];

  // The place of the next event; null: none is free.
  TraceEvent* reserve() {
    const uint64_t at = written.load(std::memory_order_relaxed);
    if (at - taken.load(std::memory_order_acquire) >= kEvents) {
      lost.store(lost.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
      return nullptr;
    }
    return &events[at % kEvents];
  }
  void commit() {
    written.store(written.load(std::memory_order_relaxed) + 1, std::memory_order_release);
  }
};
static_assert(sizeof(TraceRing) <= kTraceStride);

// Guest-physical address of the ring of vCPU `index`.
constexpr uint64_t trace_ring_address(uint32_t index) {
  return kTraceRegionBase + index * kTraceStride;
}

// ---- What the VMM asks for ----

enum ObserveFlags : uint32_t {
  kObserveTimeAll = 1 << 0,  // time each call, not one in kSamplePeriod
  kObserveTrace = 1 << 1,    // the trace region is there: put the calls of `traced` in the rings
  kObserveReport = 1 << 2,   // ... and say so with Service::kTrace at once (dbos-run --trace)
};

struct ObserveControl {
  std::atomic<uint32_t> flags;
  uint32_t ns_multiplier;           // ns = (ticks * ns_multiplier) >> 24; 0: unknown
  std::atomic<uint64_t> traced[8];  // a bit for each call number

  bool is_chosen(uint64_t number) const {
    if (number > syscalls::kNumberMax) return true;
    return (traced[number / 64].load(std::memory_order_relaxed) >> number % 64 & 1) != 0;
  }
};
static_assert(syscalls::kNumberMax < 8 * 64);

constexpr uint64_t ns_of(uint64_t ticks, uint32_t multiplier) {
  return static_cast<uint64_t>((static_cast<unsigned __int128>(ticks) * multiplier) >> 24);
}

// What every system call of the program pays for being watched: while nobody looks two counts, a
// look at the flags, and the clock in one call of kSamplePeriod. dbos-bench measures just this.
struct WatchedCall {
  uint32_t index;  // call_index()
  bool is_timed;
  bool is_traced;
  uint64_t begin_ticks;  // if it is timed or traced
};

inline WatchedCall begin_watch(VcpuCounters& counters, const ObserveControl& control,
                               uint64_t number) {
  WatchedCall call{call_index(number), false, false, 0};
  ++counters.calls[call.index];
  const uint32_t flags = control.flags.load(std::memory_order_relaxed);
  call.is_timed = (flags & kObserveTimeAll) != 0;
  if (counters.until_sample-- == 0) {
    counters.until_sample = kSamplePeriod - 1;
    call.is_timed = true;
  }
  call.is_traced = (flags & kObserveTrace) != 0 && control.is_chosen(number);
  if (call.is_timed || call.is_traced) call.begin_ticks = __builtin_ia32_rdtsc();
  return call;
}

inline void end_watch(VcpuCounters& counters, const ObserveControl& control,
                      const WatchedCall& call, int64_t result) {
  if (is_errno(result)) ++counters.failed[call.index];
  if (!call.is_timed) return;
  const uint64_t end = __builtin_ia32_rdtsc();
  const uint64_t passed = end > call.begin_ticks ? end - call.begin_ticks : 0;
  counters.row_for(call.index).add(ns_of(passed, control.ns_multiplier));
}

// ---- Where the guest kernel's structures lie ----

// The sum of `count` signed 64-bit numbers, `stride` bytes apart. Addresses here and in the guest's
// lists are those of the guest kernel: its image, or the direct map.
struct Gauge {
  uint64_t address;
  uint32_t stride;
  uint32_t count;
};

enum class GaugeName : uint32_t {
  kFramesTotal,   // usable frames of the arena so far
  kFramesPages,   // programs' memory; a 2 MiB page counts 512
  kFramesNodes,   // page tables
  kFramesKernel,  // heap and buffers
  kRetiredPages,  // of the pages and nodes: kept for snapshots only
  kRetiredNodes,
  kEpoch,
  kSnapshotsTaken,
  kCount,
};

enum class VmaKind : uint8_t {
  kAnonymous,      // private, zero at first
  kWindowPrivate,  // a file's page until it is written, then a copy
  kWindowShared,   // the file, or shared memory
};

// What /proc/self/maps calls memory that has no file.
enum class VmaName : uint8_t { kNone, kHeap, kStack, kVdso, kVvar };

// Of kNone, and of what the guest says and is none of these: empty.
constexpr const char* text_of(VmaName name) {
  switch (name) {
    case VmaName::kHeap:
      return "[heap]";
    case VmaName::kStack:
      return "[stack]";
    case VmaName::kVdso:
      return "[vdso]";
    case VmaName::kVvar:
      return "[vvar]";
    case VmaName::kNone:
      break;
  }
  return "";
}

// Offsets in bytes, of fields of 8 bytes unless a width is given. Lists are linked by pointers, 0
// ends them.
struct KernelView {
  uint32_t version;  // kKernelViewVersion as soon as the rest is valid
  uint32_t reserved;
  Gauge gauges[static_cast<uint32_t>(GaugeName::kCount)];
  Gauge& gauge(GaugeName name) { return gauges[static_cast<uint32_t>(name)]; }

  uint64_t spaces;  // address of the pointer to the first address space
  struct Space {
    uint32_t next, line, root, first_vma;
    uint32_t pages, nodes;  // PageTree's counts
    uint32_t copied_pages;
    uint32_t is_copy;  // uint8_t
  } space;
  struct Line {
    uint32_t id;  // uint32_t
    uint32_t parent, departure, taken_ticks, parent_copied_pages, retired_pages, retired_nodes;
  } line;
  struct Vma {
    uint32_t next, begin, end, window, window_offset;
    uint32_t protection;  // uint8_t: PROT_...
    uint32_t kind;        // VmaKind
    uint32_t name;        // VmaName
  } vma;
  struct Window {
    uint32_t path;  // char[256]
    uint32_t file_offset;
  } window;
};
inline constexpr uint32_t kKernelViewVersion = 3;

inline constexpr uint64_t kKernelViewAddress = DBOS_OBSERVE_PAGE_ADDRESS;
inline constexpr uint64_t kObserveControlAddress = DBOS_OBSERVE_PAGE_ADDRESS + 0x800;
static_assert(sizeof(KernelView) <= 0x800 && sizeof(ObserveControl) <= 0x800);

}  // namespace dbos
