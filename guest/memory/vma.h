// A vma: one contiguous piece of an address space with the same rights, kind and advice.
#pragma once

#include "guest/lib/types.h"
#include "guest/memory/window_object.h"
#include "hypercall/observe.h"

namespace dbos {

class Protection {
 public:
  static constexpr u8 kRead = 1;  // PROT_READ, PROT_WRITE, PROT_EXEC
  static constexpr u8 kWrite = 2;
  static constexpr u8 kExecute = 4;

  constexpr Protection() = default;
  constexpr explicit Protection(int linux_bits) : bits_(static_cast<u8>(linux_bits & 7)) {}
  constexpr bool may_read() const { return (bits_ & kRead) != 0; }
  constexpr bool may_write() const { return (bits_ & kWrite) != 0; }
  constexpr bool may_execute() const { return (bits_ & kExecute) != 0; }
  constexpr bool is_none() const { return bits_ == 0; }
  constexpr int linux_bits() const { return bits_; }
  constexpr bool operator==(const Protection&) const = default;

 private:
  u8 bits_ = 0;
};

enum class Access : u8 { kRead, kWrite, kExecute };

enum class VmaFlag : u32 {
  kGrowsDown = 1 << 0,       // MAP_GROWSDOWN
  kNoReserve = 1 << 1,       // MAP_NORESERVE
  kLocked = 1 << 2,          // mlock
  kLockOnFault = 1 << 3,     // mlock2(MLOCK_ONFAULT)
  kDontFork = 1 << 4,        // MADV_DONTFORK
  kWipeOnFork = 1 << 5,      // MADV_WIPEONFORK
  kHugePage = 1 << 6,        // MADV_HUGEPAGE
  kNoHugePage = 1 << 7,      // MADV_NOHUGEPAGE, MAP_STACK
  kDontDump = 1 << 8,        // MADV_DONTDUMP
  kMayNotWrite = 1 << 9,     // a shared mapping of a file that is not open for writing
  kRandom = 1 << 10,         // MADV_RANDOM
  kSequential = 1 << 11,     // MADV_SEQUENTIAL
  kMayNotExecute = 1 << 12,  // a file of a file system that is mounted with noexec
};

class VmaFlags {
 public:
  constexpr VmaFlags() = default;
  constexpr VmaFlags(VmaFlag flag) : bits_(static_cast<u32>(flag)) {}  // NOLINT: implicit
  constexpr bool has(VmaFlag flag) const { return (bits_ & static_cast<u32>(flag)) != 0; }
  constexpr VmaFlags operator|(VmaFlags other) const { return VmaFlags(bits_ | other.bits_); }
  constexpr VmaFlags without(VmaFlags other) const { return VmaFlags(bits_ & ~other.bits_); }
  constexpr bool operator==(const VmaFlags&) const = default;
  constexpr u32 bits() const { return bits_; }

 private:
  constexpr explicit VmaFlags(u32 bits) : bits_(bits) {}
  u32 bits_ = 0;
};
constexpr VmaFlags operator|(VmaFlag a, VmaFlag b) {
  return VmaFlags(a) | VmaFlags(b);
}

struct Vma {
  VirtualRange range;
  Protection protection;
  VmaKind kind = VmaKind::kAnonymous;
  VmaName name = VmaName::kNone;
  VmaFlags flags;
  WindowObject* window = nullptr;  // of the window kinds; this vma holds a reference
  u64 window_offset = 0;           // of range.begin in the object

  // Of the tree and list that it is in (vma_tree.h).
  Vma* left = nullptr;
  Vma* right = nullptr;
  Vma* previous = nullptr;
  Vma* next = nullptr;
  u64 largest_gap = 0;  // in this subtree: of the gaps before its vmas
  u32 height = 1;

  VirtualAddress begin() const { return range.begin; }
  VirtualAddress end() const { return range.end; }
  u64 size() const { return range.size(); }
  bool is_anonymous() const { return kind == VmaKind::kAnonymous; }
  bool is_shared() const { return kind == VmaKind::kWindowShared; }
  bool has(VmaFlag flag) const { return flags.has(flag); }
  // What RLIMIT_DATA limits (Linux: is_data_mapping).
  bool is_data() const {
    return protection.may_write() && !is_shared() && !has(VmaFlag::kGrowsDown);
  }
  bool permits(Access access) const {
    switch (access) {
      case Access::kRead:
        return !protection.is_none();
      case Access::kWrite:
        return protection.may_write();
      case Access::kExecute:
        return protection.may_execute();
    }
    return false;
  }
  // The window's address of a byte of this vma.
  PhysicalAddress window_address(VirtualAddress address) const {
    return window->address() + window_offset + (address - range.begin);
  }
  // Whether `other`, which begins where this one ends, could be the same vma.
  bool can_merge(const Vma& other) const {
    return range.end == other.range.begin && protection == other.protection && kind == other.kind &&
           name == other.name && flags == other.flags && window == other.window &&
           (window == nullptr || window_offset + size() == other.window_offset);
  }
};

}  // namespace dbos
