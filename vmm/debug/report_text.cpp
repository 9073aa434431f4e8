#include "vmm/debug/report_text.h"

#include <fmt/core.h>
#include <sys/mman.h>

#include <algorithm>

#include "vmm/debug/disassemble.h"
#include "vmm/log.h"
#include "vmm/printable.h"

namespace dbos::vmm {
namespace {

constexpr size_t kInstructions = 6;
constexpr size_t kInstructionSizeMax = 15;

uint64_t mapped_bytes(const std::vector<DebugMapping>& mappings, bool has_file) {
  uint64_t bytes = 0;
  for (const DebugMapping& mapping : mappings) {
    if ((mapping.path[0] == '/') == has_file) bytes += mapping.end - mapping.begin;
  }
  return bytes;
}

std::string rights(uint32_t protection) {
  std::string text = "---";
  if ((protection & PROT_READ) != 0) text[0] = 'r';
  if ((protection & PROT_WRITE) != 0) text[1] = 'w';
  if ((protection & PROT_EXEC) != 0) text[2] = 'x';
  return text;
}

}  // namespace

std::string format_registers(const ProgramFrame& f) {
  return fmt::format(
      "rip {:016x}  rsp {:016x}  rflags {:08x}\n"
      "rax {:016x}  rbx {:016x}  rcx {:016x}  rdx {:016x}\n"
      "rsi {:016x}  rdi {:016x}  rbp {:016x}  r8  {:016x}\n"
      "r9  {:016x}  r10 {:016x}  r11 {:016x}  r12 {:016x}\n"
      "r13 {:016x}  r14 {:016x}  r15 {:016x}\n",
      f.rip, f.rsp, f.rflags, f.rax, f.rbx, f.rcx, f.rdx, f.rsi, f.rdi, f.rbp, f.r8, f.r9, f.r10,
      f.r11, f.r12, f.r13, f.r14, f.r15);
}

std::string format_code(uint64_t address, const MemoryReader& read) {
  uint8_t code[kInstructions * kInstructionSizeMax];
  const size_t size = read(address, code, sizeof code);
  if (size == 0) return "   nothing is mapped at rip\n";
  const std::vector<Instruction> list = disassemble({code, size}, address, kInstructions);
  return list.empty() ? format_bytes({code, size}) : format_instructions(list, address);
}

std::string format_last_calls(const HypercallPage& page) {
  std::string text;
  const uint32_t given = __atomic_load_n(&page.call_count, __ATOMIC_RELAXED);
  const uint32_t count = std::min(given, kCallBatchMax);
  for (uint32_t i = 0; i < count; ++i) {
    const Call& call = page.calls[i];
    text += fmt::format("call {:#x} ({:#x}, {:#x}, {:#x}, {:#x}, {:#x}, {:#x}) = {}\n", call.number,
                        call.arguments[0], call.arguments[1], call.arguments[2], call.arguments[3],
                        call.arguments[4], call.arguments[5], call.result);
  }
  return text;
}

std::string format_mapping_summary(const std::vector<DebugMapping>& mappings, uint64_t address) {
  std::string text =
      fmt::format("{} mappings: {} KiB of files, {} KiB of other memory\n", mappings.size(),
                  mapped_bytes(mappings, true) / kKiB, mapped_bytes(mappings, false) / kKiB);
  for (const DebugMapping& mapping : mappings) {
    if (address < mapping.begin || address >= mapping.end) continue;
    text += fmt::format("rip is in {:x}-{:x} {} {}\n", mapping.begin, mapping.end,
                        rights(mapping.protection), printable(mapping.path));
  }
  return text;
}

void write_report(const std::string& text) {
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = text.find('\n', begin);
    write_log_line(std::string_view(text).substr(begin, end - begin));
    if (end == std::string::npos) return;
    begin = end + 1;
  }
}

}  // namespace dbos::vmm
