// The parts of the reports on standard error: registers, code, mappings.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "hypercall/abi.h"
#include "hypercall/debug.h"
#include "vmm/debug/backtrace.h"

namespace dbos::vmm {

std::string format_registers(const ProgramFrame& frame);
// Some instructions from `address` on.
std::string format_code(uint64_t address, const MemoryReader& read);
// The last calls in a vCPU's hypercall page.
std::string format_last_calls(const HypercallPage& page);
// How much of what is mapped, and the mapping that holds `address`.
std::string format_mapping_summary(const std::vector<DebugMapping>& mappings, uint64_t address);

// Writes a text line by line on the log (log.h).
void write_report(const std::string& text);

}  // namespace dbos::vmm
