#include "guest/memory/heap.h"

#include "guest/memory/frame_allocator.h"

namespace dbos {
namespace {

struct FreeObject {
  FreeObject* next;
};

// At the start of a slab's frame. Full slabs are on no list.
struct Slab {
  Slab* previous;
  Slab* next;
  FreeObject* free;
  u32 used;
  u32 fresh;  // objects from this index on were never handed out
};

constexpr u32 kClassSizes[] = {32, 64, 128, 192, 256, 512, 768, 1008};
constexpr u32 kClassCount = sizeof(kClassSizes) / sizeof(kClassSizes[0]);
constexpr u32 kLargestClass = kClassSizes[kClassCount - 1];

// Where the first object of a slab lies: behind the Slab, aligned as heap.h promises.
constexpr u32 first_offset(u32 size) {
  return size % 256 == 0 ? 256 : 64;
}
static_assert(sizeof(Slab) <= 64);

constexpr bool keeps_alignment() {
  u32 smallest = 1;
  for (const u32 size : kClassSizes) {
    for (; smallest <= size; ++smallest) {
      const u64 alignment = heap_alignment(smallest);
      if (size % alignment != 0 || first_offset(size) % alignment != 0) return false;
    }
  }
  return true;
}
static_assert(keeps_alignment());

class SlabPool {
 public:
  constexpr explicit SlabPool(u32 size)
      : size_(size), capacity_((static_cast<u32>(kPageSize) - first_offset(size)) / size) {}

  void* allocate() {
    LockGuard guard(lock_);
    if (available_ == nullptr) {
      Result<PhysicalAddress> frame = frame_allocator.allocate_kernel(0);
      if (frame.is_error()) return nullptr;
      Slab* slab = ::new (platform::direct_map(frame.value())) Slab{};
      link(slab);
      ++empty_slabs_;
    }
    Slab* slab = available_;
    void* object = nullptr;
    if (slab->free != nullptr) {
      object = slab->free;
      slab->free = slab->free->next;
    } else {
      object = reinterpret_cast<char*>(slab) + first_offset(size_) + slab->fresh * size_;
      ++slab->fresh;
    }
    if (slab->used++ == 0) --empty_slabs_;
    if (slab->used == capacity_) unlink(slab);
    return object;
  }

  void free(void* object) {
    LockGuard guard(lock_);
    Slab* slab = reinterpret_cast<Slab*>(align_down(reinterpret_cast<u64>(object), kPageSize));
    DBOS_ASSERT(slab->used != 0);
    slab->free = ::new (object) FreeObject{slab->free};
    if (slab->used-- == capacity_) link(slab);
    if (slab->used != 0) return;
    if (empty_slabs_ == 0) {
      ++empty_slabs_;
      return;
    }
    unlink(slab);
    frame_allocator.free_kernel(platform::physical_of(slab), 0);
  }

 private:
  void link(Slab* slab) {
    slab->previous = nullptr;
    slab->next = available_;
    if (available_ != nullptr) available_->previous = slab;
    available_ = slab;
  }
  void unlink(Slab* slab) {
    (slab->previous != nullptr ? slab->previous->next : available_) = slab->next;
    if (slab->next != nullptr) slab->next->previous = slab->previous;
  }

  const u32 size_;
  const u32 capacity_;
  Spinlock lock_;
  Slab* available_ = nullptr;  // slabs with a free object
  u64 empty_slabs_ = 0;
};

constinit SlabPool pools[kClassCount] = {SlabPool(kClassSizes[0]), SlabPool(kClassSizes[1]),
                                         SlabPool(kClassSizes[2]), SlabPool(kClassSizes[3]),
                                         SlabPool(kClassSizes[4]), SlabPool(kClassSizes[5]),
                                         SlabPool(kClassSizes[6]), SlabPool(kClassSizes[7])};

SlabPool& pool_for(size_t size) {
  u32 index = 0;
  while (kClassSizes[index] < size) ++index;
  return pools[index];
}

}  // namespace

void* heap_allocate(size_t size) {
  if (size <= kLargestClass) return pool_for(size).allocate();
  const Result<PhysicalAddress> run = frame_allocator.allocate_kernel(order_of(size));
  return run.is_error() ? nullptr : platform::direct_map(run.value());
}

void heap_free(void* object, size_t size) {
  if (size <= kLargestClass) return pool_for(size).free(object);
  frame_allocator.free_kernel(platform::physical_of(object), order_of(size));
}

}  // namespace dbos
