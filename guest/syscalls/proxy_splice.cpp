// vmsplice lends a pipe the program's pages until somebody reads them. Here a page may be another
// one's by then, so the bytes are copied: writev, or readv for the pipe's other end. Like vmsplice,
// that stops when the pipe is full.
#include <asm/ioctls.h>
#include <asm/unistd.h>
#include <linux/fcntl.h>

#include "guest/hypercall.h"
#include "guest/syscalls/marshal.h"
#include "guest/syscalls/proxy.h"

namespace dbos {

namespace {

constexpr u64 kSpliceFlags = 0xf;
constexpr u64 kSpliceNonBlocking = 2;
constexpr u16 kPollIn = 1;
constexpr u16 kPollOut = 4;

bool is_ready(u64 descriptor, u16 events) {
  struct Entry {
    i32 descriptor;
    u16 events;
    u16 returned;
  };
  BounceBuffer bounce;
  const Bounce piece = bounce.allocate(sizeof(Entry));
  new (piece.data) Entry{static_cast<i32>(descriptor), events, 0};
  return hypercall(__NR_poll, piece.address.value(), 1, 0) == 1;
}

// Bytes that surely fit into a pipe where any fit: it counts pages, which may be filled in part.
u64 room_in_pipe(u64 descriptor, u64 pipe_size) {
  BounceBuffer bounce;
  const Bounce piece = bounce.allocate(sizeof(i32));
  const i64 result = hypercall(__NR_ioctl, descriptor, FIONREAD, piece.address.value());
  const bool is_empty = result == 0 && *reinterpret_cast<const i32*>(piece.data) == 0;
  return is_empty ? pipe_size : kPageSize;
}

}  // namespace

i64 splice_program_memory(const u64 arguments[6]) {
  const u64 descriptor = arguments[0];
  const u64 flags = static_cast<u32>(arguments[3]);
  if ((flags & ~kSpliceFlags) != 0) return -EINVAL;
  const i64 pipe_size = hypercall(__NR_fcntl, descriptor, F_GETPIPE_SZ);
  const i64 status = hypercall(__NR_fcntl, descriptor, F_GETFL);
  if (pipe_size < 0 || status < 0) return -EBADF;
  const bool reads = (status & O_ACCMODE) == O_RDONLY;
  if ((flags & kSpliceNonBlocking) != 0 && !is_ready(descriptor, reads ? kPollIn : kPollOut)) {
    return -EAGAIN;
  }
  const u32 number = reads ? __NR_readv : __NR_writev;
  const u64 vectored[6] = {descriptor, arguments[1], arguments[2], 0, 0, 0};
  Marshaller marshaller(number, *syscalls::find(number), vectored);
  if (!reads) marshaller.limit_bytes(room_in_pipe(descriptor, static_cast<u64>(pipe_size)));
  return marshaller.run();
}

}  // namespace dbos
