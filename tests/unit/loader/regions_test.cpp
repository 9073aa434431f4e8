// The arena's memory, as Linux gives it or does not.
#include "vmm/machine/regions.h"

#include <catch2/catch.hpp>
#include <cerrno>

namespace dbos::vmm {
namespace {

TEST_CASE("memory that Linux does not make present is told") {
  constexpr uint64_t kSize = uint64_t{2} << 20;
  constexpr uint64_t kAddress = uint64_t{0x40} << 32;
  CHECK(populate_arena(kAddress, kSize) == -ENOMEM);
  reserve_region(kAddress, kSize, "a test");
  CHECK(populate_arena(kAddress, kSize) < 0);
  REQUIRE(commit_region(kAddress, kSize, HostPages::kSmall) == 0);
  CHECK(populate_arena(kAddress, kSize) == 0);
}

}  // namespace
}  // namespace dbos::vmm
