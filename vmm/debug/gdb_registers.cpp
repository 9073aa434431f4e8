#include "vmm/debug/gdb_registers.h"

#include <algorithm>
#include <cstddef>
#include <cstring>

#include "vmm/debug/gdb_packet.h"

namespace dbos::vmm {
namespace {

constexpr const char* kCore = "org.gnu.gdb.i386.core";
constexpr const char* kSse = "org.gnu.gdb.i386.sse";
constexpr const char* kLinux = "org.gnu.gdb.i386.linux";
constexpr const char* kSegments = "org.gnu.gdb.i386.segments";
constexpr const char* kAvx = "org.gnu.gdb.i386.avx";

// gdb's numbers, by which the values are found.
constexpr size_t kGeneral = 0;  // rax ... r15, rip
constexpr size_t kFlags = 17;   // eflags, cs, ss, ds, es, fs, gs
constexpr size_t kFloats = 24;  // st0 to st7
constexpr size_t kFloatControl = 32;
constexpr size_t kVectors = 40;  // xmm0 to xmm15
constexpr size_t kVectorControl = 56;
constexpr size_t kSystemCall = 57;  // orig_rax
constexpr size_t kBases = 58;       // fs_base, gs_base
constexpr size_t kUpperHalves = 60;
constexpr size_t kCountWithoutAvx = 60;
constexpr size_t kCount = 76;

// FXSAVE's layout and the XSAVE header behind it (SDM volume 1, 10.5.1 and 13.4).
constexpr size_t kControlWord = 0;
constexpr size_t kStatusWord = 2;
constexpr size_t kTagByte = 4;
constexpr size_t kOpcode = 6;
constexpr size_t kInstructionPointer = 8;
constexpr size_t kDataPointer = 16;
constexpr size_t kFloatRegisters = 32;
constexpr size_t kVectorRegisters = 160;
constexpr size_t kHeader = kExtendedStateLegacySize;
constexpr uint8_t kFloatAndVectorBits = 3;

using Frame = ProgramFrame;
constexpr size_t kFrameOffsets[] = {
    offsetof(Frame, rax), offsetof(Frame, rbx), offsetof(Frame, rcx), offsetof(Frame, rdx),
    offsetof(Frame, rsi), offsetof(Frame, rdi), offsetof(Frame, rbp), offsetof(Frame, rsp),
    offsetof(Frame, r8),  offsetof(Frame, r9),  offsetof(Frame, r10), offsetof(Frame, r11),
    offsetof(Frame, r12), offsetof(Frame, r13), offsetof(Frame, r14), offsetof(Frame, r15),
    offsetof(Frame, rip)};
static_assert(std::size(kFrameOffsets) == kFlags);

std::vector<GdbRegister> make_registers(Avx avx) {
  std::vector<GdbRegister> list;
  for (const char* name : {"rax", "rbx", "rcx", "rdx", "rsi", "rdi"}) {
    list.push_back({name, 64, "int64", kCore});
  }
  for (const char* name : {"rbp", "rsp"}) list.push_back({name, 64, "data_ptr", kCore});
  for (int i = 8; i < 16; ++i) list.push_back({"r" + std::to_string(i), 64, "int64", kCore});
  list.push_back({"rip", 64, "code_ptr", kCore});
  list.push_back({"eflags", 32, "flags", kCore});
  for (const char* name : {"cs", "ss", "ds", "es", "fs", "gs"}) {
    list.push_back({name, 32, "int32", kCore});
  }
  for (int i = 0; i < 8; ++i) list.push_back({"st" + std::to_string(i), 80, "i387_ext", kCore});
  for (const char* name : {"fctrl", "fstat", "ftag", "fiseg", "fioff", "foseg", "fooff", "fop"}) {
    list.push_back({name, 32, "int", kCore});
  }
  for (int i = 0; i < 16; ++i) list.push_back({"xmm" + std::to_string(i), 128, "vector", kSse});
  list.push_back({"mxcsr", 32, "int", kSse});
  list.push_back({"orig_rax", 64, "int", kLinux});
  for (const char* name : {"fs_base", "gs_base"}) list.push_back({name, 64, "int", kSegments});
  if (avx == Avx::kNo) return list;
  for (int i = 0; i < 16; ++i) {
    list.push_back({"ymm" + std::to_string(i) + "h", 128, "uint128", kAvx});
  }
  return list;
}

// What of its 16 bits a full tag says of each register; FXSAVE keeps one bit (SDM volume
// 1, 10.5.1.1).
uint32_t full_tag(const Registers& registers) {
  const auto& x = registers.extended;
  const unsigned top = x[kStatusWord + 1] >> 3u & 7u;
  uint32_t tag = 0;
  for (unsigned physical = 0; physical < 8; ++physical) {
    unsigned value = 3;
    if ((x[kTagByte] >> physical & 1u) != 0) {
      const uint8_t* const st = &x[kFloatRegisters + 16 * ((physical - top) & 7u)];
      const unsigned exponent = st[8] | (st[9] & 0x7fu) << 8;
      const bool is_zero =
          exponent == 0 && std::all_of(st, st + 8, [](uint8_t b) { return b == 0; });
      const bool is_normal = exponent != 0 && exponent != 0x7fff && (st[7] & 0x80u) != 0;
      value = is_zero ? 1 : is_normal ? 0 : 2;
    }
    tag |= value << (2 * physical);
  }
  return tag;
}

uint8_t short_tag(uint32_t full) {
  unsigned bits = 0;
  for (unsigned i = 0; i < 8; ++i) {
    if ((full >> (2 * i) & 3u) != 3) bits |= 1u << i;
  }
  return static_cast<uint8_t>(bits);
}

// Where a register lies in the extended state, and how many of its bytes are there.
struct Place {
  size_t offset;
  size_t size;
};
std::optional<Place> extended_place(size_t number) {
  if (number >= kFloats && number < kFloatControl) {
    return Place{kFloatRegisters + 16 * (number - kFloats), 10};
  }
  if (number >= kVectors && number < kVectorControl) {
    return Place{kVectorRegisters + 16 * (number - kVectors), 16};
  }
  if (number >= kUpperHalves) {
    return Place{kExtendedStateAvxOffset + 16 * (number - kUpperHalves), 16};
  }
  switch (number) {
    case kFloatControl:
      return Place{kControlWord, 2};
    case kFloatControl + 1:
      return Place{kStatusWord, 2};
    case kFloatControl + 3:
      return Place{kInstructionPointer + 4, 2};
    case kFloatControl + 4:
      return Place{kInstructionPointer, 4};
    case kFloatControl + 5:
      return Place{kDataPointer + 4, 2};
    case kFloatControl + 6:
      return Place{kDataPointer, 4};
    case kFloatControl + 7:
      return Place{kOpcode, 2};
    case kVectorControl:
      return Place{kMxcsrOffset, 4};
    default:
      return std::nullopt;
  }
}

template <typename Value>
std::vector<uint8_t> bytes_of(Value value) {
  std::vector<uint8_t> bytes(sizeof value);
  std::memcpy(bytes.data(), &value, sizeof value);
  return bytes;
}

uint32_t segment(const ProgramFrame& frame, size_t index) {
  if (index == 0) return static_cast<uint32_t>(frame.cs);
  return index == 1 ? static_cast<uint32_t>(frame.ss) : 0;
}

// ymm's upper halves are zero while the component is in its initial state.
bool has_upper_halves(const Registers& registers) {
  return (registers.extended[kHeader] & kExtendedStateAvxBit) != 0;
}

// gdb takes a thread out of its call by -1, to run a function there, and puts it back.
void set_system_call(ProgramFrame& frame, int64_t number) {
  if (number >= 0) {
    frame.vector = kSystemCallVector;
    frame.error_code = static_cast<uint64_t>(number);
  } else if (frame.vector == kSystemCallVector) {
    frame.vector = kRestoredVector;
  }
}

}  // namespace

const std::vector<GdbRegister>& gdb_registers(Avx avx) {
  static const std::vector<GdbRegister> without = make_registers(Avx::kNo);
  static const std::vector<GdbRegister> with = make_registers(Avx::kYes);
  return avx == Avx::kYes ? with : without;
}

std::vector<uint8_t> gdb_register_value(const Registers& registers, Avx avx, size_t number) {
  if (number >= (avx == Avx::kYes ? kCount : kCountWithoutAvx)) return {};
  const ProgramFrame& frame = registers.general;
  if (number < kFlags) {
    uint64_t value;
    std::memcpy(&value, reinterpret_cast<const char*>(&frame) + kFrameOffsets[number - kGeneral],
                sizeof value);
    return bytes_of(value);
  }
  if (number == kFlags) return bytes_of(static_cast<uint32_t>(frame.rflags));
  if (number < kFloats) return bytes_of(segment(frame, number - kFlags - 1));
  if (number == kSystemCall) return bytes_of(registers.system_call());
  if (!registers.has_special) return {};
  if (number == kBases) return bytes_of(registers.fs_base);
  if (number == kBases + 1) return bytes_of(registers.gs_base);
  if (number == kFloatControl + 2) return bytes_of(full_tag(registers));
  std::vector<uint8_t> value(gdb_registers(avx)[number].bits / 8);
  if (number >= kUpperHalves && !has_upper_halves(registers)) return value;
  const Place place = *extended_place(number);
  std::copy_n(&registers.extended[place.offset], place.size, value.begin());
  return value;
}

bool set_gdb_register(Registers* registers, Avx avx, size_t number,
                      std::span<const uint8_t> value) {
  const auto& list = gdb_registers(avx);
  if (number >= list.size() || value.size() != list[number].bits / 8) return false;
  uint64_t integer = 0;
  std::memcpy(&integer, value.data(), std::min(value.size(), sizeof integer));
  ProgramFrame& frame = registers->general;
  if (number < kFlags) {
    std::memcpy(reinterpret_cast<char*>(&frame) + kFrameOffsets[number], &integer, sizeof integer);
    return true;
  }
  if (number == kFlags) {
    frame.rflags = integer;
    return true;
  }
  if (number == kSystemCall) {
    set_system_call(frame, static_cast<int64_t>(integer));
    return true;
  }
  if (number < kFloats) return true;  // segments stay as they are
  if (!registers->has_special) return false;
  if (number == kBases) {
    registers->fs_base = integer;
    return true;
  }
  if (number == kBases + 1) {
    registers->gs_base = integer;
    return true;
  }
  if (number == kFloatControl + 2) {
    registers->extended[kTagByte] = short_tag(static_cast<uint32_t>(integer));
    return true;
  }
  const Place place = *extended_place(number);
  const bool is_upper = number >= kUpperHalves;
  const auto is_zero = [](uint8_t byte) { return byte == 0; };
  if (is_upper && !has_upper_halves(*registers)) {
    if (std::all_of(value.begin(), value.end(), is_zero)) return true;
    std::fill_n(&registers->extended[kExtendedStateAvxOffset], 16 * 16, uint8_t{0});
    registers->extended[kHeader] |= kExtendedStateAvxBit;
  }
  std::copy_n(value.begin(), place.size, &registers->extended[place.offset]);
  registers->extended[kHeader] |= kFloatAndVectorBits;
  return true;
}

std::string gdb_all_registers(const Registers& registers, Avx avx) {
  const auto& list = gdb_registers(avx);
  std::string text;
  for (size_t i = 0; i < list.size(); ++i) {
    const std::vector<uint8_t> value = gdb_register_value(registers, avx, i);
    text += value.empty() ? std::string(list[i].bits / 4, 'x') : to_hex(value);
  }
  return text;
}

bool set_gdb_all_registers(Registers* registers, Avx avx, std::string_view text) {
  for (size_t i = 0; i < gdb_registers(avx).size(); ++i) {
    const size_t digits = gdb_registers(avx)[i].bits / 4;
    if (text.size() < digits) return false;
    const std::string_view part = text.substr(0, digits);
    text.remove_prefix(digits);
    if (part.find_first_not_of('x') == std::string_view::npos) continue;
    const auto bytes = from_hex(part);
    if (!bytes) return false;
    const std::span value(reinterpret_cast<const uint8_t*>(bytes->data()), bytes->size());
    if (!set_gdb_register(registers, avx, i, value)) return false;
  }
  return text.empty();
}

}  // namespace dbos::vmm
