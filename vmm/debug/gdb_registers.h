// The registers in gdb's order, and the description of them that gdb is given (target.xml).
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "vmm/debug/registers.h"

namespace dbos::vmm {

enum class Avx { kNo, kYes };

// One register: its name and type for gdb, and its value's place.
struct GdbRegister {
  std::string name;
  uint32_t bits;
  std::string type;
  std::string feature;  // org.gnu.gdb.i386.core and so on
};

// All registers, in the order of their numbers.
const std::vector<GdbRegister>& gdb_registers(Avx avx);

// target.xml.
std::string gdb_target_description(Avx avx);

// The value of one register, least byte first; empty: it is not known, or there is none of that
// number.
std::vector<uint8_t> gdb_register_value(const Registers& registers, Avx avx, size_t number);
// False: no such register, it can't be set, or the size is wrong.
bool set_gdb_register(Registers* registers, Avx avx, size_t number, std::span<const uint8_t> value);

// The reply to 'g': every register in hexadecimal, 'x' where a value is not known.
std::string gdb_all_registers(const Registers& registers, Avx avx);
// 'G'. False: the text has not the right size, or is not hexadecimal.
bool set_gdb_all_registers(Registers* registers, Avx avx, std::string_view text);

// Linux's signal numbers and gdb's (gdb's include/gdb/signals.def); 0 where there is none.
int gdb_signal(int linux_signal);
int linux_signal(int gdb_signal);

}  // namespace dbos::vmm
