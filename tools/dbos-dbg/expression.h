// Places in the program as people write them: 0x7f12, main, $rsp+8, *($rsi+8).
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

namespace dbos::dbg {

// What the words of an expression stand for; empty: there is no such thing.
struct ExpressionScope {
  std::function<std::optional<uint64_t>(const std::string& name)> register_value;
  std::function<std::optional<uint64_t>(const std::string& name)> symbol_address;
  std::function<std::optional<uint64_t>(uint64_t address)> word_at;  // 8 bytes
};

// The value of terms that are added and subtracted. A term is a number, $REGISTER, a symbol, (...),
// or *TERM: the 8 bytes there. Throws Failure with what can't be read or is not known.
uint64_t evaluate(const std::string& text, const ExpressionScope& scope);

}  // namespace dbos::dbg
