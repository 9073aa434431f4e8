// Control registers, model-specific registers and the instructions that C++ has no words for.
// Numbers: AMD64 Architecture Programmer's Manual volume 2, Intel SDM volume 4.
#pragma once

#include "guest/lib/types.h"

namespace dbos::arch {

inline constexpr u32 kMsrEfer = 0xc0000080;
inline constexpr u32 kMsrStar = 0xc0000081;
inline constexpr u32 kMsrLstar = 0xc0000082;
inline constexpr u32 kMsrSyscallMask = 0xc0000084;
inline constexpr u32 kMsrFsBase = 0xc0000100;
inline constexpr u32 kMsrGsBase = 0xc0000101;
inline constexpr u32 kMsrKernelGsBase = 0xc0000102;

inline constexpr u64 kEferSyscall = 1 << 0;
inline constexpr u64 kEferNoExecute = 1 << 11;

inline constexpr u64 kCr0Monitor = 1 << 1;
inline constexpr u64 kCr0Emulate = 1 << 2;
inline constexpr u64 kCr0TaskSwitched = 1 << 3;
inline constexpr u64 kCr0NumericError = 1 << 5;
inline constexpr u64 kCr0WriteProtect = 1 << 16;

inline constexpr u64 kCr4GlobalPages = 1 << 7;
inline constexpr u64 kCr4FxSave = 1 << 9;
inline constexpr u64 kCr4SimdExceptions = 1 << 10;
inline constexpr u64 kCr4Umip = 1 << 11;
inline constexpr u64 kCr4FsGsBase = 1 << 16;
inline constexpr u64 kCr4XSave = 1 << 18;
inline constexpr u64 kCr4Smep = 1 << 20;
inline constexpr u64 kCr4Smap = 1 << 21;

inline u64 read_msr(u32 msr) {
  u32 low;
  u32 high;
  asm volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(msr));
  return (static_cast<u64>(high) << 32) | low;
}
inline void write_msr(u32 msr, u64 value) {
  asm volatile("wrmsr"
               :
               : "c"(msr), "a"(static_cast<u32>(value)), "d"(static_cast<u32>(value >> 32))
               : "memory");
}

#define DBOS_CONTROL_REGISTER(name)                             \
  inline u64 read_##name() {                                    \
    u64 value;                                                  \
    asm volatile("mov %%" #name ", %0" : "=r"(value));          \
    return value;                                               \
  }                                                             \
  inline void write_##name(u64 value) {                         \
    asm volatile("mov %0, %%" #name : : "r"(value) : "memory"); \
  }
DBOS_CONTROL_REGISTER(cr0)
DBOS_CONTROL_REGISTER(cr3)
DBOS_CONTROL_REGISTER(cr4)
#undef DBOS_CONTROL_REGISTER

inline u64 read_cr2() {
  u64 value;
  asm volatile("mov %%cr2, %0" : "=r"(value));
  return value;
}

inline void invalidate_page(VirtualAddress address) {
  asm volatile("invlpg (%0)" : : "r"(address.value()) : "memory");
}

// Forgets every translation that is not global: the kernel's are, the program's are not.
inline void flush_tlb() {
  write_cr3(read_cr3());
}

inline void write_dr6_clear() {
  asm volatile("mov %0, %%dr6" : : "r"(u64{0xffff0ff0}));
}

inline void pause() {
  asm volatile("pause");
}

}  // namespace dbos::arch
