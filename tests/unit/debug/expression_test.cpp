#include "tools/dbos-dbg/expression.h"

#include <catch2/catch.hpp>

#include "tools/dbos-dbg/connection.h"

using dbos::dbg::ExpressionScope;
using dbos::dbg::Failure;

namespace {

// $rsp is 0x1000, `main` lies at 0x400000, and each word of the first page holds its address + 1.
uint64_t evaluate(const std::string& text) {
  const ExpressionScope scope = {
      [](const std::string& name) {
        return name == "rsp" ? std::optional<uint64_t>(0x1000) : std::nullopt;
      },
      [](const std::string& name) {
        return name == "main" || name == "a::b" ? std::optional<uint64_t>(0x400000) : std::nullopt;
      },
      [](uint64_t address) {
        return address < 0x2000 ? std::optional<uint64_t>(address + 1) : std::nullopt;
      }};
  return dbos::dbg::evaluate(text, scope);
}

std::string complaint(const std::string& text) {
  try {
    evaluate(text);
  } catch (const Failure& failure) {
    return failure.what();
  }
  return "none";
}

}  // namespace

TEST_CASE("places are numbers, registers, symbols and what they point to") {
  REQUIRE(evaluate("17") == 17);
  REQUIRE(evaluate("0100") == 100);
  REQUIRE(evaluate("0x7f00 + 0x10-1") == 0x7f0f);
  REQUIRE(evaluate("$rsp+8") == 0x1008);
  REQUIRE(evaluate("main") == 0x400000);
  REQUIRE(evaluate(" a::b + 2 ") == 0x400002);
  REQUIRE(evaluate("*($rsp + 8)") == 0x1009);
  REQUIRE(evaluate("*$rsp + 8") == 0x1009);
  REQUIRE(evaluate("**$rsp") == 0x1002);
  REQUIRE(evaluate("0 - 1") == UINT64_MAX);
}

TEST_CASE("what is no place is refused with a sentence") {
  REQUIRE(complaint("$nope") == "'$nope': there is no register $nope");
  REQUIRE(complaint("nope") == "'nope': no symbol nope in the program or its libraries");
  REQUIRE(complaint("*main") == "'*main': there is no memory at 0x400000");
  REQUIRE(complaint("(1") == "'(1': a ')' is missing");
  REQUIRE(complaint("1 2") == "'1 2': what follows is not understood");
  REQUIRE(complaint("12z") == "'12z': 12z is no number");
  REQUIRE(complaint("99999999999999999999").find("is no number") != std::string::npos);
  for (const char* text : {"", "+", "1+", "$", "()", "*"}) {
    REQUIRE(complaint(text).find("is missing") != std::string::npos);
  }
  REQUIRE(complaint(std::string(1000, '(')).find("nested too deeply") != std::string::npos);
  REQUIRE(complaint(std::string(1000, '*')).find("nested too deeply") != std::string::npos);
}
