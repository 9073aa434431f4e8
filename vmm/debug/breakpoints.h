// The breakpoints and watchpoints that are set, and how the debug registers show them.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace dbos::vmm {

enum class BreakpointKind {
  kSoftware,         // int3 in a private copy of the page
  kHardwareExecute,  // these three: one of four debug registers
  kHardwareWrite,
  kHardwareAccess,  // read or written
};

inline constexpr uint8_t kBreakpointInstruction = 0xcc;  // int3
inline constexpr uint32_t kDebugRegisters = 4;

struct SoftwareBreakpoint {
  uint64_t address;
  uint8_t original;  // the byte that int3 stands for
};

struct HardwareBreakpoint {
  BreakpointKind kind;
  uint64_t address;
  uint64_t length;  // 1, 2, 4 or 8; 1 for execute
  bool operator==(const HardwareBreakpoint&) const = default;
};

// DR7 for these (SDM volume 3, 17.2.4): slot i is DRi.
uint64_t debug_control(std::span<const std::optional<HardwareBreakpoint>, kDebugRegisters> slots);

// Whether a length and an address can be watched by one debug register.
bool is_watchable(uint64_t address, uint64_t length);

// In program memory that was read from `address`: puts the original bytes in the places of int3.
void hide_breakpoints(std::span<const SoftwareBreakpoint> breakpoints, uint64_t address,
                      std::span<uint8_t> bytes);
// In bytes that shall be written to `address`: keeps int3 there, and notes the new originals.
void keep_breakpoints(std::span<SoftwareBreakpoint> breakpoints, uint64_t address,
                      std::span<uint8_t> bytes);

}  // namespace dbos::vmm
