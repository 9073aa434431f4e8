#include "guest/syscalls/marshal_transfer.h"

#include "guest/memory/user_copy.h"
#include "hypercall/syscall_kinds.h"

namespace dbos {

using marshal_memory::HostAccess;
using marshal_memory::Segment;
using marshal_memory::Segments;
using syscalls::fault_address;
using syscalls::kNoUserAddress;

namespace {

bool is_direct(u64 address, u64 size) {
  return is_aligned(address | size, kDirectAlignment);
}

u64 pages_spanned(const Buffer& buffer) {
  if (buffer.size == 0 || !is_program_range(VirtualAddress(buffer.base), buffer.size)) return 1;
  return (align_up(buffer.base + buffer.size, kPageSize) - align_down(buffer.base, kPageSize)) /
         kPageSize;
}

// How many iovecs the buffers can become, at most `capacity`, and one for a fault.
u32 vectors_needed(const Buffer* buffers, u32 count, u32 capacity) {
  u64 needed = 1;
  for (u32 i = 0; i < count && needed < capacity; i++) needed += pages_spanned(buffers[i]);
  return needed < capacity ? static_cast<u32>(needed) : capacity;
}

}  // namespace

Result<void> Transfer::reserve(u32 capacity) {
  const Bounce vectors = bounce_->allocate(capacity * sizeof(Buffer));
  const Bounce copies = bounce_->allocate(capacity * sizeof(Copy));
  if (vectors.data == nullptr || copies.data == nullptr) return Error(ENOMEM);
  vectors_ = reinterpret_cast<Buffer*>(vectors.data);
  vectors_address_ = vectors.address;
  copies_ = reinterpret_cast<Copy*>(copies.data);
  capacity_ = capacity;
  return {};
}

void Transfer::append(u64 base, u64 size, Copy copy) {
  if (count_ == capacity_) {
    partial_ = true;
    return;
  }
  vectors_[count_] = {base, size};
  copies_[count_] = copy;
  count_++;
  bytes_ += size;
}

// Makes what begins where the last iovec ends a part of it. False: it begins elsewhere.
bool Transfer::extend(u64 base, u64 size) {
  Buffer& last = vectors_[count_ - 1];
  if (last.base + last.size != base) return false;
  last.size += size;
  bytes_ += size;
  return true;
}

Result<void> Transfer::map(const Buffer* buffers, u32 count, u64 skip, u32 capacity,
                           u64 bytes_max) {
  bytes_max_ = bytes_max;
  DBOS_RETURN_IF_ERROR(reserve(vectors_needed(buffers, count, capacity)));
  for (u32 i = 0; i < count && !partial_; i++) {
    const u64 skipped = skip < buffers[i].size ? skip : buffers[i].size;
    skip -= skipped;
    if (skipped != 0 && skipped == buffers[i].size) continue;
    add(buffers[i].base + skipped, buffers[i].size - skipped);
  }
  return {};
}

void Transfer::add(u64 address, u64 size) {
  // Linux refuses the whole call: EFAULT or EINVAL.
  if (!is_program_range(VirtualAddress(address), size)) {
    append(kNoUserAddress, size);
    bytes_ -= size;
    fault_ = true;
    return;
  }
  if (size > bytes_max_ - bytes_) {
    size = bytes_max_ - bytes_;
    partial_ = bytes_max_ != kTransferMax;  // else it is Linux that takes no more
  }
  if (size == 0 || fault_) return append(fault_address(size), size);
  if (size <= kSmallBuffer && !is_direct(address, size) && add_copy(address, size)) return;
  add_resolved(address, size);
}

// Appends a copy; false where the program has no access, or there is no memory for one.
bool Transfer::add_copy(u64 address, u64 size) {
  if (size > bounce_->free_bytes()) return false;
  const VirtualAddress program(address);
  if (access_ == HostAccess::kWrite && !marshal_memory::is_writable(program, size)) return false;
  const Bounce piece = bounce_->allocate(size);
  if (piece.data == nullptr) return false;
  if (access_ == HostAccess::kRead && copy_from_program(piece.data, program, size).is_error()) {
    return false;
  }
  append(piece.address.value(), size, {piece.data, address});
  return true;
}

void Transfer::add_resolved(u64 address, u64 size) {
  constexpr u32 kBatch = 16;
  Segment segments[kBatch];
  for (u64 done = 0; done < size;) {
    const u64 at = address + done;
    const Segments found =
        marshal_memory::resolve(VirtualAddress(at), size - done, access_, segments, kBatch);
    const bool scattered = done == 0 && found.count > 1 && !found.is_fault && !found.is_exhausted;
    if (scattered && size <= kScatteredCopyMax && !is_direct(address, size) &&
        add_copy(address, size)) {
      return;
    }
    for (u32 i = 0; i < found.count; i++) {
      const u64 base = segments[i].address.value();
      if (i != 0 || done == 0 || !extend(base, segments[i].size)) append(base, segments[i].size);
    }
    done += found.bytes;
    if (count_ == capacity_) {
      partial_ = partial_ || done < size;
      return;
    }
    // Linux may have less to write than the buffer holds; what it is to read, it reads.
    const bool is_first_missing = found.bytes == 0 && count_ == 0;
    if (found.is_exhausted && (access_ == HostAccess::kRead || is_first_missing)) {
      marshal_memory::kill_for_memory();
    }
    if (found.bytes == 0 && !found.is_fault && count_ != 0) {  // no more can be held for one call
      partial_ = true;
      exhausted_ = found.is_exhausted;
      return;
    }
    if (found.is_fault || found.bytes == 0) {
      fault_ = true;
      return append(fault_address(size - done), size - done);
    }
  }
}

Result<void> Transfer::map_gathered(const Buffer* buffers, u32 count) {
  u64 total = 0;
  for (u32 i = 0; i < count; i++) total += buffers[i].size;
  if (total > kGatherMax) total = kGatherMax;
  const Bounce piece = bounce_->allocate(total);
  if (piece.data == nullptr) return Error(ENOMEM);
  count_ = 0;
  bytes_ = 0;
  partial_ = false;
  DBOS_RETURN_IF_ERROR(reserve(1));
  append(piece.address.value(), total, {piece.data, 0});
  scatter_ = buffers;
  scatter_count_ = count;
  u64 done = 0;
  for (u32 i = 0; i < count && done < total; i++) {
    const u64 size = buffers[i].size < total - done ? buffers[i].size : total - done;
    const VirtualAddress program(buffers[i].base);
    if (access_ == HostAccess::kRead) {
      DBOS_RETURN_IF_ERROR(copy_from_program(piece.data + done, program, size));
    } else if (!marshal_memory::is_writable(program, size)) {
      return Error(EFAULT);
    }
    done += size;
  }
  return {};
}

Result<void> Transfer::finish(u64 bytes) {
  if (access_ == HostAccess::kRead) return {};
  if (scatter_ != nullptr) {
    const u8* data = copies_[0].data;
    for (u32 i = 0; i < scatter_count_ && bytes != 0; i++) {
      const u64 size = scatter_[i].size < bytes ? scatter_[i].size : bytes;
      DBOS_RETURN_IF_ERROR(copy_to_program(VirtualAddress(scatter_[i].base), data, size));
      data += size;
      bytes -= size;
    }
    return {};
  }
  for (u32 i = 0; i < count_ && bytes != 0; i++) {
    const u64 size = vectors_[i].size < bytes ? vectors_[i].size : bytes;
    if (copies_[i].data != nullptr) {
      DBOS_RETURN_IF_ERROR(
          copy_to_program(VirtualAddress(copies_[i].program), copies_[i].data, size));
    }
    bytes -= size;
  }
  return {};
}

}  // namespace dbos
