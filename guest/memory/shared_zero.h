// The zero pages: what memory that was read and never written maps, read-only, in every address
// space. One 2 MiB block; its first 4 KiB are the small zero page.
#pragma once

#include "guest/memory/frame_table.h"

namespace dbos {

class SharedZero {
 public:
  constexpr SharedZero() = default;
  Result<void> initialize();
  PhysicalAddress page() const { return block_; }
  PhysicalAddress large_page() const { return block_; }
  bool contains(PhysicalAddress address) const {
    return address >= block_ && address < block_ + kLargePageSize;
  }

 private:
  PhysicalAddress block_;
};

extern SharedZero shared_zero;

}  // namespace dbos
