// read, write, send, receive and their vectored forms: the data stays where it lies.
#include <asm/stat.h>
#include <asm/unistd.h>
#include <linux/stat.h>

#include "guest/hypercall.h"
#include "guest/platform.h"
#include "guest/syscalls/marshal.h"
#include "guest/syscalls/marshal_message.h"
#include "hypercall/abi.h"

namespace dbos {

using marshal_memory::HostAccess;
using syscalls::kVectorMax;
using syscalls::Shape;

namespace {

constexpr u64 kSeekCurrent = 1;
constexpr u64 kMsgPeek = 0x2;
constexpr u64 kMsgWaitAll = 0x100;

u64 total_bytes(const Buffer* buffers, u32 count) {
  u64 total = 0;
  for (u32 i = 0; i < count; i++) total += buffers[i].size;
  return total;
}

// The call that does the same with iovecs; 0: none.
u32 vectored_form(u32 number) {
  switch (number) {
    case __NR_read:
      return __NR_readv;
    case __NR_write:
      return __NR_writev;
    case __NR_pread64:
      return __NR_preadv;
    case __NR_pwrite64:
      return __NR_pwritev;
    default:
      return 0;
  }
}

bool has_offset(u32 number) {
  switch (number) {
    case __NR_pread64:
    case __NR_pwrite64:
    case __NR_preadv:
    case __NR_pwritev:
    case __NR_preadv2:
    case __NR_pwritev2:
      return true;
    default:
      return false;
  }
}

class HeldSignals {
 public:
  explicit HeldSignals(bool holds) : holds_(holds) {
    if (holds_) marshal_memory::hold_signals();
  }
  ~HeldSignals() {
    if (holds_) marshal_memory::release_signals();
  }
  HeldSignals(const HeldSignals&) = delete;
  HeldSignals& operator=(const HeldSignals&) = delete;

