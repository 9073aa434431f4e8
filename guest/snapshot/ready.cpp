#include "guest/snapshot/ready.h"

#include "guest/memory/address_space.h"

namespace dbos {
namespace {

// A range of more pieces than this is applied at once.
constexpr u64 kNotedAtOnce = 8;

static_assert(kProgramEnd / ReadyTables::kPieceSize <= u64{1} << 32, "a piece fits in pieces_");

constexpr u32 place_of(u64 piece) {
  return static_cast<u32>(piece ^ piece >> 4 ^ piece >> 8 ^ piece >> 12) % ReadyTables::kPieces;
}

}  // namespace

bool ReadyTables::Copy::is_complete() const {
  return !is_broken && made_to == kProgramTablesEnd;
}

// ---- Noting ----

void ReadyTables::note_piece(u64 piece) {
  const u32 place = place_of(piece);
  const u32 bit = u32{1} << place;
  if ((occupied_ & bit) != 0) {
    if (pieces_[place] == piece) return;
    apply(range_of(pieces_[place]));
  }
  occupied_ |= bit;
  pieces_[place] = static_cast<u32>(piece);
}

void ReadyTables::note(VirtualRange range) {
  if (count_ == 0 || range.size() == 0) return;
  const u64 first = range.begin.value() / kPieceSize;
  const u64 last = (range.end.value() - 1) / kPieceSize;
  if (last - first < kNotedAtOnce) {
    for (u64 piece = first; piece <= last; ++piece) note_piece(piece);
  } else {
    apply(range);
  }
}

void ReadyTables::apply(Copy& copy, VirtualRange range) {
  if (copy.is_broken || range.begin >= copy.made_to) return;
  if (copy.made_to < range.end) range.end = copy.made_to;
  if (copy.space->tree().follow(main_, range).is_ok()) return;
  copy.is_broken = true;
  ++broken_;
  pause();
}

void ReadyTables::apply(VirtualRange range) {
  for (u32 i = 0; i < count_; ++i) apply(copies_[i], range);
}

void ReadyTables::apply_all() {
  for_each_noted([&](VirtualRange piece) { apply(piece); });
  occupied_ = 0;
}

// ---- Handing over ----

AddressSpace* ReadyTables::take() {
  for (u32 i = 0; i < count_; ++i) {
    Copy& copy = copies_[i];
    if (!copy.is_complete()) continue;
    // For this copy alone: the others can wait. What is missing in the caches is asked for all at
    // once: that takes half the time off.
    for_each_noted([&](VirtualRange piece) {
      main_.prefetch(piece.begin);
      copy.space->tree().prefetch(piece.begin);
    });
    for_each_noted([&](VirtualRange piece) { apply(copy, piece); });
    if (copy.is_broken) continue;
    ++handed_over_;
    return remove(i);
  }
  ++missed_;
  return nullptr;
}

// ---- In the background ----

void ReadyTables::add(AddressSpace* empty) {
  DBOS_ASSERT(wants_another());
  copies_[count_++] = {empty, VirtualAddress(0), false};
}

AddressSpace* ReadyTables::remove(u32 index) {
  AddressSpace* space = copies_[index].space;
  copies_[index] = copies_[--count_];
  if (count_ == 0) occupied_ = 0;
  return space;
}

AddressSpace* ReadyTables::remove_useless() {
  for (u32 i = 0; i < count_; ++i) {
    if (copies_[i].is_broken) return remove(i);
  }
  return count_ > wanted_ ? remove(count_ - 1) : nullptr;
}

AddressSpace* ReadyTables::remove_any() {
  return count_ == 0 ? nullptr : remove(count_ - 1);
}

void ReadyTables::advance(u32 tables_max) {
  apply_all();
  const u32 unfinished = find_unfinished();
  if (unfinished != count_) make(copies_[unfinished], tables_max);
}

void ReadyTables::make(Copy& copy, u32 tables_max) {
  const u64& nodes = copy.space->tree().counts().nodes;
  const u64 nodes_max = nodes + tables_max;
  while (nodes < nodes_max && !copy.is_complete()) {
    const VirtualAddress begin = main_.next_table(copy.made_to);
    VirtualAddress end = begin + (nodes_max - nodes) * kLargePageSize;
    if (kProgramTablesEnd < end) end = kProgramTablesEnd;
    copy.made_to = end;
    apply(copy, {begin, end});
    if (copy.is_broken) return;
  }
}

u32 ReadyTables::find_unfinished() const {
  u32 i = 0;
  while (i < count_ && (copies_[i].is_broken || copies_[i].is_complete())) ++i;
  return i;
}

bool ReadyTables::all_are_complete() const {
  for (u32 i = 0; i < count_; ++i) {
    if (!copies_[i].is_complete()) return false;
  }
  return true;
}

ReadyCounts ReadyTables::counts() const {
  ReadyCounts result{0, 0, handed_over_, missed_, broken_};
  for (u32 i = 0; i < count_; ++i) {
    if (copies_[i].is_complete()) ++result.ready;
    result.table_bytes += copies_[i].space->tree().counts().nodes * kPageSize;
  }
  return result;
}

}  // namespace dbos
