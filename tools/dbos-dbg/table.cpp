#include "tools/dbos-dbg/table.h"

#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>

namespace dbos::dbg {
namespace {

bool has_colours() {
  static const bool has = isatty(STDOUT_FILENO) != 0 && std::getenv("NO_COLOR") == nullptr;
  return has;
}

}  // namespace

std::string Table::text() const {
  std::vector<size_t> widths;
  for (const Column& column : columns_) widths.push_back(column.title.size());
  for (const auto& row : rows_) {
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  const auto line = [&](const std::vector<std::string>& cells) {
    std::string text;
    for (size_t i = 0; i < cells.size(); ++i) {
      const bool is_last = i + 1 == cells.size();
      if (columns_[i].align == Align::kRight) {
        text += fmt::format("{:>{}}", cells[i], widths[i]);
      } else {
        text += is_last ? cells[i] : fmt::format("{:<{}}", cells[i], widths[i]);
      }
      if (!is_last) text += "  ";
    }
    return text;
  };
  std::vector<std::string> titles;
  for (const Column& column : columns_) titles.push_back(column.title);
  std::string text = bold(line(titles)) + "\n";
  for (const auto& row : rows_) text += line(row) + "\n";
  return text;
}

std::string bold(const std::string& text) {
  return has_colours() ? "\033[1m" + text + "\033[0m" : text;
}

std::string red(const std::string& text) {
  return has_colours() ? "\033[31m" + text + "\033[0m" : text;
}

std::string duration_text(uint64_t ns) {
  const auto value = static_cast<double>(ns);
  if (ns < 1000) return fmt::format("{} ns", ns);
  if (ns < 1'000'000) return fmt::format("{:.3g} us", value / 1e3);
  if (ns < 1'000'000'000) return fmt::format("{:.3g} ms", value / 1e6);
  return fmt::format("{:.1f} s", value / 1e9);
}

std::string bytes_text(uint64_t bytes) {
  const auto value = static_cast<double>(bytes);
  if (bytes < 1024) return fmt::format("{} B", bytes);
  if (bytes < 1024 * 1024) return fmt::format("{:.0f} KiB", value / 1024);
  if (bytes < 1024 * 1024 * 1024) return fmt::format("{:.1f} MiB", value / 1024 / 1024);
  return fmt::format("{:.2f} GiB", value / 1024 / 1024 / 1024);
}

std::string hex_text(uint64_t value) {
  return fmt::format("{:#x}", value);
}

}  // namespace dbos::dbg
