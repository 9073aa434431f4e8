// Arguments whose size is not a fixed number and not another argument.
#include <asm/unistd.h>
#include <linux/posix_types.h>

#include "guest/hypercall.h"
#include "guest/memory/user_copy.h"
#include "guest/syscalls/marshal.h"
#include "hypercall/linux_structures.h"

namespace dbos {

using syscalls::Direction;
using syscalls::fault_address;

// accept's and getsockopt's pair of a buffer and a pointer to its length.
Result<void> Marshaller::marshal_sized_by_pointer(u32 index, const Argument& argument) {
  const u32 length_index = argument.count_from;
  const u64 length_program = program_[length_index];
  const u64 program = program_[index];
  if (program != 0) set_fault(index, 0);
  if (length_program == 0) return {};
  const Bounce length = DBOS_TRY(copy_in_and_back(length_program, 4, Back::kChanged));
  if (!pass(length_index, length, 4)) return {};
  u32* const bytes = reinterpret_cast<u32*>(length.data);
  if (program == 0 || *bytes > 0x7fffffff) return {};  // negative: EINVAL, says Linux
  if (*bytes > argument.limit) *bytes = argument.limit;
  const Bounce piece = DBOS_TRY(copy_in(program, *bytes));
  if (piece.data == nullptr || !marshal_memory::is_writable(VirtualAddress(program), *bytes)) {
    return {};
  }
  host_[index] = piece.address.value();
  add_back({Back::kLengthAndBytes, nullptr, program, piece.data, *bytes, nullptr, bytes});
  return {};
}

Result<void> Marshaller::marshal_socket_option(u32 index, const Argument& argument) {
  const bool set = argument.direction == Direction::kIn;
  const auto direction = set ? syscalls::OptionDirection::kSet : syscalls::OptionDirection::kGet;
  if (!syscalls::is_plain_socket_option(direction, static_cast<i32>(program_[1]),
                                        static_cast<i32>(program_[2]))) {
    return Error(ENOPROTOOPT);
  }
  return set ? marshal_bytes(index, argument) : marshal_sized_by_pointer(index, argument);
}

// Linux looks only at as many bits as the process has room for descriptors, so the rest of the
// program's array need not exist: it may say getdtablesize(), of an fd_set.
Result<void> Marshaller::marshal_descriptor_set(u32 index, const Argument& argument) {
  if (program_[index] == 0) return {};
  i32 bits = static_cast<i32>(host_[argument.count_from]);
  if (bits < 0) {
    set_fault(index, 0);
    return {};
  }
  if (bits > static_cast<i32>(syscalls::kDescriptorSetBitsMax)) {
    bits = static_cast<i32>(syscalls::kDescriptorSetBitsMax);
  }
  u64 bytes = syscalls::descriptor_set_bytes(static_cast<u64>(bits));
  Bounce piece = DBOS_TRY(copy_in_and_back(program_[index], bytes, Back::kChanged));
  if (piece.data == nullptr && bits > __FD_SETSIZE) {
    bits = __FD_SETSIZE;
    bytes = syscalls::descriptor_set_bytes(__FD_SETSIZE);
    piece = DBOS_TRY(copy_in_and_back(program_[index], bytes, Back::kChanged));
  }
  host_[argument.count_from] = static_cast<u64>(bits);
  pass(index, piece, bytes);
  return {};
}

Result<void> Marshaller::marshal_poll_array(u32 index, const Argument& argument) {
  constexpr u64 kPollMax = BounceBuffer::kLargestPiece;
  const u32 count = static_cast<u32>(host_[argument.count_from]);
  if (program_[index] == 0) return {};
  const u64 bytes = u64{count} * argument.unit;
  if (bytes > kPollMax) {  // EINVAL above RLIMIT_NOFILE
    set_fault(index, bytes);
    return {};
  }
  const Bounce piece = DBOS_TRY(copy_in_and_back(program_[index], bytes, Back::kChanged));
  pass(index, piece, bytes);
  return {};
}

// sched_setattr: size 0 stands for the first version's; of a wrong size Linux reads the size only.
Result<void> Marshaller::marshal_self_sized(u32 index, const Argument&) {
  const u64 program = program_[index];
  if (program == 0) return {};
  const auto size = read_program<u32>(VirtualAddress(program));
  if (size.is_error()) {
    set_fault(index, 4);
    return {};
  }
  u32 bytes = size.value() == 0 ? kSchedulingSizeMin : size.value();
  if (bytes < kSchedulingSizeMin || bytes > syscalls::kSelfSizedMax) bytes = 4;
  const Bounce piece = DBOS_TRY(copy_in_and_back(program, bytes, Back::kChanged));
  if (pass(index, piece, bytes)) *reinterpret_cast<u32*>(piece.data) = size.value();
  return {};
}

Result<void> Marshaller::marshal_file_handle(u32 index, const Argument& argument) {
  const u64 program = program_[index];
  if (program == 0) return {};
  const auto size = read_program<u32>(VirtualAddress(program));
  const u32 bytes = size.is_ok() && size.value() <= syscalls::kFileHandleMax ? 8 + size.value() : 8;
  const Bounce piece = argument.direction == Direction::kIn
                           ? DBOS_TRY(copy_in(program, bytes))
                           : DBOS_TRY(copy_in_and_back(program, bytes, Back::kChanged));
  pass(index, piece, bytes);
  return {};
}

Result<void> Marshaller::marshal_mask_and_size(u32 index) {
  if (program_[index] == 0) return {};
  const Bounce piece = DBOS_TRY(copy_in(program_[index], sizeof(MaskAndSize)));
  if (!pass(index, piece, sizeof(MaskAndSize))) return {};
  auto& both = *reinterpret_cast<MaskAndSize*>(piece.data);
  if (both.mask == 0) return {};
  const Bounce mask = DBOS_TRY(copy_in(both.mask, 8));
  both.mask = mask.data == nullptr ? fault_address(8) : mask.address.value();
  return {};
}

Result<void> Marshaller::marshal_interface_list(u32 index) {
  const u64 program = program_[index];
  if (program == 0) return {};
  const Bounce piece = DBOS_TRY(copy_in(program, sizeof(InterfaceList)));
  if (!pass(index, piece, sizeof(InterfaceList))) return {};
  auto& list = *reinterpret_cast<InterfaceList*>(piece.data);
  // Only the length goes back; the buffer's address stays the program's.
  add_back({Back::kWhole, nullptr, program, piece.data, 4, nullptr, nullptr});
  if (list.buffer == 0) return {};
  if (list.length < 0) {
    list.buffer = fault_address(0);
    return {};
  }
  const i32 limit = syscalls::kOptionMax;
  if (list.length > limit) list.length = limit;
  const Bounce buffer =
      DBOS_TRY(copy_in_and_back(list.buffer, static_cast<u64>(list.length), Back::kChanged));
  list.buffer = buffer.data == nullptr ? fault_address(0) : buffer.address.value();
  return {};
}

Result<void> Marshaller::marshal_notification(u32 index) {
  if (program_[index] == 0) return {};
  const Bounce piece = DBOS_TRY(copy_in(program_[index], sizeof(Notification)));
  if (!pass(index, piece, sizeof(Notification))) return {};
  auto& event = *reinterpret_cast<Notification*>(piece.data);
  if (event.notify != kNotifyThread || event.value == 0) return {};
  const Bounce cookie = DBOS_TRY(copy_in(event.value, kNotifyCookieSize));
  event.value = cookie.data == nullptr ? fault_address(kNotifyCookieSize) : cookie.address.value();
  return {};
}

// GETALL, SETALL: Linux alone knows how many semaphores the set has.
Result<void> Marshaller::marshal_semaphore_values(u32 index, const Argument& argument) {
  constexpr u64 kStatus = 104;      // struct semid64_ds
  constexpr u64 kCountOffset = 80;  // sem_nsems
  constexpr u64 kIpcStat = 2;
  const Bounce status = bounce_.allocate(kStatus);
  const Bounce values = bounce_.allocate(syscalls::kSemaphoresMax * 2);
  if (status.data == nullptr || values.data == nullptr) return Error(ENOMEM);
  const i64 result = hypercall(__NR_semctl, program_[0], 0, kIpcStat, status.address.value());
  if (result < 0) return error_of(result);
  u64 count = 0;
  __builtin_memcpy(&count, status.data + kCountOffset, sizeof count);
  const u64 bytes = (count < syscalls::kSemaphoresMax ? count : syscalls::kSemaphoresMax) * 2;
  host_[index] = values.address.value();
  const VirtualAddress program(program_[index]);
  if (argument.direction == Direction::kIn) {
    if (copy_from_program(values.data, program, bytes).is_error()) set_fault(index, bytes);
    return {};
  }
  add_back({Back::kWhole, nullptr, program_[index], values.data, bytes, nullptr, nullptr});
  return {};
}

}  // namespace dbos
