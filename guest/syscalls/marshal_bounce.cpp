#include "guest/syscalls/marshal_bounce.h"

#include "guest/platform.h"
#include "guest/syscalls/marshal_memory.h"

namespace dbos {

namespace {

PhysicalAddress bounce_address() {
  return PhysicalAddress(vcpu_block(platform::current_vcpu()) + kVcpuBounceOffset);
}

}  // namespace

BounceBuffer::BounceBuffer()
    : BounceBuffer(platform::direct_map(bounce_address()), bounce_address(), kVcpuBounceSize) {}

Bounce BounceBuffer::allocate(u64 bytes) {
  if (bytes > kLargestPiece) return {};
  const u64 needed = align_up(bytes == 0 ? 1 : bytes, kAlignment);
  if (needed <= size_ - used_) {
    const u64 at = used_;
    used_ += needed;
    return {data_ + at, address_ + at};
  }
  if (extra_count_ == kExtraMax) return {};
  const auto frames = marshal_memory::allocate_contiguous(needed);
  if (frames.is_error()) return {};
  extra_[extra_count_++] = {frames.value(), needed};
  return {static_cast<u8*>(platform::direct_map(frames.value())), frames.value()};
}

void BounceBuffer::reset() {
  for (u32 i = 0; i < extra_count_; i++) {
    marshal_memory::free_contiguous(extra_[i].address, extra_[i].bytes);
  }
  extra_count_ = 0;
  used_ = 0;
}

}  // namespace dbos
