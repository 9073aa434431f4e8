// Linux's own fork, for reference.

#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <numeric>
#include <random>
#include <stdexcept>
#include <string>

#include "tools/bench-native/measures.h"
#include "tools/bench/child.h"

namespace dbos::bench {
namespace {

constexpr uint64_t kPage = 4096;
constexpr int kProcesses = 500;
constexpr uint64_t kFaultPages = 64 * 1024 * 1024 / kPage;  // as for the engine's own faults

class Memory {
 public:
  explicit Memory(uint64_t bytes) : bytes_(bytes) {
    void* at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) {
      throw std::runtime_error(std::string("mmap for Linux's fork: ") + std::strerror(errno));
    }
    begin_ = static_cast<volatile char*>(at);
    madvise(at, bytes, MADV_NOHUGEPAGE);
    for (uint64_t i = 0; i < bytes / kPage; ++i) write(i);
  }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  ~Memory() { munmap(const_cast<char*>(begin_), bytes_); }

  void write(uint64_t page) { begin_[page * kPage] = 1; }

 private:
  volatile char* begin_;
  uint64_t bytes_;
};

// A child that does nothing, until it is killed.
class Child {
 public:
  Child() : pid_(fork()) {
    if (pid_ < 0) throw std::runtime_error(std::string("fork: ") + std::strerror(errno));
    if (pid_ != 0) return;
    while (true) pause();
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  ~Child() {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }

 private:
  pid_t pid_;
};

FaultResult measure_faults(const char* what, Memory& memory, const std::vector<uint64_t>& order,
                           int rounds) {
  std::vector<double> samples;
  for (int round = 0; round <= rounds; ++round) {
    const Child child;
    const double begin = processor_ns();
    for (uint64_t page : order) memory.write(page);
    const double each = (processor_ns() - begin) / static_cast<double>(order.size());
    if (round != 0) samples.push_back(each);
  }
  return {what, Samples(std::move(samples))};
}

Samples measure_sharing_process() {
  std::vector<double> times;
  for (int i = 0; i < kProcesses; ++i) {
    const double begin = wall_ns();
    const pid_t child = sharing_process_that_exits();
    times.push_back((wall_ns() - begin) / 1e3);
    await(child);
  }
  return Samples(std::move(times));
}

}  // namespace

ForkResult measure_linux_fork(uint64_t bytes, int rounds) {
  ForkResult result;
  result.pages = bytes / kPage;
  Memory memory(bytes);
  std::vector<double> times;
  for (int round = 0; round < rounds; ++round) {
    const double begin = wall_ns();
    const Child child;
    times.push_back((wall_ns() - begin) / 1e6);
  }
  result.fork_ms = Samples(std::move(times));
  result.process_us = measure_sharing_process();

  std::vector<uint64_t> order(std::min(kFaultPages, result.pages));
  std::iota(order.begin(), order.end(), 0);
  result.faults.push_back(measure_faults("in order, Linux", memory, order, rounds));
  std::shuffle(order.begin(), order.end(), std::mt19937(1));
  result.faults.push_back(measure_faults("at random, Linux", memory, order, rounds));
  return result;
}

}  // namespace dbos::bench
