#include "vmm/size_text.h"

#include <charconv>
#include <string>

#include "hypercall/layout.h"

namespace dbos::vmm {
namespace {

constexpr uint64_t kUnknownUnit = 0;

uint64_t unit_size(std::string_view unit) {
  if (unit.empty()) return 1;
  uint64_t size = kUnknownUnit;
  switch (unit.front() | 0x20) {  // to a small letter
    case 'b':
      return unit.size() == 1 ? 1 : kUnknownUnit;
    case 'k':
      size = kKiB;
      break;
    case 'm':
      size = kMiB;
      break;
    case 'g':
      size = kGiB;
      break;
    case 't':
      size = kTiB;
      break;
    default:
      return kUnknownUnit;
  }
  const std::string_view rest = unit.substr(1);
  // Not GB: some mean 1000 by it and some 1024.
  return rest.empty() || rest == "iB" || rest == "ib" ? size : kUnknownUnit;
}

}  // namespace

uint64_t parse_size(std::string_view text, uint64_t whole) {
  const std::string quoted = "'" + std::string(text) + "'";
  uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error == std::errc::invalid_argument) {
    throw SizeError(quoted + " is not a size; write one as 512M, 4G or 80%");
  }
  if (error != std::errc()) throw SizeError(quoted + " is too large a size; write a smaller one");
  const std::string_view unit = text.substr(static_cast<size_t>(end - text.data()));
  if (unit == "%") {
    if (number > 100) throw SizeError(quoted + " is more than the whole; write at most 100%");
    return whole / 100 * number + whole % 100 * number / 100;
  }
  if (unit.starts_with('.') || unit.starts_with(',')) {
    throw SizeError(quoted + " is no whole number; write it in a smaller unit, as 1536M for 1.5G");
  }
  const uint64_t size = unit_size(unit);
  if (size == kUnknownUnit) {
    throw SizeError(quoted +
                    " has an unknown unit; K, M, G, T (or KiB, MiB, GiB, TiB) and % are known");
  }
  if (number > UINT64_MAX / size) {
    throw SizeError(quoted + " is too large a size; write a smaller one");
  }
  return number * size;
}

}  // namespace dbos::vmm
