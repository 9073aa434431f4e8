// The kernel's own objects: vmas, address spaces, lines, window objects and what others need.
//
// Objects of up to 1008 bytes come from 4 KiB slabs of one size class each; a slab that is empty
// goes back to the frame allocator, but for one a class. Larger ones take whole frames.
// Lock order: a class's lock -> the frame allocator's locks.
#pragma once

#include <cstddef>
#include <new>
#include <utility>

#include "guest/lib/result.h"
#include "guest/lib/spinlock.h"

namespace dbos {

// Memory for `size` bytes, aligned to heap_alignment(size), not cleared; nullptr: there is none.
void* heap_allocate(size_t size);
// With the size that it was allocated with.
void heap_free(void* object, size_t size);

constexpr size_t heap_alignment(size_t size) {
  if (size > 768 && size <= 1008) return 16;
  return size >= 256 ? 256 : size >= 64 ? 64 : 16;
}

// nullptr when there is no memory.
template <typename T, typename... Arguments>
T* heap_new(Arguments&&... arguments) {
  static_assert(alignof(T) <= heap_alignment(sizeof(T)));
  void* memory = heap_allocate(sizeof(T));
  return memory == nullptr ? nullptr : ::new (memory) T(std::forward<Arguments>(arguments)...);
}

template <typename T>
void heap_delete(T* object) {
  if (object == nullptr) return;
  object->~T();
  heap_free(object, sizeof(T));
}

}  // namespace dbos
