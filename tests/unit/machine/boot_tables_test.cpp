#include "vmm/machine/boot_tables.h"

#include <sys/mman.h>

#include <catch2/catch.hpp>
#include <optional>

#include "hypercall/abi.h"

namespace dbos::vmm::test {
namespace {

// The tables' memory, zero again for each test.
class BootTablesTest {
 public:
  BootTablesTest() {
    void* const wanted = reinterpret_cast<void*>(kKernelTablesAddress);
    REQUIRE(mmap(wanted, kKernelTablesSizeMax, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1,
                 0) == wanted);
  }
  ~BootTablesTest() { munmap(reinterpret_cast<void*>(kKernelTablesAddress), kKernelTablesSizeMax); }
};

struct Translation {
  uint64_t physical_address, page_size;
};

// As the processor walks.
std::optional<Translation> translate(const BootTables& tables, uint64_t virtual_address) {
  uint64_t table = tables.root();
  for (int level = 3; level >= 0; --level) {
    const uint64_t size = uint64_t{1} << (12 + 9 * level);
    const uint64_t entry = reinterpret_cast<const uint64_t*>(table)[virtual_address / size % 512];
    if ((entry & 1) == 0) return std::nullopt;
    const uint64_t address = entry & 0x000f'ffff'ffff'f000;
    if (level == 0 || (entry & 0x80) != 0) {
      REQUIRE(address % size == 0);
      return Translation{address + virtual_address % size, size};
    }
    table = address;
  }
  return std::nullopt;
}

void require_direct_map(const BootTables& tables, uint64_t end, uint64_t page_size) {
  for (const uint64_t physical : {kKernelRegionBase, kVcpuRegionBase + 0x12345, kWindowBase,
                                  kArenaBase + 7 * kGiB + 0x20'1000, end - 1}) {
    const std::optional<Translation> found = translate(tables, kDirectMapBase + physical);
    REQUIRE(found);
    REQUIRE(found->physical_address == physical);
    REQUIRE(found->page_size == page_size);
  }
  REQUIRE_FALSE(translate(tables, kDirectMapBase + kKernelRegionBase - 1));
  REQUIRE_FALSE(translate(tables, kDirectMapBase + end));
}

}  // namespace

TEST_CASE_METHOD(BootTablesTest, "The direct map ends where it is told") {
  SECTION("1 TiB, in pages of 1 GiB") {
    require_direct_map(BootTables(kTiB, DirectMapPage::k1GiB), kTiB, kGiB);
  }
  SECTION("1 TiB, in pages of 2 MiB") {
    require_direct_map(BootTables(kTiB, DirectMapPage::k2MiB), kTiB, kLargePageSize);
  }
  SECTION("512 GiB, in pages of 1 GiB") {
    require_direct_map(BootTables(512 * kGiB, DirectMapPage::k1GiB), 512 * kGiB, kGiB);
  }
  SECTION("512 GiB, in pages of 2 MiB") {
    require_direct_map(BootTables(512 * kGiB, DirectMapPage::k2MiB), 512 * kGiB, kLargePageSize);
  }
}

TEST_CASE_METHOD(BootTablesTest, "Beside a direct map in small pages all else fits the tables") {
  BootTables tables(kTiB, DirectMapPage::k2MiB);
  tables.map(kKernelImageBase, kKernelImageAddress, kKernelImageSizeMax, PageRights::kReadExecute);
  tables.map(kVcpuMapBase, kVcpuRegionBase, kVcpuRegionSize, PageRights::kReadWrite);
  const std::optional<Translation> last = translate(tables, kVcpuMapBase + kVcpuRegionSize - 1);
  REQUIRE(last);
  REQUIRE(last->physical_address == kVcpuRegionBase + kVcpuRegionSize - 1);
  REQUIRE(last->page_size == kPageSize);
}

}  // namespace dbos::vmm::test
