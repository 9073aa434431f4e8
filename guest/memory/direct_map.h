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
// processor's own fast path for whole pages (ERMS).
inline void clear_memory(PhysicalAddress begin, u64 bytes) {
  void* to = platform::direct_map(begin);
  u64 count = bytes / sizeof(u64);
  asm volatile("rep stosq" : "+D"(to), "+c"(count) : "a"(0) : "memory");
}

inline void copy_memory(PhysicalAddress to, PhysicalAddress from, u64 bytes) {
  void* target = platform::direct_map(to);
  const void* source = platform::direct_map(from);
  u64 count = bytes / sizeof(u64);
  asm volatile("rep movsq" : "+D"(target), "+S"(source), "+c"(count) : : "memory");
}

}  // namespace dbos
