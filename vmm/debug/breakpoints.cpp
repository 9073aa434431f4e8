#include "vmm/debug/breakpoints.h"

namespace dbos::vmm {
namespace {

constexpr uint32_t kControlAlwaysOne = 1 << 10;

uint64_t access_bits(BreakpointKind kind) {
  switch (kind) {
    case BreakpointKind::kHardwareWrite:
      return 1;
    case BreakpointKind::kHardwareAccess:
      return 3;
    case BreakpointKind::kHardwareExecute:
    case BreakpointKind::kSoftware:
      break;
  }
  return 0;
}

uint64_t length_bits(uint64_t length) {
  switch (length) {
    case 2:
      return 1;
    case 4:
      return 3;
    case 8:
      return 2;
    default:
      return 0;
  }
}

}  // namespace

uint64_t debug_control(std::span<const std::optional<HardwareBreakpoint>, kDebugRegisters> slots) {
  uint64_t control = kControlAlwaysOne;
  for (uint32_t i = 0; i < kDebugRegisters; ++i) {
    if (!slots[i]) continue;
    control |= uint64_t{3} << (2 * i);  // local and global
    control |= access_bits(slots[i]->kind) << (16 + 4 * i);
    control |= length_bits(slots[i]->length) << (18 + 4 * i);
  }
  return control;
}

bool is_watchable(uint64_t address, uint64_t length) {
  const bool is_size = length == 1 || length == 2 || length == 4 || length == 8;
  return is_size && address % length == 0;
}

void hide_breakpoints(std::span<const SoftwareBreakpoint> breakpoints, uint64_t address,
                      std::span<uint8_t> bytes) {
  for (const SoftwareBreakpoint& breakpoint : breakpoints) {
    const uint64_t offset = breakpoint.address - address;
    if (offset < bytes.size()) bytes[offset] = breakpoint.original;
  }
}

void keep_breakpoints(std::span<SoftwareBreakpoint> breakpoints, uint64_t address,
                      std::span<uint8_t> bytes) {
  for (SoftwareBreakpoint& breakpoint : breakpoints) {
    const uint64_t offset = breakpoint.address - address;
    if (offset >= bytes.size()) continue;
    breakpoint.original = bytes[offset];
    bytes[offset] = kBreakpointInstruction;
  }
}

}  // namespace dbos::vmm
