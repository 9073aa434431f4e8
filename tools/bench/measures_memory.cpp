// Threads, processes and first writes to memory.
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <thread>
#include <vector>

#include "tools/bench/measures.h"

namespace dbos::bench {
namespace {

constexpr size_t kPage = 4096;
constexpr size_t kLargePage = 2u << 20;
constexpr size_t kMiB = 1u << 20;

enum class Pages { kSmall, kLarge };

// Anonymous memory that nothing has touched, aligned to a large page.
class Memory {
 public:
  Memory(size_t size, Pages pages) : reserved_(size + kLargePage) {
    base_ = mmap(nullptr, reserved_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base_ == MAP_FAILED) throw std::runtime_error("mmap failed");
    const auto address = reinterpret_cast<uintptr_t>(base_);
    const uintptr_t aligned = (address + kLargePage - 1) / kLargePage * kLargePage;
    data_ = static_cast<volatile char*>(base_) + (aligned - address);
    if (madvise(base_, reserved_, pages == Pages::kSmall ? MADV_NOHUGEPAGE : MADV_HUGEPAGE) != 0) {
      throw std::runtime_error("madvise refused the page size");
    }
  }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  ~Memory() { munmap(base_, reserved_); }

  void write(size_t offset, size_t size) {
    for (size_t at = offset; at < offset + size; at += kPage) data_[at] = 1;
  }

 private:
  size_t reserved_;
  void* base_;
  volatile char* data_;
};

Samples write_all(size_t size, size_t batch, Pages pages) {
  Memory memory(size, pages);
  std::vector<double> values;
  for (size_t offset = 0; offset < size; offset += batch) {
    const double taken = time_ns([&] { memory.write(offset, batch); });
    values.push_back(taken / static_cast<double>(batch / kPage));
  }
  return Samples(std::move(values));
}

// `first` is the memory that the process starts with, `samples` memory that was used and given
// back before: on Linux the former may cost the machine's own first touch, if it is virtual.
Measured measure_first_write(size_t size, size_t batch, Pages pages) {
  Measured measured;
  measured.first = write_all(size, batch, pages);
  measured.samples = write_all(size, batch, pages);
  return measured;
}

pid_t fork_that_exits() {
  const pid_t child = fork();
  if (child == 0) _exit(0);
  return child;
}

void await(pid_t child) {
  int status = 0;
  if (child < 0 || waitpid(child, &status, 0) != child || status != 0) {
    throw std::runtime_error("fork or its child failed");
  }
}

Measured measure_fork_stall(Seconds budget, size_t size) {
  Memory memory(size, Pages::kSmall);
  return {time_single(
              budget, [&] { memory.write(0, size); },
              [] {
                pid_t child = -1;
                const double taken = time_ns([&] { child = fork_that_exits(); });
                await(child);
                return taken;
              }),
          {}};
}

}  // namespace

Measured measure_thread(Seconds budget) {
  return {time_batches(budget,
                       [](uint64_t count) {
                         for (uint64_t i = 0; i < count; ++i) std::thread([] {}).join();
                       }),
          {}};
}

Measured measure_fork(Seconds budget) {
  return {time_batches(budget,
                       [](uint64_t count) {
                         for (uint64_t i = 0; i < count; ++i) await(fork_that_exits());
                       }),
          {}};
}

Measured measure_fork_stall_64m(Seconds budget) {
  return measure_fork_stall(budget, 64 * kMiB);
}
Measured measure_fork_stall_256m(Seconds budget) {
  return measure_fork_stall(budget, 256 * kMiB);
}

Measured measure_first_write_4k(Seconds) {
  return measure_first_write(192 * kMiB, 4 * kMiB, Pages::kSmall);
}

Measured measure_first_write_2m(Seconds) {
  return measure_first_write(256 * kMiB, 16 * kMiB, Pages::kLarge);
}

}  // namespace dbos::bench
