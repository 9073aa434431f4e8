#include "guest/memory/address_space.h"
#include "guest/memory/shared_zero.h"

namespace dbos {
namespace {

constinit MemoryOptions the_options;

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

}  // namespace dbos
