// msghdr and mmsghdr: structures of pointers to pointers. All of it is copied, then checked.
#include <cstring>

#include <asm/errno.h>

#include "vmm/proxy/call_arguments.h"

namespace dbos::vmm {

using syscalls::Direction;
using syscalls::is_fault_address;
using syscalls::kControlSentMax;
using syscalls::kMessageCountMax;

namespace {

void store(uint64_t address, const void* value, size_t bytes) {
  std::memcpy(reinterpret_cast<void*>(address), value, bytes);
}

// The fields that recvmsg returns. The pointers in the guest's copy stay.
void store_message(uint64_t address, const HostMessage& message) {
  store(address + offsetof(HostMessage, name_length), &message.name_length, 4);
  store(address + offsetof(HostMessage, control_length), &message.control_length, 8);
  store(address + offsetof(HostMessage, flags), &message.flags, 4);
}

}  // namespace

int64_t CallArguments::check_message(HostMessage* message, const Argument& argument) {
  if (message->name != 0 && static_cast<int32_t>(message->name_length) >= 0) {
    const uint32_t length =
        message->name_length < kSocketNameMax ? message->name_length : kSocketNameMax;
    if (check(message->name, length) != 0) return -EFAULT;
  }
  const int64_t error = argument.direction == Direction::kIn
                            ? copy_control(message)
                            : check(message->control, message->control_length);
  if (error != 0) return error;
  return copy_vectors(&message->vectors, message->vector_count);
}

// What is sent beside a message may name descriptors, which another vCPU could change after a look.
int64_t CallArguments::copy_control(HostMessage* message) {
  const uint64_t size = message->control_length;
  if (size == 0) return 0;
  if (size > kControlSentMax) {
    message->control = syscalls::kNoUserAddress;
    message->control_length = UINT64_MAX;  // ENOBUFS, says Linux, and does not look
    return 0;
  }
  if (message->control == 0 || is_fault_address(message->control, size)) return 0;
  auto* const control = static_cast<uint8_t*>(copy(message->control, size));
  if (control == nullptr) return -EFAULT;
  message->control = address_of(control);
  hide_own_descriptors(control, size);
  return 0;
}

// Walks the headers as Linux does. At one that it refuses, nothing behind is looked at.
void CallArguments::hide_own_descriptors(uint8_t* control, uint64_t size) const {
  constexpr int32_t kSocketLevel = 1, kRights = 1;  // SOL_SOCKET, SCM_RIGHTS
  struct Header {
    uint64_t length;
    int32_t level;
    int32_t type;
  };
  for (uint64_t rest = size; rest >= sizeof(Header);) {
    Header header;
    std::memcpy(&header, control, sizeof header);
    if (header.length < sizeof header || header.length > rest) return;
    if (header.level == kSocketLevel && header.type == kRights) {
      for (uint64_t at = sizeof header; at + sizeof(int) <= header.length; at += sizeof(int)) {
        hide_own_descriptor(control + at);
      }
    }
    const uint64_t step = align_up(header.length, 8);
    if (step >= rest) return;
    control += step;
    rest -= step;
  }
}

int64_t CallArguments::prepare_message(uint32_t index, const Argument& argument) {
  const uint64_t address = values_[index];
  if (is_passed_on(address)) return 0;
  message_ = static_cast<HostMessage*>(copy(address, sizeof(HostMessage)));
  if (message_ == nullptr) return -EFAULT;
  messages_address_ = address;
  values_[index] = address_of(message_);
  return check_message(message_, argument);
}

int64_t CallArguments::prepare_messages(uint32_t index, const Argument& argument) {
  const uint64_t address = values_[index];
  if (is_passed_on(address)) return 0;
  const uint32_t count = static_cast<uint32_t>(values_[argument.count_from]);
  if (count > kMessageCountMax) return -EINVAL;
  messages_ = static_cast<HostMessageOfMany*>(copy(address, count * sizeof(HostMessageOfMany)));
  if (messages_ == nullptr) return -EFAULT;
  messages_address_ = address;
  values_[index] = address_of(messages_);
  for (uint32_t i = 0; i < count; i++) {
    const int64_t error = check_message(&messages_[i].message, argument);
    if (error != 0) return error;
  }
  return 0;
}

void CallArguments::finish(int64_t result) {
  for (uint32_t i = 0; i < back_count_; i++) {
    store(backs_[i].address, backs_[i].copy, backs_[i].bytes);
  }
  if (result < 0) return;
  if (message_ != nullptr) store_message(messages_address_, *message_);
  if (messages_ == nullptr) return;
  for (int64_t i = 0; i < result; i++) {
    const uint64_t address = messages_address_ + static_cast<uint64_t>(i) * sizeof *messages_;
    store_message(address, messages_[i].message);
    store(address + offsetof(HostMessageOfMany, bytes), &messages_[i].bytes, 4);
  }
}

}  // namespace dbos::vmm
