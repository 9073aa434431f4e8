#include "guest/syscalls/marshal.h"

#include <asm/unistd.h>

#include "guest/hypercall.h"
#include "guest/lib/assert.h"
#include "guest/memory/user_copy.h"
#include "hypercall/abi.h"

namespace dbos {

using syscalls::Direction;
using syscalls::Excess;
using syscalls::Format;
using syscalls::kPathMax;
using syscalls::Shape;
using syscalls::Written;

Marshaller::Marshaller(u32 number, const syscalls::SystemCall& call, const u64 arguments[6])
    : number_(number), call_(call) {
  for (u32 i = 0; i < 6; i++) program_[i] = host_[i] = arguments[i];
}

Marshaller::~Marshaller() {
  marshal_memory::release();
}

i64 Marshaller::run() {
  for (u32 i = 0; i < call_.argument_count; i++) {
    DBOS_TRY_CALL(marshal(i, call_.arguments[i]));
  }
  for (u32 i = 0; i < call_.argument_count; i++) {
    switch (call_.arguments[i].shape) {
      case Shape::kBulk:
        return finish(run_bulk(i));
      case Shape::kVector:
        return finish(run_vector(i));
      case Shape::kMessage:
        return finish(run_message(i));
      case Shape::kMessages:
        return finish(run_messages(i));
      default:
        break;
    }
  }
  return finish(call_host(number_));
}

i64 Marshaller::call_host(u32 number) const {
  return hypercall(number, host_[0], host_[1], host_[2], host_[3], host_[4], host_[5]);
}

Result<void> Marshaller::marshal(u32 index, const Argument& argument) {
  switch (argument.shape) {
    case Shape::kPath:
    case Shape::kName:
      return marshal_string(index, argument);
    case Shape::kBytes:
      return marshal_bytes(index, argument);
    case Shape::kSizedByPointer:
      return marshal_sized_by_pointer(index, argument);
    case Shape::kSocketOption:
      return marshal_socket_option(index, argument);
    case Shape::kDescriptorSet:
      return marshal_descriptor_set(index, argument);
    case Shape::kPollArray:
      return marshal_poll_array(index, argument);
    case Shape::kSelfSized:
      return marshal_self_sized(index, argument);
    case Shape::kFileHandle:
      return marshal_file_handle(index, argument);
    case Shape::kMaskAndSize:
      return marshal_mask_and_size(index);
    case Shape::kByRequest:
      return marshal_by_request(index, argument);
    case Shape::kInterfaceList:
      return marshal_interface_list(index);
    case Shape::kNotification:
      return marshal_notification(index);
    case Shape::kSemaphoreValues:
      return marshal_semaphore_values(index, argument);
    case Shape::kWord:
      return Error(ENOSYS);  // the guest's futexes never come here
    case Shape::kBulk:       // by run_bulk() and so on, when all other arguments are ready
    case Shape::kVector:
    case Shape::kMessage:
    case Shape::kMessages:
    case Shape::kLength:  // by its kSizedByPointer
    case Shape::kUnused:
    case Shape::kValue:
    case Shape::kDescriptor:
    case Shape::kProgramAddress:
      return {};
  }
  return {};
}

Result<void> Marshaller::marshal_by_request(u32 index, const Argument& argument) {
  const syscalls::Request* request = syscalls::find_request(number_, program_[argument.count_from]);
  if (request == nullptr) return Error(syscalls::unknown_request(number_));
  return marshal(index, request->argument);
}

Result<void> Marshaller::marshal_string(u32 index, const Argument& argument) {
  if (program_[index] == 0) return {};
  const Bounce piece = bounce_.allocate(kPathMax);
  if (piece.data == nullptr) return Error(ENOMEM);
  const auto length = copy_string_from_program(reinterpret_cast<char*>(piece.data),
                                               VirtualAddress(program_[index]), kPathMax);
  host_[index] = piece.address.value();
  if (length.is_ok()) return {};
  if (length.error().code() == EFAULT) {
    set_fault(index, 1);
    return {};
  }
  if (argument.shape == Shape::kPath) return Error(ENAMETOOLONG);
  piece.data[kPathMax - 1] = '\0';
  return {};
}

// Whether Linux answers EINVAL for this count, and so must see it.
static bool is_wrong_count(u32 number, const syscalls::Argument& counter, u64 count) {
  constexpr u64 kEpollEventsMax = 0x7fffffff / 12;
  const bool is_negative = static_cast<i64>(count) < 0;
  switch (number) {
    case __NR_msgrcv:  // a long
      return is_negative;
    case __NR_epoll_wait:
    case __NR_epoll_pwait:
    case __NR_epoll_pwait2:
      return is_negative || count > kEpollEventsMax;
    default:
      return is_negative && counter.format == Format::kCount;
  }
}

// A message to a queue that is longer than any may be: Linux reads its type first.
static Error refuse_message(u64 address) {
  u64 type = 0;
  const bool is_readable = copy_from_program(&type, VirtualAddress(address), sizeof type).is_ok();
  return Error(is_readable ? EINVAL : EFAULT);
}

Result<void> Marshaller::marshal_bytes(u32 index, const Argument& argument) {
  if (program_[index] == 0) return {};
  u64 bytes = syscalls::bytes_of(call_, argument, host_);
  if (argument.limit != 0 && bytes > argument.limit) {
    const Argument& counter = call_.arguments[argument.count_from];
    const u64 count = syscalls::count_of(counter, host_[argument.count_from]);
    if (number_ == __NR_msgsnd) return refuse_message(program_[index]);
    if (argument.excess == Excess::kRefuse || is_wrong_count(number_, counter, count)) {
      set_fault(index, bytes);
      return {};
    }
    const u64 fewer = (argument.limit - argument.extra) / argument.unit;
    host_[argument.count_from] = fewer;
    bytes = fewer * argument.unit + argument.extra;
  }
  return marshal_piece(index, argument, bytes);
}

Result<void> Marshaller::marshal_piece(u32 index, const Argument& argument, u64 bytes) {
  const u64 program = program_[index];
  // A driver may write less than its request's name promises.
  if (argument.direction == Direction::kOut && number_ != __NR_ioctl) {
    const bool whole = argument.written == Written::kWhole;
    const u64 probed = whole || bytes == 0 ? bytes : 1;
    if (!marshal_memory::is_writable(VirtualAddress(program), probed)) {
      set_fault(index, bytes);
      return {};
    }
    const Bounce piece = bounce_.allocate(bytes);
    if (piece.data == nullptr) return Error(ENOMEM);
    host_[index] = piece.address.value();
    add_back({whole ? Back::kWhole : Back::kResult, &argument, program, piece.data, bytes, nullptr,
              nullptr});
    return {};
  }
  const Back rule =
      argument.direction == Direction::kInOutQuietly ? Back::kChangedQuietly : Back::kChanged;
  const Bounce piece = argument.is_written() ? DBOS_TRY(copy_in_and_back(program, bytes, rule))
                                             : DBOS_TRY(copy_in(program, bytes));
  pass(index, piece, bytes);
  return {};
}

Result<Bounce> Marshaller::copy_in(u64 program, u64 bytes) {
  const Bounce piece = bounce_.allocate(bytes);
  if (piece.data == nullptr) return Error(ENOMEM);
  if (copy_from_program(piece.data, VirtualAddress(program), bytes).is_error()) return Bounce{};
  return piece;
}

Result<Bounce> Marshaller::copy_in_and_back(u64 program, u64 bytes, Back rule) {
  const Bounce piece = DBOS_TRY(copy_in(program, bytes));
  if (piece.data == nullptr) return piece;
  const Bounce before = bounce_.allocate(bytes);
  if (before.data == nullptr) return Error(ENOMEM);
  __builtin_memcpy(before.data, piece.data, bytes);
  add_back({rule, nullptr, program, piece.data, bytes, before.data, nullptr});
  return piece;
}

bool Marshaller::pass(u32 index, const Bounce& piece, u64 bytes) {
  const bool is_readable = piece.data != nullptr;
  host_[index] = is_readable ? piece.address.value() : syscalls::fault_address(bytes);
  return is_readable;
}

void Marshaller::add_back(const CopyBack& back) {
  DBOS_ASSERT(back_count_ < kBacksMax);
  backs_[back_count_++] = back;
}

// The first byte from `at` on that differs, `size` if there is none.
static u64 next_difference(const u8* data, const u8* before, u64 at, u64 size) {
  while (size - at >= 8 && __builtin_memcmp(data + at, before + at, 8) == 0) at += 8;
  while (at < size && data[at] == before[at]) ++at;
  return at;
}

// Writes back the bytes that differ, one run of them at a time: another thread may have changed the
// others meanwhile, as the events that poll() waits for.
static Result<void> copy_changes(u64 program, const u8* data, const u8* before, u64 size) {
  for (u64 at = next_difference(data, before, 0, size); at < size;) {
    u64 end = at;
    while (end < size && data[end] != before[end]) ++end;
    DBOS_RETURN_IF_ERROR(copy_to_program(VirtualAddress(program + at), data + at, end - at));
    at = next_difference(data, before, end, size);
  }
  return {};
}

Result<void> Marshaller::copy_back(const CopyBack& back, i64 result) {
  const VirtualAddress program(back.program);
  u64 size = back.size;
  switch (back.rule) {
    case Back::kChanged:
      return copy_changes(back.program, back.data, back.before, back.size);
    case Back::kChangedQuietly:
      (void)copy_changes(back.program, back.data, back.before, back.size);
      return {};
    case Back::kResult: {
      const u64 written = static_cast<u64>(result) * back.argument->unit + back.argument->extra;
      if (result >= 0 && written < size) size = written;
      break;
    }
    case Back::kLengthAndBytes:
      if (*back.length < size) size = *back.length;
      break;
    case Back::kWhole:
      break;
  }
  if (result < 0) return {};
  return copy_to_program(program, back.data, size);
}

i64 Marshaller::finish(i64 result) {
  if (is_interrupted(result)) return result;
  for (u32 i = 0; i < back_count_; i++) {
    const Result<void> copied = copy_back(backs_[i], result);
    if (copied.is_error()) result = negative(copied.error());
  }
  return result;
}

}  // namespace dbos
