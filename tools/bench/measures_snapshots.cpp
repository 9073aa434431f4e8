// What a snapshot costs while it lives: its own memory, and its parent's writes.
#include <poll.h>
#include <sys/mman.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <iterator>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tools/bench/child.h"
#include "tools/bench/measures.h"
#include "tools/bench/memory.h"
#include "tools/bench/pipe.h"

namespace dbos::bench {
namespace {

constexpr size_t kLine = 64;
constexpr size_t kScannedBytes = 64 * kMiB;
constexpr size_t kPagesOfBatch = 256;
constexpr size_t kRoundsMin = 4;

constexpr size_t kHeapBytes = 256 * kMiB;
constexpr int kIdleSnapshots = 16;
constexpr int kIdleRounds = 5;
constexpr int kAttemptsMax = 200;
constexpr useconds_t kRetryUs = 50'000;

// A child that reads all of `memory`, again and again, until it is told to end. Each page of it
// must keep the byte that it held at the fork.
class Scanner {
 public:
  Scanner(const Memory& memory, char value) {
    child_ = fork();
    if (child_ < 0) throw std::runtime_error("fork failed");
    if (child_ == 0) scan(memory, value);
    if (!scanning_.receive()) throw std::runtime_error("the scanning child is gone");
  }

  void end() {
    Pipe::close_end(stop_.ends[1]);
    await(child_);
  }

 private:
  static bool pass(const Memory& memory, char value) {
    bool same = true;
    for (size_t at = 0; at < memory.size(); at += kLine) {
      const char byte = memory.data()[at];
      if (at % kPage == 0 && byte != value) same = false;
    }
    return same;
  }

  [[noreturn]] void scan(const Memory& memory, char value) {
    Pipe::close_end(stop_.ends[1]);
    pollfd stop = {stop_.ends[0], POLLIN, 0};
    bool same = pass(memory, value) && scanning_.send();
    while (same && poll(&stop, 1, 0) == 0) same = pass(memory, value);
    _exit(same ? 0 : 1);
  }

