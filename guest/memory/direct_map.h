// Typed pointers into guest-physical memory, and the loops that clear and copy pages there.
#pragma once

#include "guest/lib/types.h"
#include "guest/platform.h"

namespace dbos {

template <typename T>
T* pointer_to(PhysicalAddress address) {
  return static_cast<T*>(platform::direct_map(address));
}

// `rep stosq` and `rep movsq`: the kernel may not touch vector registers, and these are the
// processor's own fast path for whole pages (ERMS). Sanitizers don't see what assembly does, so
// they get loops.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr bool kUseStringInstructions = false;
#else
inline constexpr bool kUseStringInstructions = true;
#endif

inline void clear_memory(PhysicalAddress begin, u64 bytes) {
  u64* to = pointer_to<u64>(begin);
  u64 count = bytes / sizeof(u64);
  if constexpr (kUseStringInstructions) {
    asm volatile("rep stosq" : "+D"(to), "+c"(count) : "a"(0) : "memory");
  } else {
    for (u64 i = 0; i < count; ++i) to[i] = 0;
  }
}

inline void copy_memory(PhysicalAddress to, PhysicalAddress from, u64 bytes) {
  u64* target = pointer_to<u64>(to);
  const u64* source = pointer_to<u64>(from);
  u64 count = bytes / sizeof(u64);
  if constexpr (kUseStringInstructions) {
    asm volatile("rep movsq" : "+D"(target), "+S"(source), "+c"(count) : : "memory");
  } else {
    for (u64 i = 0; i < count; ++i) target[i] = source[i];
  }
}

// The same where the host may be writing to `from` meanwhile: whatever it has written is a good
// copy.
#if defined(__SANITIZE_THREAD__)
__attribute__((no_sanitize("thread"), noinline))
#endif
inline void
copy_memory_in_use(PhysicalAddress to, PhysicalAddress from, u64 bytes) {
  volatile u64* target = pointer_to<volatile u64>(to);
  const volatile u64* source = pointer_to<const volatile u64>(from);
  for (u64 i = 0; i < bytes / sizeof(u64); ++i) target[i] = source[i];
}

}  // namespace dbos
