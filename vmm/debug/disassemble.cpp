#include "vmm/debug/disassemble.h"

#include <capstone/capstone.h>
#include <fmt/core.h>

namespace dbos::vmm {

std::vector<Instruction> disassemble(std::span<const uint8_t> code, uint64_t address,
                                     size_t count_max) {
  std::vector<Instruction> result;
  csh handle = 0;
  if (code.empty() || count_max == 0 || cs_open(CS_ARCH_X86, CS_MODE_64, &handle) != CS_ERR_OK) {
    return result;
  }
  cs_insn* list = nullptr;
  const size_t count = cs_disasm(handle, code.data(), code.size(), address, count_max, &list);
  for (size_t i = 0; i < count; ++i) {
    std::string text = list[i].mnemonic;
    if (list[i].op_str[0] != 0) text += std::string(" ") + list[i].op_str;
    result.push_back({list[i].address, list[i].size, std::move(text)});
  }
  if (count > 0) cs_free(list, count);
  cs_close(&handle);
  return result;
}

std::string format_instructions(const std::vector<Instruction>& instructions, uint64_t current) {
  std::string text;
  for (const Instruction& instruction : instructions) {
    text += fmt::format("{} {:#018x}  {}\n", instruction.address == current ? "=>" : "  ",
                        instruction.address, instruction.text);
  }
  return text;
}

}  // namespace dbos::vmm
