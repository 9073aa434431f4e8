// The registers of a program thread, as a debugger sees them: those of the program, also while the
// thread is in the guest kernel or in a host call.
#pragma once

#include <array>
#include <cstdint>

#include "hypercall/debug.h"

namespace dbos::vmm {

// x87 and SSE state as FXSAVE lays it out (SDM volume 1, 10.5.1), then the XSAVE header, then the
// components in XSAVE's standard format.
inline constexpr uint32_t kExtendedStateSize = 4096;
inline constexpr uint32_t kMxcsrOffset = 24;
inline constexpr uint32_t kExtendedStateLegacySize = 512;  // FXSAVE's; the header is behind it
inline constexpr uint32_t kExtendedStateAvxOffset = 576;   // upper halves of ymm0 to ymm15
inline constexpr uint64_t kExtendedStateAvxBit = 1 << 2;   // in XCR0 and in the header

struct Registers {
  ProgramFrame general;
  uint64_t fs_base;
  uint64_t gs_base;
  alignas(64) std::array<uint8_t, kExtendedStateSize> extended;

  // What of the above is known. The frame always is; the rest only where this process has the
  // vCPU's descriptor or the thread is held.
  bool has_special;

  // Linux's orig_rax: the number of the system call that the thread is in; -1: none.
  int64_t system_call() const {
    return general.vector == kSystemCallVector ? static_cast<int64_t>(general.error_code) : -1;
  }
};

}  // namespace dbos::vmm
