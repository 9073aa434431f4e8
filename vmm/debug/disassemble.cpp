#include "vmm/debug/disassemble.h"

#include <capstone/capstone.h>
#include <dlfcn.h>
#include <fmt/core.h>

namespace dbos::vmm {
namespace {

// Loaded when it is first wanted: it has tables for all processors, 77,000 relocations in 1.3 MiB,
// which were more than half of what starting dbos-run took, and few of its runs disassemble.
class Capstone {
 public:
  // Not there where the program has left the root directory that the library is in.
  static const Capstone* get() {
    static const Capstone capstone;
    return capstone.is_whole_ ? &capstone : nullptr;
  }

  decltype(&cs_open) open = nullptr;
  decltype(&cs_disasm) disasm = nullptr;
  decltype(&cs_free) free = nullptr;
  decltype(&cs_close) close = nullptr;

 private:
  Capstone()
      : library_(dlopen(fmt::format("libcapstone.so.{}", CS_API_MAJOR).c_str(), RTLD_NOW)),
        is_whole_(library_ != nullptr && find(open, "cs_open") && find(disasm, "cs_disasm") &&
                  find(free, "cs_free") && find(close, "cs_close")) {}
  template <typename Function>
  bool find(Function& function, const char* name) {
    function = reinterpret_cast<Function>(dlsym(library_, name));
    return function != nullptr;
  }

  void* library_;
  bool is_whole_;
};

}  // namespace

std::vector<Instruction> disassemble(std::span<const uint8_t> code, uint64_t address,
                                     size_t count_max) {
  std::vector<Instruction> result;
  if (code.empty() || count_max == 0) return result;
  const Capstone* const capstone = Capstone::get();
  csh handle = 0;
  if (capstone == nullptr || capstone->open(CS_ARCH_X86, CS_MODE_64, &handle) != CS_ERR_OK) {
    return result;
  }
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
