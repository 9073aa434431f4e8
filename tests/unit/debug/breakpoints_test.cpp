#include <catch2/catch.hpp>

#include "vmm/debug/breakpoints.h"

using dbos::vmm::BreakpointKind;
using dbos::vmm::HardwareBreakpoint;
using dbos::vmm::SoftwareBreakpoint;

TEST_CASE("DR7 says which registers watch what") {
  std::optional<HardwareBreakpoint> slots[dbos::vmm::kDebugRegisters];
  REQUIRE(dbos::vmm::debug_control(slots) == 0x400);
  slots[0] = {BreakpointKind::kHardwareExecute, 0x1000, 1};
  REQUIRE(dbos::vmm::debug_control(slots) == 0x403);
  slots[2] = {BreakpointKind::kHardwareWrite, 0x1000, 8};
  REQUIRE(dbos::vmm::debug_control(slots) == (0x433 | 9ull << 24));
  slots[3] = {BreakpointKind::kHardwareAccess, 0x1000, 4};
  REQUIRE(dbos::vmm::debug_control(slots) == (0x4f3 | 9ull << 24 | 15ull << 28));
}

TEST_CASE("a debug register watches aligned ranges") {
  REQUIRE(dbos::vmm::is_watchable(0x1008, 8));
  REQUIRE_FALSE(dbos::vmm::is_watchable(0x1004, 8));
  REQUIRE_FALSE(dbos::vmm::is_watchable(0x1000, 3));
  REQUIRE_FALSE(dbos::vmm::is_watchable(0x1000, 0));
}

TEST_CASE("breakpoints do not show, and survive what is written over them") {
  SoftwareBreakpoint breakpoints[] = {{0x1001, 0x55}, {0x1100, 0x66}};
  uint8_t bytes[] = {1, 0xcc, 3};
  dbos::vmm::hide_breakpoints(breakpoints, 0x1000, bytes);
  REQUIRE(bytes[1] == 0x55);
  REQUIRE(bytes[0] == 1);
  uint8_t written[] = {7, 8, 9};
  dbos::vmm::keep_breakpoints(breakpoints, 0x1000, written);
  REQUIRE(written[1] == 0xcc);
  REQUIRE(breakpoints[0].original == 8);
  REQUIRE(breakpoints[1].original == 0x66);
}
