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
    return result;
  }

  // Copy-on-write faults, for all pages of the real part in this order.
  FaultResult measure_faults(const char* what, const std::vector<u64>& order, int rounds) {
    std::vector<double> samples;
    for (int round = 0; round <= rounds; ++round) {
      AddressSpace* snapshot = must(main_->snapshot(), "a snapshot");
      const double begin = processor_ns();
      for (u64 index : order) write(index);
      const double each = (processor_ns() - begin) / static_cast<double>(order.size());
      if (round != 0) samples.push_back(each);  // the first one touches fresh host memory
      AddressSpace::destroy(snapshot);
    }
    return {what, Samples(std::move(samples))};
  }

 private:
  void write(u64 index) {
    if (main_->handle_fault(page(index), Access::kWrite) != FaultKind::kResolved) {
      throw std::runtime_error("a page fault was not resolved; is there enough memory?");
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
};

std::vector<u64> in_order() {
  std::vector<u64> order(kRealPages);
  std::iota(order.begin(), order.end(), 0);
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
  host::start((options.gib_max + 8) * kGiB);
  host::set_vcpu(0);
  must(memory_initialize(), "starting the engine");
  TablesResult result;
  Tables tables;
  for (u64 gib = 1; gib <= options.gib_max; gib *= 2) {
    result.sizes.push_back(tables.measure_size(gib, options.rounds));
    if (gib != 1) continue;
    result.faults.push_back(tables.measure_faults("in order, shared", in_order(), options.rounds));
    result.faults.push_back(
        tables.measure_faults("at random, shared", in_random_order(), options.rounds));
  }
  return result;
}

}  // namespace dbos::bench
