// A program behind vmm/debug/stop.h that is a few bytes of memory and two threads.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "vmm/debug/stop.h"

namespace fake {

inline constexpr uint64_t kMemoryBegin = 0x1000;

struct Program {
  std::vector<uint8_t> memory = std::vector<uint8_t>(256);
  std::vector<dbos::vmm::ThreadView> threads;
  std::map<uint32_t, dbos::vmm::Registers> registers;  // by vCPU
  std::vector<dbos::vmm::ThreadRun> runs;              // of the last resume()
  std::vector<dbos::vmm::HardwareBreakpoint> breakpoints;
  std::vector<dbos::vmm::StopEvent> events;
  std::optional<dbos::vmm::ProcessEnd> end;
  bool is_stopped = true;
  bool has_debug_registers = true;
  uint32_t refused_stops = 0;  // so many of the next stop_all() fail
  uint32_t resumes = 0;
  int core_file = -1;      // that the last core went to
  std::string core_error;  // what it fails with
};

// A new one: thread 0x64 on vCPU 0, held, and thread 0x65 on vCPU 1, in a host call.
Program& reset();
Program& program();

}  // namespace fake
