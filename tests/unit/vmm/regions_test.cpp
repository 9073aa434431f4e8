// The arena's memory, as Linux gives it or does not.
#include "vmm/machine/regions.h"

#include <fmt/core.h>
#include <sys/mman.h>

#include <fstream>
#include <string>

#include <catch2/catch.hpp>
#include <cerrno>

namespace dbos::vmm {
namespace {

// Nothing is there. Not a fixed one: sanitizers have memory of their own at low addresses.
uint64_t free_address(uint64_t size) {
  void* const at = mmap(nullptr, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  REQUIRE(at != MAP_FAILED);
  munmap(at, size);
  return reinterpret_cast<uint64_t>(at);
}

TEST_CASE("memory that Linux does not make present is told") {
  constexpr uint64_t kSize = uint64_t{2} << 20;
  const uint64_t address = free_address(kSize);
  CHECK(populate_arena(address, kSize) == -ENOMEM);
  reserve_region(address, kSize, "a test");
  CHECK(populate_arena(address, kSize) < 0);
  REQUIRE(commit_region(address, kSize, HostPages::kSmall) == 0);
  CHECK(populate_arena(address, kSize) == 0);
}

// The line of /proc/self/smaps that tells how a mapping is handled.
std::string flags_of(uint64_t address) {
  std::ifstream maps("/proc/self/smaps");
  const std::string begin = fmt::format("{:x}-", address);
  std::string line;
  while (std::getline(maps, line) && line.rfind(begin, 0) != 0) {
  }
  while (std::getline(maps, line) && line.rfind("VmFlags:", 0) != 0) {
  }
  return line;
}

TEST_CASE("the guest's memory is in no core of Linux's") {
  constexpr uint64_t kSize = uint64_t{2} << 20;
  const uint64_t address = free_address(kSize);
  reserve_region(address, kSize, "a test");
  REQUIRE(commit_region(address, kSize, HostPages::kSmall) == 0);
  CHECK(flags_of(address).find(" dd ") != std::string::npos);
}

TEST_CASE("Linux's setting of large pages is read") {
  CHECK(are_large_pages_off("always madvise [never]\n"));
  CHECK_FALSE(are_large_pages_off("[always] madvise never\n"));
  CHECK_FALSE(are_large_pages_off("always [madvise] never\n"));
  CHECK_FALSE(are_large_pages_off(""));
}

}  // namespace
}  // namespace dbos::vmm
