#include "guest/syscalls/marshal_message.h"

#include <asm/unistd.h>

#include "guest/hypercall.h"
#include "guest/memory/user_copy.h"
#include "guest/platform.h"
#include "guest/syscalls/marshal.h"

namespace dbos {

using marshal_memory::HostAccess;
using syscalls::fault_address;
using syscalls::kControlMax;
using syscalls::kControlSentMax;
using syscalls::kMessageCountMax;
using syscalls::kVectorMax;

namespace {

constexpr u64 kNameLengthOffset = offsetof(HostMessage, name_length);
constexpr u64 kControlLengthOffset = offsetof(HostMessage, control_length);
constexpr u64 kFlagsOffset = offsetof(HostMessage, flags);
constexpr u64 kBytesOffset = offsetof(HostMessageOfMany, bytes);

// Hands back what Linux received: how many messages the program took, or the first one's error.
i64 finish_batch(u64 program, u32 count, const HostMessageOfMany* message, MessageState* state) {
  for (u32 i = 0; i < count; i++) {
    const u64 address = program + u64{i} * sizeof(HostMessageOfMany);
    auto finished = state[i].finish(address, message[i].message, message[i].bytes);
    if (finished.is_ok()) {
      finished = write_program(VirtualAddress(address + kBytesOffset), message[i].bytes);
    }
    if (finished.is_error()) return i == 0 ? negative(finished.error()) : static_cast<i64>(i);
  }
  return count;
}

}  // namespace

Result<void> MessageState::finish(u64 address, const HostMessage& message, u64 bytes) {
  if (access == HostAccess::kRead) return {};
  DBOS_RETURN_IF_ERROR(transfer.finish(bytes));
  if (program.name != 0) {
    const u32 room = program.name_length < kSocketNameMax ? program.name_length : kSocketNameMax;
    const u32 length = message.name_length < room ? message.name_length : room;
    if (name != nullptr) {
      DBOS_RETURN_IF_ERROR(copy_to_program(VirtualAddress(program.name), name, length));
    }
    DBOS_RETURN_IF_ERROR(
        write_program(VirtualAddress(address + kNameLengthOffset), message.name_length));
  }
  if (control != nullptr && message.control_length <= program.control_length) {
    DBOS_RETURN_IF_ERROR(
        copy_to_program(VirtualAddress(program.control), control, message.control_length));
  }
  DBOS_RETURN_IF_ERROR(
      write_program(VirtualAddress(address + kControlLengthOffset), message.control_length));
  return write_program(VirtualAddress(address + kFlagsOffset), message.flags);
}

// Whether the descriptor is a socket that keeps the bounds of messages.
bool Marshaller::is_message_socket() {
  constexpr u64 kSolSocket = 1;
  constexpr u64 kSoType = 3;
  constexpr i32 kSockStream = 1;
  const Bounce piece = bounce_.allocate(8);
  if (piece.data == nullptr) return true;
  i32* const words = reinterpret_cast<i32*>(piece.data);
  words[1] = sizeof(i32);
  const i64 result = hypercall(__NR_getsockopt, host_[0], kSolSocket, kSoType,
                               piece.address.value(), piece.address.value() + 4);
  return result == 0 && words[0] != kSockStream;
}

// False: the program may not read its msghdr. A part that it may not use becomes a fault address.
Result<bool> Marshaller::marshal_message(u64 program, u32 capacity, HostMessage& message,
                                         MessageState& state) {
  if (copy_from_program(&message, VirtualAddress(program), sizeof message).is_error()) {
    return false;
  }
  state.program = message;
  DBOS_RETURN_IF_ERROR(marshal_message_name(message, state));
  DBOS_RETURN_IF_ERROR(marshal_control(message, state));
  DBOS_RETURN_IF_ERROR(marshal_message_data(capacity, message, state));
  return true;
}

Result<void> Marshaller::marshal_message_name(HostMessage& message, MessageState& state) {
  if (message.name == 0 || static_cast<i32>(message.name_length) < 0) return {};
  if (message.name_length > kSocketNameMax) message.name_length = kSocketNameMax;
  const Bounce piece = DBOS_TRY(copy_in(message.name, message.name_length));
  if (piece.data == nullptr) {
    message.name = fault_address(message.name_length);
    return {};
  }
  message.name = piece.address.value();
  state.name = piece.data;
  return {};
}

Result<void> Marshaller::marshal_control(HostMessage& message, MessageState& state) {
  if (message.control == 0) return {};
  if (state.access == HostAccess::kRead && message.control_length > kControlSentMax) {  // ENOBUFS
    message.control = fault_address(message.control_length);
    return {};
  }
  if (message.control_length > kControlMax) message.control_length = kControlMax;
  const Bounce piece = DBOS_TRY(copy_in(message.control, message.control_length));
  if (piece.data == nullptr) {
    message.control = fault_address(message.control_length);
    return {};
  }
  message.control = piece.address.value();
  state.control = piece.data;
  return {};
}

Result<void> Marshaller::marshal_message_data(u32 capacity, HostMessage& message,
                                              MessageState& state) {
  const u64 count = message.vector_count;
  if (count == 0 || count > kVectorMax) {  // EMSGSIZE above it
    message.vectors = fault_address(0);
    return {};
  }
  const Bounce array = DBOS_TRY(copy_in(message.vectors, count * sizeof(Buffer)));
  if (array.data == nullptr) {
    message.vectors = fault_address(count * sizeof(Buffer));
    return {};
  }
  const Buffer* buffers = reinterpret_cast<const Buffer*>(array.data);
  DBOS_RETURN_IF_ERROR(state.transfer.map(buffers, static_cast<u32>(count), 0, capacity));
  if (state.transfer.is_exhausted()) marshal_memory::kill_for_memory();
  if (state.transfer.is_partial() && capacity == kVectorMax) {
    u64 total = 0;
    for (u64 i = 0; i < count; i++) total += buffers[i].size;
    if (total <= kGatherMax) {
      DBOS_RETURN_IF_ERROR(state.transfer.map_gathered(buffers, static_cast<u32>(count)));
    } else if (state.access == HostAccess::kRead && is_message_socket()) {
      return Error(EMSGSIZE);
    }
  }
  message.vectors = state.transfer.vectors_address().value();
  message.vector_count = state.transfer.count();
  return {};
}

i64 Marshaller::run_message(u32 index) {
  const Bounce piece = bounce_.allocate(sizeof(HostMessage));
  if (piece.data == nullptr) return -ENOMEM;
  auto& message = *new (piece.data) HostMessage{};
  MessageState state(bounce_, access_of(index));
  if (DBOS_TRY_CALL(marshal_message(program_[index], kVectorMax, message, state))) {
    host_[index] = piece.address.value();
  } else {
    set_fault(index, sizeof message);
  }
  const i64 result = call_host(number_);
  if (result < 0) return result;
  DBOS_TRY_CALL(state.finish(program_[index], message, static_cast<u64>(result)));
  return result;
}

i64 Marshaller::run_messages(u32 index) {
  constexpr u64 kMsgDontWait = 0x40;
  constexpr u64 kMsgWaitForOne = 0x10000;
  const u32 count_index = call_.arguments[index].count_from;
  u32 count = static_cast<u32>(program_[count_index]);
  if (number_ == __NR_sendmmsg && count > kVectorMax) count = kVectorMax;
  u32 done = 0;
  const u64 mark = bounce_.mark();
  for (;;) {
    bool full = false;
    const u64 program = program_[index] + u64{done} * sizeof(HostMessageOfMany);
    const i64 result = run_message_batch(index, program, count - done, &full);
    if (result < 0) return done == 0 ? result : done;
    done += static_cast<u32>(result);
    if (!full || done == count || is_time_over()) return done;
    if ((host_[3] & kMsgWaitForOne) != 0) host_[3] |= kMsgDontWait;
    marshal_memory::release();
    bounce_.rewind(mark);
  }
}

// Of recvmmsg's timeout Linux writes back what is left, and looks at it after each message.
bool Marshaller::is_time_over() const {
  const u64 address = host_[4];
  if (number_ != __NR_recvmmsg || address == 0 || syscalls::is_fault_address(address, 16)) {
    return false;
  }
  const auto* const left = static_cast<const u64*>(platform::direct_map(PhysicalAddress(address)));
  return left[0] == 0 && left[1] == 0;
}

// Prepares as many of the messages as one host call takes, and tells how many. The batch ends
// before one that something is wrong with; an error of the first one is the call's.
Result<u32> Marshaller::marshal_batch(u64 program, u32 count, HostMessageOfMany* message,
                                      MessageState* state, HostAccess access) {
  u32 ready = 0;
  u32 vectors = 0;
  u64 control_bytes = 0;  // of those that are sent the VMM makes a copy
  for (; ready < count && vectors < kVectorMax; ready++) {
    new (&message[ready]) HostMessageOfMany{};
    new (&state[ready]) MessageState(bounce_, access);
    const u64 address = program + u64{ready} * sizeof(HostMessageOfMany);
    const auto marshalled =
        marshal_message(address, kVectorMax - vectors, message[ready].message, state[ready]);
    if (ready == 0 && marshalled.is_error()) return marshalled.error();
    if (marshalled.is_error() || !marshalled.value()) break;
    if (ready != 0 && state[ready].transfer.is_partial()) break;
    control_bytes += message[ready].message.control_length;
    if (ready != 0 && access == HostAccess::kRead && control_bytes > kControlSentMax) break;
    vectors += state[ready].transfer.count();
  }
  return ready;
}

// As many of the messages as one host call takes. `full`: Linux did all of these.
i64 Marshaller::run_message_batch(u32 index, u64 program, u32 count, bool* full) {
  if (count > kMessageCountMax) count = kMessageCountMax;
  const Bounce messages = bounce_.allocate(kMessageCountMax * sizeof(HostMessageOfMany));
  const Bounce states = bounce_.allocate(kMessageCountMax * sizeof(MessageState));
  if (messages.data == nullptr || states.data == nullptr) return -ENOMEM;
  auto* const message = reinterpret_cast<HostMessageOfMany*>(messages.data);
  auto* const state = reinterpret_cast<MessageState*>(states.data);
  const u32 ready = DBOS_TRY_CALL(marshal_batch(program, count, message, state, access_of(index)));
  host_[index] = messages.address.value();
  host_[call_.arguments[index].count_from] = ready;
  if (ready == 0) {  // count is 0, or Linux is to find that the first one can't be read
    set_fault(index, sizeof(HostMessageOfMany));
    host_[call_.arguments[index].count_from] = count == 0 ? 0 : 1;
  }
  const i64 result = call_host(number_);
  if (result < 0) return result;
  const i64 finished = finish_batch(program, static_cast<u32>(result), message, state);
  *full = finished == static_cast<i64>(ready);
  return finished;
}

}  // namespace dbos
