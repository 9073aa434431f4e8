#include "vmm/proxy/call_arguments.h"

#include <asm/unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>

#include "vmm/host/signal_mask.h"

namespace dbos::vmm {

using syscalls::Direction;
using syscalls::is_fault_address;
using syscalls::kFaultHoleBase;
using syscalls::kPathMax;
using syscalls::kVectorMax;
using syscalls::Shape;

CallArguments::CallArguments(const GuestMemory& memory, const DescriptorGuard& guard,
                             uint32_t number, const syscalls::SystemCall& call,
                             const uint64_t arguments[6])
    : memory_(memory), guard_(guard), number_(number), call_(call), waits_(call.placement.waits) {
  std::memcpy(values_, arguments, sizeof values_);
}

int64_t CallArguments::prepare() {
  for (uint32_t i = 0; i < call_.argument_count; i++) {
    const int64_t error = prepare_one(i, call_.arguments[i]);
    if (error != 0) return error;
  }
  return 0;
}

int64_t CallArguments::prepare_one(uint32_t index, const Argument& argument) {
  const uint64_t value = values_[index];
  switch (argument.shape) {
    case Shape::kUnused:
    case Shape::kValue:
    case Shape::kLength:
      return 0;  // checked with its kSizedByPointer
    case Shape::kProgramAddress:
      return -ENOSYS;
    case Shape::kDescriptor:
      return guard_.is_ours(static_cast<int>(value)) ? -EBADF : 0;
    case Shape::kPath:
    case Shape::kName:
      return prepare_string(index);
    case Shape::kBytes:
    case Shape::kBulk:
      if (argument.holds_descriptor()) return prepare_with_descriptor(index, argument);
      if (argument.format == syscalls::Format::kSignalSet) return copy_signal_set(&values_[index]);
      if (number_ == __NR_rt_sigtimedwait && index == 1) return prepare_taken_signal();
      return check(value, syscalls::bytes_of(call_, argument, values_));
    case Shape::kPollArray:
      return check(value,
                   uint64_t{argument.unit} * static_cast<uint32_t>(values_[argument.count_from]));
    case Shape::kWord:
      return check(value, sizeof(uint32_t));
    case Shape::kSemaphoreValues:
      return check(value, syscalls::kSemaphoresMax * 2);
    case Shape::kVector:
      return prepare_vector(index, argument);
    case Shape::kMessage:
      return prepare_message(index, argument);
    case Shape::kMessages:
      return prepare_messages(index, argument);
    case Shape::kSizedByPointer:
      return prepare_sized_by_pointer(index, argument);
    case Shape::kSocketOption:
      return prepare_socket_option(index, argument);
    case Shape::kDescriptorSet:
      return prepare_descriptor_set(index, argument);
    case Shape::kSelfSized:
      return prepare_self_sized(index);
    case Shape::kFileHandle:
      return prepare_file_handle(index);
    case Shape::kMaskAndSize:
      return prepare_mask_and_size(index);
    case Shape::kByRequest:
      return prepare_by_request(index, argument);
    case Shape::kInterfaceList:
      return prepare_interface_list(index);
    case Shape::kNotification:
      return prepare_notification(index);
  }
  return -ENOSYS;
}

bool CallArguments::is_passed_on(uint64_t address) const {
  return address == 0 || is_fault_address(address, 1);
}

int64_t CallArguments::check(uint64_t address, uint64_t bytes) const {
  const bool harmless = address == 0 || is_fault_address(address, bytes);
  return harmless || memory_.contains(address, bytes) ? 0 : -EFAULT;
}

void* CallArguments::copy(uint64_t address, size_t bytes) {
  if (!memory_.is_plain(address, bytes)) return nullptr;
  void* const piece = scratch_.take(bytes);
  if (piece != nullptr) read_guest(piece, address, bytes);
  return piece;
}

void CallArguments::write_back(uint64_t address, const void* copy, size_t bytes) {
  backs_[back_count_++] = {address, copy, bytes};
}

void CallArguments::hide_own_descriptor(void* descriptor) const {
  int value = 0;
  std::memcpy(&value, descriptor, sizeof value);
  if (guard_.is_ours(value)) std::memcpy(descriptor, &DescriptorGuard::kNone, sizeof value);
}

int64_t CallArguments::prepare_with_descriptor(uint32_t index, const Argument& argument) {
  const uint64_t address = values_[index];
  const uint64_t bytes = syscalls::bytes_of(call_, argument, values_);
  if (is_passed_on(address)) return 0;
  if (bytes > kPageSize) {  // Linux refuses the size before it looks
    values_[index] = kFaultHoleBase;
    return 0;
  }
  auto* const structure = static_cast<uint8_t*>(copy(address, bytes));
  if (structure == nullptr) return -EFAULT;
  values_[index] = address_of(structure);
  if (bytes >= argument.descriptor_at + sizeof(uint32_t)) {
    hide_own_descriptor(structure + argument.descriptor_at);
  }
  return 0;
}

// A structure with a version at its begin and addresses in it, as NFS takes: fs/nfs/fs_context.c.
bool CallArguments::is_binary_mount_data(uint32_t index, const char* data) const {
  constexpr uint32_t kMountData = 4;
  return number_ == __NR_mount && index == kMountData && *data > 0 && *data < ' ';
}

int64_t CallArguments::prepare_string(uint32_t index) {
  const uint64_t address = values_[index];
  if (is_passed_on(address)) return 0;
  size_t room = kPathMax;
  while (room != 0 && !memory_.is_plain(address, room)) room /= 2;
  char* const text = room == 0 ? nullptr : static_cast<char*>(copy(address, room));
  if (text == nullptr || std::memchr(text, '\0', room) == nullptr) return -EFAULT;
  if (is_binary_mount_data(index, text)) return -EINVAL;
  values_[index] = address_of(text);
  return 0;
}

int64_t CallArguments::check_vectors(const HostVector* vectors, uint64_t count) const {
  for (uint64_t i = 0; i < count; i++) {
    const int64_t error = check(vectors[i].base, vectors[i].size);
    if (error != 0) return error;
  }
  return 0;
}

int64_t CallArguments::copy_vectors(uint64_t* address, uint64_t count) {
  if (is_passed_on(*address)) return 0;
  if (count > kVectorMax) {  // Linux refuses the number before it looks
    *address = kFaultHoleBase;
    return 0;
  }
  auto* const vectors = static_cast<HostVector*>(copy(*address, count * sizeof(HostVector)));
  if (vectors == nullptr) return -EFAULT;
  *address = address_of(vectors);
  return check_vectors(vectors, count);
}

int64_t CallArguments::prepare_vector(uint32_t index, const Argument& argument) {
  return copy_vectors(&values_[index], static_cast<uint32_t>(values_[argument.count_from]));
}

int64_t CallArguments::prepare_sized_by_pointer(uint32_t index, const Argument& argument) {
  uint64_t& length_pointer = values_[argument.count_from];
  if (is_passed_on(length_pointer)) return check(values_[index], 1);
  const uint64_t address = length_pointer;
  auto* const length = static_cast<uint32_t*>(copy(address, sizeof(uint32_t)));
  if (length == nullptr) return -EFAULT;
  length_pointer = address_of(length);
  write_back(address, length, sizeof *length);
  if (static_cast<int32_t>(*length) < 0) {  // EINVAL, says Linux
    if (values_[index] != 0) values_[index] = kFaultHoleBase;
    return 0;
  }
  return check(values_[index], *length);
}

int64_t CallArguments::prepare_socket_option(uint32_t index, const Argument& argument) {
  const bool set = argument.direction == Direction::kIn;
  const auto direction = set ? syscalls::OptionDirection::kSet : syscalls::OptionDirection::kGet;
  if (!syscalls::is_plain_socket_option(direction, static_cast<int32_t>(values_[1]),
                                        static_cast<int32_t>(values_[2]))) {
    return -ENOPROTOOPT;
  }
  if (!set) return prepare_sized_by_pointer(index, argument);
  return check(values_[index], syscalls::bytes_of(call_, argument, values_));
}

int64_t CallArguments::prepare_descriptor_set(uint32_t index, const Argument& argument) {
  const int32_t bits = static_cast<int32_t>(values_[argument.count_from]);
  if (bits < 0) return check(values_[index], 1);
  return check(values_[index], syscalls::descriptor_set_bytes(static_cast<uint64_t>(bits)));
}

int64_t CallArguments::prepare_self_sized(uint32_t index) {
  const uint64_t address = values_[index];
  if (is_passed_on(address)) return 0;
  if (!memory_.is_plain(address, sizeof(uint32_t))) return -EFAULT;
  uint32_t size = 0;
  read_guest(&size, address, sizeof size);
  const bool readable =
      size == 0 || (size >= kSchedulingSizeMin && size <= syscalls::kSelfSizedMax);
  const size_t bytes = !readable ? sizeof size : size == 0 ? kSchedulingSizeMin : size;
  auto* const structure = static_cast<uint8_t*>(copy(address, bytes));
  if (structure == nullptr) return -EFAULT;
  std::memcpy(structure, &size, sizeof size);  // the guest may have changed it in between
  values_[index] = address_of(structure);
  write_back(address, structure, sizeof size);  // Linux writes the size only, with E2BIG
  return 0;
}

int64_t CallArguments::prepare_file_handle(uint32_t index) {
  constexpr size_t kHeader = 8;
  const uint64_t address = values_[index];
  if (is_passed_on(address)) return 0;
  if (!memory_.is_plain(address, kHeader)) return -EFAULT;
  uint32_t size = 0;
  read_guest(&size, address, sizeof size);
  const size_t bytes = size <= syscalls::kFileHandleMax ? kHeader + size : kHeader;
  auto* const handle = static_cast<uint8_t*>(copy(address, bytes));
  if (handle == nullptr) return -EFAULT;
  std::memcpy(handle, &size, sizeof size);
  values_[index] = address_of(handle);
  write_back(address, handle, bytes);
  return 0;
}

int64_t CallArguments::prepare_mask_and_size(uint32_t index) {
  if (is_passed_on(values_[index])) return 0;
  auto* const both = static_cast<MaskAndSize*>(copy(values_[index], sizeof(MaskAndSize)));
  if (both == nullptr) return -EFAULT;
  values_[index] = address_of(both);
  return copy_signal_set(&both->mask);
}

// A wait leaves the VMM's signal open, by which a process hears that its parent was killed. Who has
// it blocked already keeps one of the program's own so (process/signals.cpp). Who reads signals
// from a descriptor would read that one as well, and the VMM would not hear of it.
int64_t CallArguments::copy_signal_set(uint64_t* address) {
  if (is_passed_on(*address)) return 0;
  auto* const set = static_cast<uint64_t*>(copy(*address, sizeof(uint64_t)));
  if (set == nullptr) return -EFAULT;
  *address = address_of(set);
  constexpr uint64_t kOwn = signal_bit(kParentDeathSignal);
  if ((*set & kOwn) == 0 || number_ == __NR_rt_sigtimedwait) return 0;
  const bool is_for_reading = number_ == __NR_signalfd || number_ == __NR_signalfd4;
  if (is_for_reading || (change_signal_mask(SIG_BLOCK, 0) & kOwn) == 0) *set &= ~kOwn;
  return 0;
}

// The VMM looks at what the wait took, where the guest can't change it.
int64_t CallArguments::prepare_taken_signal() {
  const uint64_t address = values_[1];
  if (is_fault_address(address, 1)) return 0;
  void* const information =
      address == 0 ? scratch_.take(sizeof(siginfo_t)) : copy(address, sizeof(siginfo_t));
  if (information == nullptr) return -EFAULT;
  if (address != 0) write_back(address, information, sizeof(siginfo_t));
  values_[1] = address_of(information);
  return 0;
}

int64_t CallArguments::prepare_by_request(uint32_t index, const Argument& argument) {
  const syscalls::Request* request = syscalls::find_request(number_, values_[argument.count_from]);
  if (request == nullptr) return -syscalls::unknown_request(number_);
  if (request->waits == syscalls::Waits::kYes) waits_ = syscalls::Waits::kYes;
  return prepare_one(index, request->argument);
}

int64_t CallArguments::prepare_interface_list(uint32_t index) {
  const uint64_t address = values_[index];
  if (is_passed_on(address)) return 0;
  auto* const list = static_cast<InterfaceList*>(copy(address, sizeof(InterfaceList)));
  if (list == nullptr) return -EFAULT;
  values_[index] = address_of(list);
  write_back(address, &list->length, sizeof list->length);
  if (list->length < 0) list->buffer = list->buffer == 0 ? 0 : kFaultHoleBase;
  return check(list->buffer, list->length < 0 ? 0 : static_cast<uint64_t>(list->length));
}

int64_t CallArguments::prepare_notification(uint32_t index) {
  if (is_passed_on(values_[index])) return 0;
  auto* const event = static_cast<Notification*>(copy(values_[index], sizeof(Notification)));
  if (event == nullptr) return -EFAULT;
  values_[index] = address_of(event);
  if (event->notify != kNotifyThread) return 0;
  hide_own_descriptor(&event->signal);
  return check(event->value, kNotifyCookieSize);
}

}  // namespace dbos::vmm
