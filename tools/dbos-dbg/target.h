// A program that is debugged over the control socket (vmm/control/debug_session.h): while this is
// there the program is stopped, or runs with breakpoints; when it goes, the program runs on.
#pragma once

#include <csignal>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tools/dbos-dbg/connection.h"
#include "vmm/debug/backtrace.h"

namespace dbos::dbg {

using vmm::CallFrame;

// While one is there Ctrl-C does not end dbos-dbg: it stops the program that runs.
class InterruptGuard {
 public:
  InterruptGuard();
  ~InterruptGuard();
  InterruptGuard(const InterruptGuard&) = delete;
  InterruptGuard& operator=(const InterruptGuard&) = delete;

  // Since the last one began.
  static bool was_interrupted();

 private:
  struct sigaction before_ = {};
};

// All may throw Failure.
class Target {
 public:
  // Stops the program.
  explicit Target(const Address& address);

  Json ask(const std::string& command, const Json& arguments = Json::object());
  // Of the chosen thread first. Throws Failure where the file takes none.
  void write_core(int file);

  Json threads();
  // The thread that is meant below: the one that stopped last, or was chosen.
  uint64_t thread();
  void choose(uint64_t thread);

  // What the request "registers" answers.
  enum class Which { kGeneral, kAll };
  const Json& registers(Which which = Which::kGeneral);
  std::optional<uint64_t> register_value(const std::string& name);
  // Bytes that could be read.
  size_t read(uint64_t address, void* destination, size_t size);
  const vmm::Symbols& symbols();
  // What an expression (expression.h) stands for.
  uint64_t evaluate(const std::string& text);
  CallFrame describe(uint64_t address) { return symbols().describe(address, address); }

  // Of the guest kernel, where the thread is in a call, then of the program.
  std::vector<CallFrame> backtrace();

  // Lets the program go on until it stops: the event of debug_session.h. Under an InterruptGuard
  // Ctrl-C stops it, but what ends a step may come first.
  enum class Go { kOn, kOneInstruction };
  Json run(Go go);

 private:
  static constexpr size_t kPageSize = 4096;

  Json wait_for_stop(uint64_t id);
  void forget();
  const std::vector<uint8_t>& page(uint64_t address);
  const std::vector<vmm::LoadedModule>& modules();

  Connection connection_;
  Json description_;  // the answer to "debug"
  std::optional<uint64_t> thread_;
  // Known until the program runs on.
  Json registers_;
  Which known_registers_ = Which::kGeneral;
  std::map<uint64_t, std::vector<uint8_t>> pages_;
  std::vector<vmm::LoadedModule> modules_;
  // Kept as long as the modules are the same.
  std::unique_ptr<vmm::Symbols> symbols_;
  std::vector<vmm::LoadedModule> symbols_of_;
};

}  // namespace dbos::dbg
