#include "tests/unit/debug/fake_program.h"

#include <algorithm>

#include "vmm/debug/crash_report.h"
#include "vmm/machine/kernel_image.h"

namespace fake {
namespace {

Program the_program;

}  // namespace

Program& program() {
  return the_program;
}

Program& reset() {
  the_program = {};
  the_program.threads = {{0, 0x64, 0x64, dbos::vmm::ThreadPlace::kHeld, 0},
                         {1, 0x65, 0x64, dbos::vmm::ThreadPlace::kInCall, 0}};
  for (uint32_t vcpu = 0; vcpu < 2; ++vcpu) {
    dbos::vmm::Registers& registers = the_program.registers[vcpu];
    registers = {};
    registers.has_special = true;
    registers.general.rip = 0x400000 + vcpu;
  }
  for (size_t i = 0; i < the_program.memory.size(); ++i) {
    the_program.memory[i] = static_cast<uint8_t>(i);
  }
  return the_program;
}

}  // namespace fake

namespace dbos::vmm {
namespace {

// How much of a range lies in the program's memory.
size_t present(uint64_t address, size_t size) {
  const uint64_t offset = address - fake::kMemoryBegin;
  const size_t whole = fake::program().memory.size();
  return offset >= whole ? 0 : std::min<size_t>(size, whole - offset);
}

}  // namespace

bool is_stopped() {
  return fake::program().is_stopped;
}
bool stop_all(uint32_t) {
  if (fake::program().refused_stops > 0) {
    --fake::program().refused_stops;
    return false;
  }
  fake::program().is_stopped = true;
  return true;
}

void resume(std::span<const ThreadRun> threads, Run) {
  fake::program().runs.assign(threads.begin(), threads.end());
  fake::program().is_stopped = false;
  ++fake::program().resumes;
}

std::optional<StopEvent> take_event() {
  auto& events = fake::program().events;
  if (events.empty()) return std::nullopt;
  const StopEvent event = events.front();
  events.erase(events.begin());
  return event;
}

std::optional<ProcessEnd> process_end() {
  return fake::program().end;
}
void serve_children() {}

std::vector<ThreadView> debugged_threads() {
  return fake::program().threads;
}

bool read_registers(uint32_t vcpu, Registers* registers) {
  const auto found = fake::program().registers.find(vcpu);
  if (found == fake::program().registers.end()) return false;
  *registers = found->second;
  return true;
}

bool write_registers(uint32_t vcpu, const Registers& registers) {
  for (const ThreadView& view : fake::program().threads) {
    if (view.vcpu != vcpu || view.place != ThreadPlace::kHeld) continue;
    fake::program().registers[vcpu] = registers;
    return true;
  }
  return false;
}

size_t read_program(uint64_t address, void* destination, size_t size) {
  const size_t count = present(address, size);
  if (count == 0) return 0;
  std::copy_n(&fake::program().memory[address - fake::kMemoryBegin], count,
              static_cast<uint8_t*>(destination));
  return count;
}

size_t write_program(uint64_t address, const void* source, size_t size) {
  const size_t count = present(address, size);
  if (count == 0) return 0;
  std::copy_n(static_cast<const uint8_t*>(source), count,
              &fake::program().memory[address - fake::kMemoryBegin]);
  return count;
}

size_t read_present(uint64_t address, void* destination, size_t size) {
  return read_program(address, destination, size);
}

bool read_kernel_place(uint32_t vcpu, KernelPlace* place) {
  *place = {0xffffffff80001000, 0};
  return vcpu == 1;  // it is in a host call
}

AddressRange auxiliary_vector_range() {
  return {0x10, 0x20};
}

uint64_t kernel_identity() {
  return 7;
}
std::span<const std::byte> built_in_kernel() {
  return {};
}

std::string write_core_into(int kept, uint32_t, int) {
  fake::program().core_file = kept;
  return fake::program().core_error;
}

std::vector<uint8_t> read_auxiliary_vector() {
  return {1, 2, 3, '}'};
}
std::string program_path() {
  return "/bin/program";
}
uint64_t extended_state_features() {
  return 7;
}

BreakpointError insert_breakpoint(BreakpointKind kind, uint64_t address, uint64_t length) {
  if (kind != BreakpointKind::kSoftware && !is_watchable(address, length)) return {"not watchable"};
  if (kind == BreakpointKind::kHardwareWrite && !fake::program().has_debug_registers) {
    return {"no debug registers", true};
  }
  fake::program().breakpoints.push_back({kind, address, length});
  return {};
}

BreakpointError remove_breakpoint(BreakpointKind kind, uint64_t address, uint64_t length) {
  auto& all = fake::program().breakpoints;
  const auto found = std::find(all.begin(), all.end(), HardwareBreakpoint{kind, address, length});
  if (found == all.end()) return {"there is none"};
  all.erase(found);
  return {};
}

}  // namespace dbos::vmm
