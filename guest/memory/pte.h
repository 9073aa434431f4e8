// Page-table entries of x86-64 (Intel SDM volume 3, 4.5) and what the kernel keeps in their spare
// bits.
//
// An entry that is not empty refers to something, present or not: an entry with kHeld and without
// kPresent keeps its frame while the program may not touch it (PROT_NONE).
#pragma once

#include <atomic>

#include "guest/lib/assert.h"
#include "guest/lib/types.h"
#include "guest/memory/direct_map.h"

namespace dbos {

// What an entry of a node at this level maps.
enum class Level : u8 {
  kPage = 1,       // 4 KiB
  kDirectory = 2,  // 2 MiB
  kGigabyte = 3,   // 1 GiB
  kRoot = 4,       // 512 GiB
};
constexpr Level below(Level level) {
  return static_cast<Level>(static_cast<u8>(level) - 1);
}
constexpr u64 span(Level level) {
  return u64{1} << (12 + 9 * (static_cast<u8>(level) - 1));
}
constexpr u64 pages_of(Level level) {
  return span(level) / kPageSize;
}
constexpr u32 entry_index(VirtualAddress address, Level level) {
  return static_cast<u32>(address.value() / span(level)) & 511;
}

class Pte {
 public:
  static constexpr u64 kPresent = u64{1} << 0;
  static constexpr u64 kWritable = u64{1} << 1;
  static constexpr u64 kUser = u64{1} << 2;
  static constexpr u64 kAccessed = u64{1} << 5;
  static constexpr u64 kDirty = u64{1} << 6;
  static constexpr u64 kLarge = u64{1} << 7;
  static constexpr u64 kHeld = u64{1} << 9;           // ignored by the processor
  static constexpr u64 kHostWritable = u64{1} << 10;  // a shared window page, populated for writing
  static constexpr u64 kNoExecute = u64{1} << 63;
  static constexpr u64 kAddressMask = 0x000f'ffff'ffff'f000;  // bits 12 to 51

  constexpr Pte() = default;
  constexpr explicit Pte(u64 bits) : bits_(bits) {}
  static constexpr Pte node(PhysicalAddress node) {
    return Pte(node.value() | kPresent | kWritable | kAccessed);
  }

  constexpr u64 bits() const { return bits_; }
  constexpr bool is_empty() const { return bits_ == 0; }
  constexpr bool is_present() const { return has(kPresent); }
  constexpr bool is_writable() const { return has(kWritable); }
  constexpr bool is_executable() const { return !has(kNoExecute); }
  constexpr bool has(u64 flag) const { return (bits_ & flag) != 0; }
  constexpr bool is_leaf(Level level) const { return level == Level::kPage || has(kLarge); }
  constexpr PhysicalAddress address() const { return PhysicalAddress(bits_ & kAddressMask); }
  constexpr Pte with(u64 flags) const { return Pte(bits_ | flags); }
  constexpr Pte without(u64 flags) const { return Pte(bits_ & ~flags); }
  constexpr Pte with_address(PhysicalAddress address) const {
    return Pte((bits_ & ~kAddressMask) | address.value());
  }
  constexpr bool operator==(const Pte&) const = default;

 private:
  u64 bits_ = 0;
};

// One entry in memory. The processor sets accessed and dirty bits of a present entry at any time,
// so an entry that it may be using is changed by single atomic operations only.
class PteSlot {
 public:
  Pte load() const { return Pte(bits_.load(std::memory_order_relaxed)); }
  // Only where no processor can be using the entry, or none of its bits matters any more.
  void store(Pte value) { bits_.store(value.bits(), std::memory_order_release); }
  Pte exchange(Pte value) { return Pte(bits_.exchange(value.bits(), std::memory_order_acq_rel)); }
  void set(u64 flags) { bits_.fetch_or(flags, std::memory_order_acq_rel); }
  void clear(u64 flags) { bits_.fetch_and(~flags, std::memory_order_acq_rel); }
  // Keeps what the processor sets in between.
  void change_flags(u64 to_clear, u64 to_set) {
    u64 old = bits_.load(std::memory_order_relaxed);
    while (
        !bits_.compare_exchange_weak(old, (old & ~to_clear) | to_set, std::memory_order_acq_rel)) {
    }
  }

 private:
  std::atomic<u64> bits_;
};
static_assert(sizeof(PteSlot) == 8);

inline constexpr u32 kEntriesPerNode = 512;
inline constexpr u32 kProgramRootEntries = 256;  // of a root; the others are the kernel's
inline constexpr VirtualAddress kProgramTablesEnd(kProgramRootEntries* span(Level::kRoot));

// What the entries of a node map that have to do with the range; the node maps from `base` on.
//   for (VirtualAddress at = part.begin; at < part.end; at = at + span(level)) ...
constexpr VirtualRange entries_in(Level level, VirtualAddress base, VirtualRange range) {
  const VirtualAddress end =
      level == Level::kRoot ? kProgramTablesEnd : base + span(level) * kEntriesPerNode;
  const VirtualRange part = range.intersect({base, end});
  return {VirtualAddress(align_down(part.begin.value(), span(level))), part.end};
}

struct Node {
  PteSlot entries[kEntriesPerNode];
  PteSlot& entry(VirtualAddress address, Level level) {
    return entries[entry_index(address, level)];
  }
};
static_assert(sizeof(Node) == kPageSize);

inline Node& node_at(PhysicalAddress address) {
  return *pointer_to<Node>(address);
}

}  // namespace dbos
