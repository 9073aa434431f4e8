// The command line of dbos-run.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "hypercall/abi.h"
#include "vmm/log.h"
#include "vmm/network_address.h"

namespace dbos::vmm {

enum class ClockSource { kAutomatic, kTsc, kHost };
enum class Action {
  kRun,
  kRingCheck,  // say how this machine runs ring 0, and exit
  kPrint,      // print Options::text, exit with 0
};

struct Options {
  Action action = Action::kRun;
  std::string text;                      // help or version
  std::vector<std::string> command;      // PROGRAM and its arguments
  std::string kernel;                    // the guest kernel's image; empty: the built-in one
  uint64_t memory_size = 0;              // bytes, a multiple of 2 MiB: the arena may grow to it
  uint64_t prefault_size = 0;            // bytes, a multiple of 2 MiB, at most memory_size
  std::vector<std::string> environment;  // NAME=VALUE, over what is inherited
  bool trace = false;
  bool control = true;                    // dbos-dbg may attach
  std::optional<NetworkAddress> metrics;  // where they are served
  bool large_pages = true;
  uint64_t cow_limit = 0;     // bytes that may be kept for snapshots only; 0: any number
  bool cow_kill = false;      // beyond it a snapshot is ended; else the program is slowed down
  uint32_t ready_copies = 0;  // of the page tables, for snapshots; 0: they share tables
  bool statistics = false;
  std::string statistics_file;  // empty: standard error
  std::string gdb_address;      // empty: no gdb
  bool crash_report = false;
  std::string core_file;  // empty: no core
  ClockSource clock = ClockSource::kAutomatic;
  LogLevel log_level = LogLevel::kWarning;

  bool wants_gdb() const { return !gdb_address.empty(); }
  // ... or a core.
  bool wants_crash_report() const { return crash_report || !core_file.empty(); }
};

// what(): one sentence for the user; the exit status is ExitStatus::kFailure.
class OptionError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

inline constexpr uint64_t kMemorySizeMin = 64 * kMiB;
inline constexpr uint64_t kMemoryDefaultPercent = 80;
inline constexpr uint32_t kReadyCopiesDefault = 2;

// `arguments` without dbos-run's own name; `host_memory_size`: what a percentage of --memory is of
// (host_memory.h). Throws OptionError.
Options parse_options(std::span<const std::string> arguments, uint64_t host_memory_size);

// The program's environment: `inherited` (environ), with each of `changes` in the place of the
// variable of that name, or behind all others.
std::vector<std::string> merge_environment(const char* const* inherited,
                                           std::span<const std::string> changes);

}  // namespace dbos::vmm
