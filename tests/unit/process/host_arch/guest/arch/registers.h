// Takes the place of guest/arch/registers.h where clone.cpp is compiled for the host: no processor
// lets a test touch these.
#pragma once

#include "guest/lib/types.h"

namespace dbos::arch {

inline constexpr u32 kMsrFsBase = 0xc0000100;
inline constexpr u32 kMsrGsBase = 0xc0000101;

inline u64 read_msr(u32) {
  return 0;
}
inline void write_msr(u32, u64) {}

}  // namespace dbos::arch
