// Memory for one system call that both the guest kernel and Linux can reach: this vCPU's bounce
// buffer first, contiguous frames when it is full. Everything is given back at the end of the call.
#pragma once

#include "guest/lib/types.h"

namespace dbos {

// A piece of it: `data` is the kernel's pointer, `address` the host's. data == nullptr: no memory.
struct Bounce {
  u8* data = nullptr;
  PhysicalAddress address;
};

class BounceBuffer {
 public:
  static constexpr u64 kAlignment = 16;
  static constexpr u64 kLargestPiece = 2 * kMiB;

  // The bounce buffer of the vCPU that this code runs on.
  BounceBuffer();
  BounceBuffer(void* data, PhysicalAddress address, u64 size)
      : data_(static_cast<u8*>(data)), address_(address), size_(size) {}
  ~BounceBuffer() { reset(); }
  BounceBuffer(const BounceBuffer&) = delete;
  BounceBuffer& operator=(const BounceBuffer&) = delete;

  Bounce allocate(u64 bytes);
  u64 free_bytes() const { return size_ - used_; }
  // Everything allocated since mark() but contiguous frames can be used again after rewind().
  u64 mark() const { return used_; }
  void rewind(u64 mark) { used_ = mark; }
  void reset();

 private:
  static constexpr u32 kExtraMax = 8;
  struct Extra {
    PhysicalAddress address;
    u64 bytes;
  };

  u8* data_;
  PhysicalAddress address_;
  u64 size_;
  u64 used_ = 0;
  u32 extra_count_ = 0;
  Extra extra_[kExtraMax];
};

}  // namespace dbos
