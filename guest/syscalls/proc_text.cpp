#include "guest/syscalls/proc_text.h"

#include "guest/lib/decimal.h"
#include "guest/memory/heap.h"

namespace dbos {

ProcText::~ProcText() {
  while (first_ != nullptr) {
    Piece* const next = first_->next;
    heap_free(first_, sizeof(Piece));
    first_ = next;
  }
}

bool ProcText::grow() {
  auto* const piece = static_cast<Piece*>(heap_allocate(sizeof(Piece)));
  if (piece == nullptr) {
    failed_ = true;
    return false;
  }
  piece->next = nullptr;
  piece->used = 0;
  (last_ != nullptr ? last_->next : first_) = piece;
  last_ = piece;
  return true;
}

ProcText& ProcText::put(char c) {
  if (failed_) return *this;
  const bool is_full = last_ == nullptr || last_->used == sizeof last_->data;
  if (is_full && !grow()) return *this;
  last_->data[last_->used++] = c;
  ++size_;
  if (c == '\n') line_start_ = size_;
  return *this;
}

ProcText& ProcText::text(const char* string) {
  for (; *string != 0; ++string) put(*string);
  return *this;
}

ProcText& ProcText::bytes(const char* data, u64 count) {
  for (u64 i = 0; i < count; ++i) put(data[i]);
  return *this;
}

ProcText& ProcText::decimal(u64 value, u32 width) {
  const Decimal digits(value);
  for (u32 i = digits.size(); i < width; ++i) put(' ');
  return bytes(digits.begin(), digits.size());
}

ProcText& ProcText::hexadecimal(u64 value, u32 width) {
  u32 count = 1;
  while (count < 16 && (value >> (4 * count)) != 0) ++count;
  if (count < width) count = width;
  while (count > 0) {
    --count;
    put(count >= 16 ? '0' : "0123456789abcdef"[(value >> (4 * count)) & 15]);
  }
  return *this;
}

ProcText& ProcText::kib(const char* label, u64 bytes, u32 width) {
  return text(label).decimal(bytes / kKiB, width);
}

ProcText& ProcText::pad_to(u32 column) {
  while (!failed_ && size_ - line_start_ < column) put(' ');
  return put(' ');
}

}  // namespace dbos
