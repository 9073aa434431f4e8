// Text of any length in kernel memory, put together piece by piece, and numbers as Linux's seq_file
// formats them.
#pragma once

#include "guest/lib/types.h"

namespace dbos {

class ProcText {
 public:
  ProcText() = default;
  ~ProcText();
  ProcText(const ProcText&) = delete;
  ProcText& operator=(const ProcText&) = delete;

  // False once memory has run out: the text is cut.
  bool is_complete() const { return !failed_; }
  u64 size() const { return size_; }

  ProcText& put(char c);
  ProcText& text(const char* string);
  ProcText& bytes(const char* data, u64 count);
  ProcText& decimal(u64 value, u32 width = 0);      // padded with spaces
  ProcText& hexadecimal(u64 value, u32 width = 0);  // padded with zeros
  // "<label><value in KiB, 8 columns>", as smaps and status write sizes.
  ProcText& kib(const char* label, u64 bytes, u32 width = 8);
  // Spaces up to a column of the line, then one more.
  ProcText& pad_to(u32 column);

  // Calls visit(const char* data, u64 count) for each piece, in order.
  template <typename Visit>
  void for_each_piece(Visit visit) const {
    for (const Piece* piece = first_; piece != nullptr; piece = piece->next) {
      if (piece->used != 0) visit(piece->data, piece->used);
    }
  }

 private:
  static constexpr u64 kPieceSize = 4 * kPageSize;
  struct Piece {
    Piece* next;
    u64 used;
    char data[kPieceSize - 16];
  };

  bool grow();

  Piece* first_ = nullptr;
  Piece* last_ = nullptr;
  u64 size_ = 0;
  u64 line_start_ = 0;
  bool failed_ = false;
};

}  // namespace dbos
