#include "guest/memory/address_space.h"
#include "guest/memory/shared_zero.h"

namespace dbos {
namespace {

constinit MemoryOptions the_options;
constinit u64 the_copy_limit = kUnlimited;

}  // namespace

constinit SharedZero shared_zero;

// The block is allocated as a large page of nobody's and never freed.
Result<void> SharedZero::initialize() {
  block_ = DBOS_TRY(frame_allocator.allocate_large(Clear::kYes, Ownership{}));
  for (u64 i = 0; i < kFramesPerBlock; ++i) {
    frame_info(block_ + i * kPageSize).set(FrameState::kZero, FrameKind::kPage);
  }
  return {};
}

Result<void> memory_initialize(const MemoryOptions& options) {
  the_options = options;
  return shared_zero.initialize();
}

const MemoryOptions& memory_options() {
  return the_options;
}

void set_copy_limit(u64 bytes) {
  the_copy_limit = bytes;
}
u64 copy_limit() {
  return the_copy_limit;
}

}  // namespace dbos