  Pipe scanning_;
  Pipe stop_;
  pid_t child_;
};

// Writes these pages, in this order, which hold `before`. ns for each of a batch.
std::vector<double> write_beside_scanner(Memory& memory, const std::vector<size_t>& pages,
                                         char before) {
  Scanner scanner(memory, before);
  std::vector<double> values;
  for (size_t first = 0; first < pages.size(); first += kPagesOfBatch) {
    const double taken = time_ns([&] {
      for (size_t i = first; i < first + kPagesOfBatch; ++i) {
        memory.write(pages[i] * kPage, kPage, static_cast<char>(before + 1));
      }
    });
    values.push_back(taken / static_cast<double>(kPagesOfBatch));
  }
  scanner.end();
  return values;
}

Measured measure_write_faults(Seconds budget, const std::vector<size_t>& pages) {
  Memory memory(kScannedBytes, Pages::kSmall);
  char value = 0;
  const auto round = [&] {
    value = static_cast<char>((value + 1) % 100);
    memory.write(0, memory.size(), value);
    return write_beside_scanner(memory, pages, value);
  };
  Measured measured;
  measured.first = Samples(round());
  const double end = now_ns() + budget.count() * 1e9;
  for (size_t rounds = 0; rounds < kRoundsMin || now_ns() < end; ++rounds) {
    measured.samples.add(Samples(round()));
  }
  return measured;
}

std::vector<size_t> all_pages() {
  std::vector<size_t> pages(kScannedBytes / kPage);
  std::iota(pages.begin(), pages.end(), size_t{0});
  return pages;
}

struct GuestMemory {
  double in_use = 0;     // bytes
  double copied = 0;     // bytes that were copied on write so far
  double snapshots = 0;  // that live
};

// As dbos-dbg sees it. It is started without a fork of ours (popen spawns), so it makes no
// snapshot.
GuestMemory guest_memory() {
  const auto debugger = std::filesystem::read_symlink("/proc/self/exe").parent_path() / "dbos-dbg";
  const std::string command =
      "exec '" + debugger.string() + "' -p " + std::to_string(getpid()) + " metrics";
  const std::unique_ptr<FILE, int (*)(FILE*)> metrics(popen(command.c_str(), "r"), pclose);
  if (metrics == nullptr) throw std::runtime_error("dbos-dbg can't be run");
  GuestMemory memory;
  const std::pair<std::string_view, double&> wanted[] = {
      {"dbos_memory_bytes{use=\"pages\"} ", memory.in_use},
      {"dbos_memory_bytes{use=\"tables\"} ", memory.in_use},
      {"dbos_memory_bytes{use=\"kernel\"} ", memory.in_use},
      {"dbos_copy_on_write_bytes_total ", memory.copied},
      {"dbos_snapshots ", memory.snapshots},
  };
  size_t found = 0;
  for (char line[256]; std::fgets(line, sizeof line, metrics.get()) != nullptr;) {
    for (const auto& [label, sum] : wanted) {
      if (!std::string_view(line).starts_with(label)) continue;
      sum += std::strtod(line + label.size(), nullptr);
      ++found;
    }
  }
  if (found != std::size(wanted)) throw std::runtime_error("dbos-dbg does not tell the memory");
  return memory;
}

// A child's memory comes back a moment after its end.
GuestMemory guest_memory_without_snapshots() {
  for (int attempt = 0; attempt < kAttemptsMax; ++attempt) {
    const GuestMemory memory = guest_memory();
    if (memory.snapshots == 0) return memory;
    usleep(kRetryUs);
  }
  throw std::runtime_error("snapshots live on after their processes");
}

// Children that do nothing but say that they live.
class IdleSnapshots {
 public:
  IdleSnapshots() {
    for (int i = 0; i < kIdleSnapshots; ++i) {
      const pid_t child = fork();
      if (child < 0) throw std::runtime_error("fork failed");
      if (child == 0) {
        (void)alive_.send();
        for (;;) pause();
      }
      children_[i] = child;
    }
    for (int i = 0; i < kIdleSnapshots; ++i) {
      if (!alive_.receive()) throw std::runtime_error("a child is gone");
    }
  }
  IdleSnapshots(const IdleSnapshots&) = delete;
  IdleSnapshots& operator=(const IdleSnapshots&) = delete;
  ~IdleSnapshots() {
    for (const pid_t child : children_) {
      kill(child, SIGKILL);
      waitpid(child, nullptr, 0);
    }
  }

 private:
  Pipe alive_;
  pid_t children_[kIdleSnapshots] = {};
};

}  // namespace

Measured measure_write_fault_snapshot(Seconds budget) {
  return measure_write_faults(budget, all_pages());
}

// A quarter of the pages, at random.
Measured measure_write_fault_random(Seconds budget) {
  std::vector<size_t> pages = all_pages();
  std::shuffle(pages.begin(), pages.end(), std::mt19937(1));
  pages.resize(pages.size() / 4);
  return measure_write_faults(budget, pages);
}

Measured measure_snapshot_idle(Seconds) {
  Memory memory(kHeapBytes, Pages::kSmall);
  memory.write(0, memory.size());
  std::vector<double> values;
  std::vector<double> with_writes;
  // The first round makes what stays: the vCPUs' own memory.
  for (int round = 0; round <= kIdleRounds; ++round) {
    const GuestMemory before = guest_memory_without_snapshots();
    const IdleSnapshots snapshots;
    const GuestMemory after = guest_memory();
    if (round == 0) continue;
    const double held = after.in_use - before.in_use;
    with_writes.push_back(held / kIdleSnapshots);
    values.push_back((held - (after.copied - before.copied)) / kIdleSnapshots);
  }
  return {Samples(std::move(values)), {}, Samples(std::move(with_writes))};
}

}  // namespace dbos::bench
