// The arguments of one call on their way from the guest to Linux.
#pragma once

#include <cstddef>
#include <cstdint>

#include "hypercall/linux_structures.h"
#include "hypercall/syscall_table.h"
#include "vmm/host/descriptor_guard.h"
#include "vmm/proxy/guest_memory.h"

namespace dbos::vmm {

inline uint64_t address_of(const void* pointer) {
  return reinterpret_cast<uint64_t>(pointer);
}

// The VMM's copies of what the guest passed: on the stack, for one call.
class Scratch {
 public:
  Scratch() {}  // NOLINT: bytes_ stays as it is
  // nullptr: full.
  void* take(size_t bytes) {
    const size_t rounded = align_up(bytes, 16);
    if (rounded > sizeof bytes_ - used_) return nullptr;
    void* const piece = bytes_ + used_;
    used_ += rounded;
    return piece;
  }

 private:
  alignas(16) uint8_t bytes_[48 * 1024];
  size_t used_ = 0;
};

class CallArguments {
 public:
  CallArguments(const GuestMemory& memory, const DescriptorGuard& guard, uint32_t number,
                const syscalls::SystemCall& call, const uint64_t arguments[6]);

  // Checks all arguments and turns them into Linux's. 0 or -errno.
  int64_t prepare();
  const uint64_t* values() const { return values_; }
  syscalls::Waits waits() const { return waits_; }

  // Hands what Linux changed in copies back to the guest.
  void finish(int64_t result);

 private:
  using Argument = syscalls::Argument;

  int64_t prepare_one(uint32_t index, const Argument& argument);
  int64_t prepare_string(uint32_t index);
  bool is_binary_mount_data(uint32_t index, const char* data) const;
  int64_t prepare_taken_signal();
  int64_t prepare_with_descriptor(uint32_t index, const Argument& argument);
  int64_t prepare_vector(uint32_t index, const Argument& argument);
  int64_t prepare_message(uint32_t index, const Argument& argument);
  int64_t prepare_messages(uint32_t index, const Argument& argument);
  int64_t prepare_sized_by_pointer(uint32_t index, const Argument& argument);
  int64_t prepare_socket_option(uint32_t index, const Argument& argument);
  int64_t prepare_descriptor_set(uint32_t index, const Argument& argument);
  int64_t prepare_self_sized(uint32_t index);
  int64_t prepare_file_handle(uint32_t index);
  int64_t prepare_mask_and_size(uint32_t index);
  int64_t prepare_by_request(uint32_t index, const Argument& argument);
  int64_t prepare_interface_list(uint32_t index);
  int64_t prepare_notification(uint32_t index);

  // 0: Linux may be given this pointer to `bytes` bytes.
  int64_t check(uint64_t address, uint64_t bytes) const;
  int64_t check_vectors(const HostVector* vectors, uint64_t count) const;
  // Replaces the set's address by that of a copy.
  int64_t copy_signal_set(uint64_t* address);
  // Replaces the vectors' address by that of a checked copy.
  int64_t copy_vectors(uint64_t* address, uint64_t count);
  int64_t check_message(HostMessage* message, const Argument& argument);
  int64_t copy_control(HostMessage* message);
  // A descriptor of ours in a copy becomes one that Linux doesn't know either.
  void hide_own_descriptor(void* descriptor) const;
  void hide_own_descriptors(uint8_t* control, uint64_t size) const;
  bool is_passed_on(uint64_t address) const;  // null, or an address that faults
  // A copy of guest memory; nullptr: outside, or no room.
  void* copy(uint64_t address, size_t bytes);

  struct WriteBack {
    uint64_t address;
    const void* copy;
    size_t bytes;
  };
  void write_back(uint64_t address, const void* copy, size_t bytes);

  const GuestMemory& memory_;
  const DescriptorGuard& guard_;
  const uint32_t number_;
  const syscalls::SystemCall& call_;
  syscalls::Waits waits_;
  uint64_t values_[6];
  WriteBack backs_[4];
  uint32_t back_count_ = 0;
  // Messages: where they are, and the copies that Linux sees.
  uint64_t messages_address_ = 0;
  HostMessageOfMany* messages_ = nullptr;
  HostMessage* message_ = nullptr;
  Scratch scratch_;
};

}  // namespace dbos::vmm
