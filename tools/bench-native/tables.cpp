// The engine's page tables, from 1 GiB up.

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <ctime>
#include <numeric>
#include <random>
#include <stdexcept>

#include "guest/memory/address_space.h"
#include "guest/memory/frame_allocator.h"
#include "tests/unit/host_platform.h"
#include "tools/bench-native/measures.h"

namespace dbos::bench {
namespace {

constexpr VirtualAddress kBase{64 * kGiB};
// The part whose frames are real memory, which faults are measured on.
constexpr u64 kRealPages = 64 * kMiB / kPageSize;
// More than the caches hold.
constexpr u64 kOtherWork = 64 * kMiB;
// Page tables for one step of refill().
constexpr u32 kSlice = 64;

double time_of(clockid_t clock) {
  timespec time;
  clock_gettime(clock, &time);
  return static_cast<double>(time.tv_sec) * 1e9 + static_cast<double>(time.tv_nsec);
}

template <typename T>
T must(Result<T> result, const char* what) {
  if (result.is_error()) {
    throw std::runtime_error(std::string(what) + ": " + std::strerror(result.error().code()));
  }
  if constexpr (!std::is_void_v<T>) return result.value();
}

VirtualAddress page(u64 index) {
  return kBase + index * kPageSize;
}

// What memcpy is measured with: memory of the host in the same 4 KiB pages that tables lie in, all
// of it touched.
class Buffers {
 public:
  explicit Buffers(u64 bytes) : bytes_(bytes), from_(map(bytes)), to_(map(bytes)) {}
  Buffers(const Buffers&) = delete;
  Buffers& operator=(const Buffers&) = delete;
  ~Buffers() {
    munmap(from_, bytes_);
    munmap(to_, bytes_);
  }
  void copy() {
    std::memcpy(to_, from_, bytes_);
    asm volatile("" : : : "memory");
  }

 private:
  static void* map(u64 bytes) {
    void* at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) throw std::runtime_error("no memory for memcpy's buffers");
    madvise(at, bytes, MADV_HUGEPAGE);
    std::memset(at, 1, bytes);
    return at;
  }

  u64 bytes_;
  void* from_;
  void* to_;
};

class Tables {
 public:
  Tables() {
    const PhysicalAddress root = must(frame_allocator.allocate_kernel(0), "allocation");
    clear_memory(root, kPageSize);
    main_ = must(AddressSpace::create(root), "an address space");
  }
  Tables(const Tables&) = delete;
  Tables& operator=(const Tables&) = delete;
  ~Tables() { AddressSpace::destroy(main_); }

  void grow_to(u64 gib) {
    const u64 end = gib * kGiB / kPageSize;
    // MAP_STACK: 4 KiB pages.
    must(main_->map_anonymous(page(mapped_), (end - mapped_) * kPageSize, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_STACK),
         "mmap");
    for (; mapped_ < end; ++mapped_) write(mapped_);
  }

  SizeResult measure_size(u64 gib, int rounds) {
    grow_to(gib);
    SizeResult result;
    result.gib = gib;
    result.table_bytes = main_->statistics().table_bytes;
    result.shared_us = snapshots(40 * rounds);
    measure_ready(rounds, result);
    return result;
  }

  // Copy-on-write faults, for pages of the real part in this order. `before`: pages that are
  // written first and not counted.
  FaultResult measure_faults(const char* what, const std::vector<u64>& order,
                             const std::vector<u64>& before, u32 ready_copies, int rounds) {
    std::vector<double> samples;
    for (int round = 0; round <= rounds; ++round) {
      keep_ready(ready_copies);
      AddressSpace* snapshot = must(main_->snapshot(), "a snapshot");
      for (u64 index : before) write(index);
      const double begin = processor_ns();
      for (u64 index : order) write(index);
      const double each = (processor_ns() - begin) / static_cast<double>(order.size());
      if (round != 0) samples.push_back(each);  // the first one touches fresh host memory
      AddressSpace::destroy(snapshot);
    }
    keep_ready(0);
    return {what, Samples(std::move(samples))};
  }

 private:
  void write(u64 index) {
    if (main_->handle_fault(page(index), Access::kWrite) != FaultKind::kResolved) {
      throw std::runtime_error("a page fault was not resolved; is there enough memory?");
    }
  }

  void keep_ready(u32 copies) {
    must(main_->keep_ready(copies), "ready copies");
    while (main_->refill(kSlice)) {
    }
  }

