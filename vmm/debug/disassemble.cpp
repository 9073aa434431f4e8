#include "vmm/debug/disassemble.h"

#include <capstone/capstone.h>
#include <dlfcn.h>
#include <fmt/core.h>

#include <optional>

namespace dbos::vmm {
namespace {

struct Capstone {
  decltype(&cs_open) open;
  decltype(&cs_disasm) disasm;
  decltype(&cs_free) free;
  decltype(&cs_close) close;
};
std::optional<Capstone> capstone;

template <typename Function>
bool find(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(library, name));
  return function != nullptr;
}

}  // namespace

// The library has tables for all processors, 77,000 relocations in 1.3 MiB, which were more than
// half of what starting dbos-run took, and few of its runs disassemble. So it is not linked.
bool load_disassembler() {
  if (capstone.has_value()) return true;
  const std::string name = fmt::format("libcapstone.so.{}", CS_API_MAJOR);
  void* const library = dlopen(name.c_str(), RTLD_NOW);
  Capstone found{};
  if (library == nullptr || !find(library, "cs_open", found.open) ||
      !find(library, "cs_disasm", found.disasm) || !find(library, "cs_free", found.free) ||
      !find(library, "cs_close", found.close)) {
    return false;
  }
  capstone = found;
  return true;
}

std::vector<Instruction> disassemble(std::span<const uint8_t> code, uint64_t address,
                                     size_t count_max) {
  std::vector<Instruction> result;
  if (code.empty() || count_max == 0 || !capstone.has_value()) return result;
  csh handle = 0;
  if (capstone->open(CS_ARCH_X86, CS_MODE_64, &handle) != CS_ERR_OK) return result;
  cs_insn* list = nullptr;
  const size_t count =
      capstone->disasm(handle, code.data(), code.size(), address, count_max, &list);
  for (size_t i = 0; i < count; ++i) {
    std::string text = list[i].mnemonic;
    if (list[i].op_str[0] != 0) text += std::string(" ") + list[i].op_str;
    result.push_back({list[i].address, list[i].size, std::move(text)});
  }
  if (count > 0) capstone->free(list, count);
  capstone->close(&handle);
  return result;
}

std::string format_bytes(std::span<const uint8_t> code) {
  std::string text = "  ";
  for (const uint8_t byte : code) text += fmt::format(" {:02x}", byte);
  return text + "\n";
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
