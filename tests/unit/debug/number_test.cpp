#include "tools/dbos-dbg/number.h"

#include <catch2/catch.hpp>

using dbos::dbg::number_in;

TEST_CASE("a number is decimal, or hexadecimal with 0x") {
  REQUIRE(number_in("17") == 17);
  REQUIRE(number_in("0100") == 100);
  REQUIRE(number_in("0x1F") == 31);
  REQUIRE(number_in("0X10") == 16);
  REQUIRE(number_in("18446744073709551615") == UINT64_MAX);
  REQUIRE(number_in("0xffffffffffffffff") == UINT64_MAX);
}

TEST_CASE("what is no number, or has more than 64 bits, is none") {
  for (const char* text : {"", "0x", "-1", "+1", " 5", "5 ", " -5", "1z", "0xg", "0x-1", "x10",
                           "1e3", "18446744073709551616", "0x10000000000000000"}) {
    CAPTURE(text);
    REQUIRE_FALSE(number_in(text));
  }
}