  // Each round makes a copy, which is handed over to a snapshot that ends.
  void measure_ready(int rounds, SizeResult& result) {
    std::vector<double> copy;
    std::vector<double> copied;
    std::vector<double> in_step;
    std::vector<double> noted;
    Buffers buffers(result.table_bytes);
    Buffers other(kOtherWork);
    for (int round = 0; round < 2 * rounds; ++round) {
      must(main_->keep_ready(1), "ready copies");
      const double begin = processor_ns();
      while (main_->refill(kSlice)) {
      }
      const double made = processor_ns();
      buffers.copy();
      const double end = processor_ns();
      if (round != 0) {  // the first one touches fresh host memory
        copy.push_back((made - begin) / 1e6);
        copied.push_back((end - made) / 1e6);
      }
      // Whatever the size, the request comes when other work has filled the caches.
      other.copy();
      const bool is_noted = round % 2 != 0;
      if (is_noted) change_tables();
      const u64 before = main_->ready_counts().handed_over;
      const double asked = wall_ns();
      const Result<AddressSpace*> snapshot = main_->snapshot();
      (is_noted ? noted : in_step).push_back((wall_ns() - asked) / 1e3);
      AddressSpace* child = must(snapshot, "a snapshot");
      if (main_->ready_counts().handed_over != before + 1) {
        throw std::runtime_error("no ready copy was handed over");
      }
      write(static_cast<u64>(round) % kRealPages);
      AddressSpace::destroy(child);
    }
    keep_ready(0);
    result.copy_ms = Samples(std::move(copy));
    result.memcpy_ms = Samples(std::move(copied));
    result.ready_us = Samples(std::move(in_step));
    result.noted_us = Samples(std::move(noted));
  }

  // Changes pages all over the tables, more than can be noted: they are unmapped and written again.
  void change_tables() {
    std::uniform_int_distribution<u64> any(kRealPages, mapped_ - 1);
    for (u64 i = 0; i < 8 * ReadyTables::kPieces; ++i) {
      const u64 index = any(random_);
      must(main_->advise(page(index), kPageSize, MADV_DONTNEED), "madvise");
      write(index);
    }
  }

  // Each with a write after it, so that the next one finds something to protect.
  Samples snapshots(int count) {
    std::vector<double> samples;
    for (int i = 0; i < count; ++i) {
      const double begin = wall_ns();
      const Result<AddressSpace*> snapshot = main_->snapshot();
      const double end = wall_ns();
      samples.push_back((end - begin) / 1e3);
      AddressSpace* child = must(snapshot, "a snapshot");
      write(static_cast<u64>(i) % kRealPages);
      AddressSpace::destroy(child);
    }
    return Samples(std::move(samples));
  }

  AddressSpace* main_ = nullptr;
  u64 mapped_ = 0;
  std::mt19937_64 random_{1};
};

std::vector<u64> in_order() {
  std::vector<u64> order(kRealPages);
  std::iota(order.begin(), order.end(), 0);
  return order;
}

// One page of each table.
std::vector<u64> one_of_each(u64 which) {
  std::vector<u64> order;
  for (u64 table = 0; table < kRealPages / kEntriesPerNode; ++table) {
    order.push_back(table * kEntriesPerNode + which);
  }
  std::shuffle(order.begin(), order.end(), std::mt19937(2));
  return order;
}

std::vector<u64> in_random_order() {
  std::vector<u64> order = in_order();
  std::shuffle(order.begin(), order.end(), std::mt19937(1));
  return order;
}

}  // namespace

double wall_ns() {
  return time_of(CLOCK_MONOTONIC);
}
double processor_ns() {
  return time_of(CLOCK_THREAD_CPUTIME_ID);
}

TablesResult measure_tables(const TablesOptions& options) {
  // Beside the pages themselves: their tables, and as much for what is copied.
  const u64 arena = (options.gib_max + 8) * kGiB;
  host::start(arena);
  // As the VMM does.
  madvise(platform::direct_map(PhysicalAddress(kArenaBase)), arena, MADV_HUGEPAGE);
  host::set_vcpu(0);
  must(memory_initialize(), "starting the engine");
  TablesResult result;
  Tables tables;
  for (u64 gib = 1; gib <= options.gib_max; gib *= 2) {
    result.sizes.push_back(tables.measure_size(gib, options.rounds));
    if (gib != 1) continue;
    const auto measure = [&](const char* what, const std::vector<u64>& order, u32 ready) {
      result.faults.push_back(tables.measure_faults(what, order, {}, ready, options.rounds));
    };
    // What there is to be gained by opening tables ahead of main: the second without the first.
    const auto measure_table = [&](const char* what, const std::vector<u64>& order,
                                   const std::vector<u64>& before, u32 ready) {
      result.faults.push_back(
          tables.measure_faults(what, order, before, ready, 20 * options.rounds));
    };
    measure("in order, shared", in_order(), 0);
    measure("at random, shared", in_random_order(), 0);
    measure("in order, ready", in_order(), 1);
    measure("at random, ready", in_random_order(), 1);
    measure("at random, ready, 2 more are kept", in_random_order(), 3);
    measure_table("the first in a table, shared", one_of_each(7), {}, 0);
    measure_table("the second in a table, shared", one_of_each(8), one_of_each(7), 0);
    measure_table("the first in a table, ready", one_of_each(7), {}, 1);
    measure_table("the second in a table, ready", one_of_each(8), one_of_each(7), 1);
  }
  return result;
}

}  // namespace dbos::bench
