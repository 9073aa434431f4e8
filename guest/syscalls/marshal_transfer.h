// The program's buffers of one read or write, as Linux is to see them: iovecs of guest-physical
// memory. Nothing is copied but what is small, or scattered and not large.
//
// Where the program may not access a byte, the iovec of the rest is a fault address: how much Linux
// transfers before it notices, and what it answers, is then what it would do natively.
#pragma once

#include "guest/lib/result.h"
#include "guest/syscalls/marshal_bounce.h"
#include "guest/syscalls/marshal_memory.h"
#include "hypercall/linux_structures.h"

namespace dbos {

// In the program's own arrays `base` is the program's address, else Linux's.
using Buffer = HostVector;

inline constexpr u64 kTransferMax = 0x7ffff000;  // MAX_RW_COUNT: Linux moves no more at once

// What Linux is to write is made present first, so it is asked for less at once where it need not
// have as much: a program may read a few bytes into a buffer that it never touched.
inline constexpr u64 kReadPartMax = 2 * kMiB;

// Buffers up to this size are copied: cheaper than to walk the page tables and publish the range.
// Not so what is aligned as O_DIRECT wants it.
inline constexpr u64 kSmallBuffer = 512;
inline constexpr u64 kDirectAlignment = 512;
// Scattered buffers up to this size are copied, so that a file whose driver knows no iovecs
// (timerfd, inotify ...) sees one buffer.
inline constexpr u64 kScatteredCopyMax = 16 * kKiB;
// What has more pieces than Linux takes iovecs is copied up to this size, so that a datagram and a
// write to a pipe stay whole.
inline constexpr u64 kGatherMax = kMiB;

class Transfer {
 public:
  Transfer(BounceBuffer& bounce, marshal_memory::HostAccess access)
      : bounce_(&bounce), access_(access) {}

  // Maps `buffers`, without their first `skip` bytes, to at most `capacity` iovecs and about
  // `bytes_max` bytes. ENOMEM.
  Result<void> map(const Buffer* buffers, u32 count, u64 skip, u32 capacity,
                   u64 bytes_max = kTransferMax);
  // As one iovec, by copying: for calls that have no vectored form. At most kGatherMax bytes.
  Result<void> map_gathered(const Buffer* buffers, u32 count);

  // Copies what Linux put into copies of the program's buffers.
  Result<void> finish(u64 bytes);

  const Buffer* vectors() const { return vectors_; }
  PhysicalAddress vectors_address() const { return vectors_address_; }
  u32 count() const { return count_; }
  u64 bytes() const { return bytes_; }
  // There was no room for all of it: `bytes` is a prefix.
  bool is_partial() const { return partial_; }
  // As partial, and there is no memory for the rest: Linux must not come that far.
  bool is_exhausted() const { return exhausted_; }
  bool has_fault() const { return fault_; }

 private:
  struct Copy {  // of an iovec: where it comes from, if it is a copy
    u8* data;
    u64 program;
  };

  Result<void> reserve(u32 capacity);
  void append(u64 base, u64 size, Copy copy = {});
  bool extend(u64 base, u64 size);
  void add(u64 address, u64 size);
  bool add_copy(u64 address, u64 size);
  void add_resolved(u64 address, u64 size);

  BounceBuffer* bounce_;
  marshal_memory::HostAccess access_;
  Buffer* vectors_ = nullptr;
  Copy* copies_ = nullptr;
  PhysicalAddress vectors_address_;
  u32 capacity_ = 0;
  u32 count_ = 0;
  u64 bytes_ = 0;
  u64 bytes_max_ = kTransferMax;
  bool partial_ = false;
  bool exhausted_ = false;
  bool fault_ = false;
  // Gathered: vectors_ has one entry, and finish() scatters it to these.
  const Buffer* scatter_ = nullptr;
  u32 scatter_count_ = 0;
};

}  // namespace dbos
