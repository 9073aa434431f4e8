// Text in columns, and numbers as people read them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace dbos::dbg {

enum class Align { kLeft, kRight };

class Table {
 public:
  struct Column {
    std::string title;
    Align align;
  };
  explicit Table(std::vector<Column> columns) : columns_(std::move(columns)) {}
  void add(std::vector<std::string> row) { rows_.push_back(std::move(row)); }
  bool is_empty() const { return rows_.empty(); }
  // The last column is not padded. The title is bold on a terminal.
  std::string text() const;

 private:
  std::vector<Column> columns_;
  std::vector<std::vector<std::string>> rows_;
};

// Escape sequences only on a terminal, and not with NO_COLOR.
std::string bold(const std::string& text);
std::string red(const std::string& text);

std::string duration_text(uint64_t ns);  // "1.2 us"
std::string bytes_text(uint64_t bytes);  // "1.5 MiB"
std::string hex_text(uint64_t value);    // "0x1f"

}  // namespace dbos::dbg