 private:
  bool holds_;
};

i64 call(u32 number, const u64 (&a)[6]) {
  return hypercall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

}  // namespace

HostAccess Marshaller::access_of(u32 index) const {
  return call_.arguments[index].direction == syscalls::Direction::kIn ? HostAccess::kRead
                                                                      : HostAccess::kWrite;
}

i64 Marshaller::run_bulk(u32 index) {
  if (number_ == __NR_getrandom) return run_random(index);
  const Buffer buffer{program_[index], program_[call_.arguments[index].count_from]};
  return run_stream(&buffer, 1, index);
}

// There is no form with iovecs, and Linux gives all that it was asked for.
i64 Marshaller::run_random(u32 index) {
  u64& address = program_[index];
  u64& size = program_[call_.arguments[index].count_from];
  const u64 wanted = size < kTransferMax ? size : kTransferMax;
  const u64 mark = bounce_.mark();
  u64 done = 0;
  for (;;) {
    size = wanted - done < kGatherMax ? wanted - done : kGatherMax;
    const Buffer piece{address, size};
    const i64 result = run_stream(&piece, 1, index);
    if (result < 0) return done == 0 ? result : static_cast<i64>(done);
    done += static_cast<u64>(result);
    address += static_cast<u64>(result);
    if (done == wanted || static_cast<u64>(result) < size) return static_cast<i64>(done);
    marshal_memory::release();
    bounce_.rewind(mark);
  }
}

i64 Marshaller::run_vector(u32 index) {
  const u32 count = static_cast<u32>(program_[call_.arguments[index].count_from]);
  if (count == 0 || count > kVectorMax) {  // EINVAL above it
    set_fault(index, 0);
    return call_host(number_);
  }
  const Bounce array = DBOS_TRY_CALL(copy_in(program_[index], count * sizeof(Buffer)));
  if (array.data == nullptr) {
    set_fault(index, count * sizeof(Buffer));
    return call_host(number_);
  }
  return run_stream(reinterpret_cast<const Buffer*>(array.data), count, index);
}

// Of the call's first argument; nothing if Linux does not tell.
Marshaller::FileStatus Marshaller::file_status() {
  const Bounce piece = bounce_.allocate(sizeof(struct stat));
  if (piece.data == nullptr) return {};
  if (hypercall(__NR_fstat, host_[0], piece.address.value()) != 0) return {};
  const auto& status = *reinterpret_cast<const struct stat*>(piece.data);
  return {status.st_mode & S_IFMT, static_cast<u64>(status.st_size)};
}

// Linux takes 1024 iovecs at once. What needs more, or is large, goes in parts. Nothing but a death
// ends what Linux does with a regular file, so no signal may end it between two parts.
i64 Marshaller::run_stream(const Buffer* buffers, u32 count, u32 index) {
  const bool is_large = total_bytes(buffers, count) > kReadPartMax;
  const FileStatus file = is_large ? file_status() : FileStatus{};
  const HeldSignals held(file.type == S_IFREG);
  const bool writes = access_of(index) == HostAccess::kRead;
  const u64 part = writes || !is_large ? kTransferMax : read_part_max(file);
  u64 done = 0;
  const u64 mark = bounce_.mark();
  for (;;) {
    bool more = false;
    const i64 result = run_part(buffers, count, done, index, part, &more);
    if (result < 0) return done == 0 ? result : static_cast<i64>(done);
    done += static_cast<u64>(result);
    if (!more || done >= kTransferMax) return static_cast<i64>(done);
    marshal_memory::release();
    bounce_.rewind(mark);
  }
}

// How much of a large buffer Linux is given at once. Not divided are a message, and what the file
// still has: threads that read at one position must each get bytes that follow each other.
u64 Marshaller::read_part_max(const FileStatus& file) {
  if (number_ == __NR_recvfrom && (host_[3] & kMsgPeek) != 0) return kTransferMax;
  if (file.type == S_IFSOCK && is_message_socket()) return kTransferMax;
  if (file.type != S_IFREG) return kReadPartMax;
  const u64 position = read_position();
  const u64 left = position < file.size ? file.size - position : 0;
  if (left >= kTransferMax) return kTransferMax;
  // A multiple, as O_DIRECT wants it. The file may have grown: then there is another part.
  return left == 0 ? kReadPartMax : align_up(left, kReadPartMax);
}

// Where in its file the call begins.
u64 Marshaller::read_position() const {
  const bool is_current = !has_offset(number_) || host_[3] == ~u64{0};  // preadv2
  return is_current ? static_cast<u64>(hypercall(__NR_lseek, host_[0], 0, kSeekCurrent)) : host_[3];
}

// Whether Linux, that gave all that it was asked for, would have gone on: a file gives all there
// is; on anything else it could wait. What it has only shown, it would show again.
bool Marshaller::goes_on_reading() {
  if (number_ == __NR_recvfrom) {
    return (host_[3] & kMsgWaitAll) != 0 && (host_[3] & kMsgPeek) == 0 && !is_message_socket();
  }
  return hypercall(__NR_lseek, host_[0], 0, kSeekCurrent) >= 0;
}

i64 Marshaller::run_part(const Buffer* buffers, u32 count, u64 skip, u32 index, u64 part,
                         bool* more) {
  constexpr u64 kSpecialFileMax = 64 * kKiB;
  const bool writes = access_of(index) == HostAccess::kRead;
  if (part > bytes_limit_) part = bytes_limit_;
  Transfer transfer(bounce_, access_of(index));
  DBOS_TRY_CALL(transfer.map(buffers, count, skip, kVectorMax, part));
  const bool may_gather = skip == 0 && bytes_limit_ == kTransferMax && !transfer.is_exhausted();
  if (transfer.is_partial() && may_gather) {
    if (total_bytes(buffers, count) <= kGatherMax) return run_gathered(buffers, count, index);
    if (writes && is_message_socket()) return -EMSGSIZE;
  }
  const i64 result = call_with(transfer, skip, index);
  if (result == -EINVAL && number_ == __NR_read && transfer.count() > 1 && skip == 0) {
    // A file whose driver knows no iovecs found the first one too small (inotify, signalfd ...).
    Buffer whole = buffers[0];
    if (whole.size > kSpecialFileMax) whole.size = kSpecialFileMax;
    return run_gathered(&whole, 1, index);
  }
  if (result < 0) return result;
  if (transfer.is_exhausted() && static_cast<u64>(result) == transfer.bytes()) {
    marshal_memory::kill_for_memory();
  }
  DBOS_TRY_CALL(transfer.finish(static_cast<u64>(result)));
  *more = bytes_limit_ == kTransferMax && transfer.is_partial() &&
          static_cast<u64>(result) == transfer.bytes() && (writes || goes_on_reading());
  return result;
}

i64 Marshaller::run_gathered(const Buffer* buffers, u32 count, u32 index) {
  Transfer transfer(bounce_, access_of(index));
  DBOS_TRY_CALL(transfer.map_gathered(buffers, count));
  const i64 result = call_with(transfer, 0, index);
  if (result < 0) return result;
  DBOS_TRY_CALL(transfer.finish(static_cast<u64>(result)));
  return result;
}

i64 Marshaller::call_with(const Transfer& transfer, u64 skip, u32 index) {
  u64 arguments[6];
  for (u32 i = 0; i < 6; i++) arguments[i] = host_[i];
  const u32 size_index = call_.arguments[index].count_from;
  const bool bulk = call_.arguments[index].shape == Shape::kBulk;
  if (has_offset(number_)) {
    const bool current = arguments[3] == ~u64{0};  // preadv2, pwritev2
    if (!current) arguments[3] += skip;
  }
  if (bulk && transfer.count() == 1) {
    arguments[index] = transfer.vectors()[0].base;
    arguments[size_index] = transfer.vectors()[0].size;
    return call(number_, arguments);
  }
  if (number_ == __NR_sendto || number_ == __NR_recvfrom) {
    return call_as_message(transfer, number_ == __NR_sendto);
  }
  const u32 vectored = bulk ? vectored_form(number_) : number_;
  if (vectored == 0) {  // getrandom
    const Buffer whole{program_[index], program_[size_index]};
    return transfer.has_fault() ? -EFAULT : run_gathered(&whole, 1, index);
  }
  arguments[index] = transfer.vectors_address().value();
  arguments[size_index] = transfer.count();
  if (bulk) arguments[4] = 0;
  return call(vectored, arguments);
}

// sendto and recvfrom with more than one iovec: sendmsg and recvmsg.
i64 Marshaller::call_as_message(const Transfer& transfer, bool send) {
  const Bounce piece = bounce_.allocate(sizeof(HostMessage));
  if (piece.data == nullptr) return -ENOMEM;
  auto& message = *new (piece.data) HostMessage{};
  message.vectors = transfer.vectors_address().value();
  message.vector_count = transfer.count();
  message.name = host_[4];
  u32* length = nullptr;  // of the name that recvfrom returns
  if (send) {
    message.name_length = static_cast<u32>(host_[5]);
    if (message.name != 0 && message.name_length > kSocketNameMax) {  // sendmsg would not mind
      set_fault(1, host_[2]);
      return call_host(number_);
    }
  } else if (message.name != 0 && !syscalls::is_fault_address(host_[5], 4) && host_[5] != 0) {
    length = static_cast<u32*>(platform::direct_map(PhysicalAddress(host_[5])));
    message.name_length = *length;
  } else if (message.name != 0) {
    message.name = syscalls::fault_address(0);
    message.name_length = kSocketNameMax;
  }
  const i64 result =
      hypercall(send ? __NR_sendmsg : __NR_recvmsg, host_[0], piece.address.value(), host_[3]);
  if (result >= 0 && length != nullptr) *length = message.name_length;
  return result;
}

}  // namespace dbos
