#include "vmm/machine/boot_tables.h"

#include "hypercall/abi.h"
#include "vmm/error.h"

namespace dbos::vmm {
namespace {

// Page table entry bits (SDM volume 3, 4.5; AMD64 APM volume 2, 5.4).
constexpr uint64_t kPresent = 1 << 0;
constexpr uint64_t kWrite = 1 << 1;
constexpr uint64_t kAccessed = 1 << 5;
constexpr uint64_t kDirty = 1 << 6;
constexpr uint64_t kLarge = 1 << 7;
constexpr uint64_t kGlobal = 1 << 8;
constexpr uint64_t kNoExecute = 1ull << 63;
constexpr uint64_t kAddressMask = 0x000ffffffffff000;

uint64_t bits_of(PageRights rights) {
  switch (rights) {
    case PageRights::kReadExecute:
      return 0;
    case PageRights::kRead:
      return kNoExecute;
    case PageRights::kReadWrite:
      return kWrite | kNoExecute;
  }
  return kNoExecute;
}

uint64_t* table_at(uint64_t address) {
  return reinterpret_cast<uint64_t*>(address);
}

uint64_t index_at(uint64_t virtual_address, int level) {
  return virtual_address >> (12 + 9 * level) & 511;
}

}  // namespace

BootTables::BootTables(uint64_t physical_end, DirectMapPage page)
    : next_(kKernelTablesAddress), root_(allocate()) {
  constexpr uint64_t kLeaf = kPresent | kWrite | kAccessed | kDirty | kLarge | kGlobal | kNoExecute;
  for (uint64_t physical = kKernelRegionBase; physical < physical_end; physical += kGiB) {
    const uint64_t virtual_address = kDirectMapBase + physical;
    if (page == DirectMapPage::k1GiB) {
      *entry_for(virtual_address, 2) = physical | kLeaf;
      continue;
    }
    uint64_t* const directory = entry_for(virtual_address, 1);
    for (uint64_t i = 0; i < 512; ++i) directory[i] = (physical + i * kLargePageSize) | kLeaf;
  }
}

void BootTables::map(uint64_t virtual_address, uint64_t physical_address, uint64_t size,
                     PageRights rights) {
  uint64_t* entry = nullptr;
  for (uint64_t offset = 0; offset < size; offset += kPageSize) {
    const bool is_in_new_table = entry == nullptr || index_at(virtual_address + offset, 0) == 0;
    entry = is_in_new_table ? entry_for(virtual_address + offset, 0) : entry + 1;
    *entry =
        (physical_address + offset) | kPresent | kAccessed | kDirty | kGlobal | bits_of(rights);
  }
}

uint64_t BootTables::allocate() {
  if (next_ == kKernelTablesAddress + kKernelTablesSizeMax) {
    throw StartError("the kernel's page tables do not fit their region: this is a bug of dbos");
  }
  const uint64_t table = next_;
  next_ += kPageSize;
  return table;
}

uint64_t* BootTables::entry_for(uint64_t virtual_address, int level) {
  uint64_t table = root_;
  for (int above = 3; above > level; --above) {
    uint64_t& entry = table_at(table)[index_at(virtual_address, above)];
    if (entry == 0) entry = allocate() | kPresent | kWrite | kAccessed;
    table = entry & kAddressMask;
  }
  return &table_at(table)[index_at(virtual_address, level)];
}

void map_vcpu_blocks(BootTables& tables) {
  struct Piece {
    uint64_t begin, end;
  };
  constexpr Piece kPieces[] = {
      {kVcpuStackOffset, kVcpuStackTop},
      {kVcpuIstStackOffset, kVcpuIstStackTop},
      {kVcpuDoubleFaultStackOffset, kVcpuDoubleFaultStackTop},
      {kVcpuDebugStackOffset, kVcpuDebugStackTop},
      {kVcpuDataOffset, kVcpuDataOffset + kVcpuDataSize},
      {kVcpuHypercallOffset, kVcpuHypercallOffset + kPageSize},
      {kVcpuBounceOffset, kVcpuBounceOffset + kVcpuBounceSize},
  };
  for (uint64_t index = 0; index < kVcpuCountMax; ++index) {
    const uint64_t block = index * kVcpuStride;
    for (const Piece& piece : kPieces) {
      tables.map(kVcpuMapBase + block + piece.begin, kVcpuRegionBase + block + piece.begin,
                 piece.end - piece.begin, PageRights::kReadWrite);
    }
  }
}

}  // namespace dbos::vmm
