#include "tools/dbos-dbg/expression.h"

#include <fmt/core.h>

#include <cctype>
#include <string_view>

#include "tools/dbos-dbg/connection.h"
#include "tools/dbos-dbg/number.h"

namespace dbos::dbg {
namespace {

constexpr int kDepthMax = 32;

bool is_word(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_' || c == '.' || c == ':' ||
         c == '@';
}

class Parser {
 public:
  Parser(const std::string& text, const ExpressionScope& scope)
      : whole_(text), rest_(text), scope_(scope) {}

  uint64_t all() {
    const uint64_t value = sum(0);
    if (!rest_.empty()) complain("what follows is not understood");
    return value;
  }

 private:
  [[noreturn]] void complain(const std::string& why) const {
    throw Failure(fmt::format("'{}': {}", whole_, why));
  }

  void skip_spaces() {
    while (!rest_.empty() && rest_.front() == ' ') rest_.remove_prefix(1);
  }

  bool take(char wanted) {
    skip_spaces();
    if (rest_.empty() || rest_.front() != wanted) return false;
    rest_.remove_prefix(1);
    return true;
  }

  uint64_t sum(int depth) {
    uint64_t value = term(depth);
    for (;;) {
      if (take('+')) {
        value += term(depth);
      } else if (take('-')) {
        value -= term(depth);
      } else {
        skip_spaces();
        return value;
      }
    }
  }

  uint64_t term(int depth) {
    if (depth > kDepthMax) complain("nested too deeply");
    if (take('*')) {
      const uint64_t address = term(depth + 1);
      const auto value = scope_.word_at(address);
      if (!value) complain(fmt::format("there is no memory at {:#x}", address));
      return *value;
    }
    if (take('(')) {
      const uint64_t value = sum(depth + 1);
      if (!take(')')) complain("a ')' is missing");
      return value;
    }
    if (take('$')) return register_value();
    return name_or_number();
  }

  std::string word() {
    size_t length = 0;
    while (length < rest_.size() && is_word(rest_[length])) ++length;
    if (length == 0) complain("an address, $REGISTER or name is missing");
    std::string found(rest_.substr(0, length));
    rest_.remove_prefix(length);
    return found;
  }

  uint64_t register_value() {
    const std::string name = word();
    const auto value = scope_.register_value(name);
    if (!value) complain(fmt::format("there is no register ${}", name));
    return *value;
  }

  uint64_t name_or_number() {
    skip_spaces();
    const std::string name = word();
    if (std::isdigit(static_cast<unsigned char>(name.front())) != 0) return number(name);
    const auto address = scope_.symbol_address(name);
    if (!address) complain(fmt::format("no symbol {} in the program or its libraries", name));
    return *address;
  }

  uint64_t number(const std::string& name) const {
    const auto value = number_in(name);
    if (!value) complain(fmt::format("{} is no number", name));
    return *value;
  }

  const std::string& whole_;
  std::string_view rest_;
  const ExpressionScope& scope_;
};

}  // namespace

uint64_t evaluate(const std::string& text, const ExpressionScope& scope) {
  return Parser(text, scope).all();
}

}  // namespace dbos::dbg
