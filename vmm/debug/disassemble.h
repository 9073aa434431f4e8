// Instructions as text.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace dbos::vmm {

struct Instruction {
  uint64_t address;
  uint32_t size;
  std::string text;  // Intel's syntax: "mov eax, dword ptr [rdi]"
};

// Loads the library that disassemble() needs; false: there is none. In dbos-run before the program
// runs only: with its root directory the program chooses which files a library is looked for in.
bool load_disassembler();

// At most `count_max` instructions of the code at `address`, up to the first bytes that are none.
// None where the library has not been loaded.
std::vector<Instruction> disassemble(std::span<const uint8_t> code, uint64_t address,
                                     size_t count_max);

// What could not be read as instructions: a line of bytes.
std::string format_bytes(std::span<const uint8_t> code);

// One line each, with "=>" in front of the one at `current`.
std::string format_instructions(const std::vector<Instruction>& instructions, uint64_t current);

}  // namespace dbos::vmm
