#include "vmm/machine/ring_check.h"

#include <catch2/catch.hpp>

namespace dbos::vmm {

// Measured: hardware 0.3 ns for an instruction, hardware that QEMU emulates 10, an interpreter 700.
TEST_CASE("ring 0 is native unless an instruction takes as long as an interpreter needs") {
  CHECK(RingCheck{0, 900}.is_native());
  CHECK(RingCheck{0.3, 900}.is_native());
  CHECK(RingCheck{10, 40'000}.is_native());
  CHECK(RingCheck{30, 90'000}.is_native());
  CHECK(!RingCheck{100, 9'000}.is_native());
  CHECK(!RingCheck{700, 9'000}.is_native());
}

TEST_CASE("who has a KVM that interprets ring 0 is told how slow it is, and what to do") {
  const std::string message = interpreted_message({712.6, 9'000});
  CHECK_THAT(message, Catch::Contains("interprets ring 0 (713 ns for an instruction)"));
  CHECK_THAT(message, Catch::Contains("dbos-vm run -- dbos-run"));
  CHECK(message.find('\n') == std::string::npos);
}

}  // namespace dbos::vmm
