// An independent look at what the VMM's executor is about to hand to Linux: no pointer in it, at
// any depth, may lead outside of the guest's memory and the executor's own copies.
#pragma once

#include <sys/socket.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>

#include "vmm/proxy/call_arguments.h"

namespace dbos::test {

class CallChecker {
 public:
  CallChecker(const vmm::GuestMemory& memory, const vmm::DescriptorGuard& guard,
              const vmm::CallArguments& arguments, uint32_t number)
      : memory_(memory),
        guard_(guard),
        begin_(reinterpret_cast<uint64_t>(&arguments)),
        end_(begin_ + sizeof arguments),
        values_(arguments.values()),
        number_(number),
        call_(*syscalls::find(number)) {}

  // Empty: all is well.
  std::string find_fault() {
    for (uint32_t i = 0; i < call_.argument_count; i++) {
      look(i, call_.arguments[i]);
      if (!fault_.empty())
        return std::string(call_.name) + " argument " + std::to_string(i) + ": " + fault_;
    }
    return fault_;
  }

 private:
  using Argument = syscalls::Argument;
  using Shape = syscalls::Shape;

  bool is_own(uint64_t address, uint64_t size) const {
    return address >= begin_ && address < end_ && size <= end_ - address;
  }
  // Linux accesses at most `size` bytes there.
  void expect(uint64_t address, uint64_t size, const char* what) {
    if (address == 0 || address >> 63 != 0) return;
    if (address >= syscalls::kFaultHoleBase &&
        address < syscalls::kFaultHoleBase + syscalls::kFaultHoleSize)
      return;
    if (is_own(address, size) || memory_.contains(address, size)) return;
    fault_ = what;
  }
  // A structure with pointers or lengths in it must be the executor's copy.
  bool expect_own(uint64_t address, uint64_t size, const char* what) {
    if (address == 0 || syscalls::is_fault_address(address, 1)) return false;
    if (!is_own(address, size)) fault_ = what;
    return fault_.empty();
  }
  template <typename T>
  T load(uint64_t address) const {
    T value;
    std::memcpy(&value, reinterpret_cast<const void*>(address), sizeof value);
    return value;
  }
  uint64_t count(const Argument& argument) const {
    return syscalls::count_of(call_.arguments[argument.count_from], values_[argument.count_from]);
  }

  void look_vectors(uint64_t address, uint64_t count) {
    if (count > 1024) {  // Linux does not look at them
      if (address != 0 && !syscalls::is_fault_address(address, 1)) fault_ = "too many iovecs";
      return;
    }
    if (count == 0 || !expect_own(address, count * 16, "iovecs in guest memory")) return;
    for (uint64_t i = 0; i < count && fault_.empty(); i++) {
      const auto vector = load<HostVector>(address + i * 16);
      expect(vector.base, vector.size, "iovec");
    }
  }
  void look_descriptor(uint64_t address) {
    if (guard_.is_ours(load<int32_t>(address))) fault_ = "a descriptor of the VMM's";
  }
  // What a message carries: Linux may take every word of an SCM_RIGHTS for a descriptor.
  void look_control(const HostMessage& message) {
    if (message.control_length > INT32_MAX) return;  // Linux does not look at it
    if (!expect_own(message.control, message.control_length, "control in guest memory")) return;
    msghdr header{};
    header.msg_control = reinterpret_cast<void*>(message.control);
    header.msg_controllen = message.control_length;
    for (cmsghdr* at = CMSG_FIRSTHDR(&header); at != nullptr; at = CMSG_NXTHDR(&header, at)) {
      const uint64_t data = reinterpret_cast<uint64_t>(CMSG_DATA(at));
      const uint64_t end = reinterpret_cast<uint64_t>(at) + at->cmsg_len;
      if (at->cmsg_len < sizeof *at || end > message.control + message.control_length) return;
      if (at->cmsg_level != SOL_SOCKET || at->cmsg_type != SCM_RIGHTS) continue;
      for (uint64_t word = data; word + 4 <= end; word += 4) look_descriptor(word);
    }
  }
  void look_message(uint64_t address, const Argument& argument) {
    if (!expect_own(address, sizeof(HostMessage), "msghdr in guest memory")) return;
    const auto message = load<HostMessage>(address);
    if (static_cast<int32_t>(message.name_length) >= 0) {
      expect(message.name, std::min(message.name_length, 128u), "name");
    }
    if (argument.is_written()) {
      expect(message.control, message.control_length, "control");
    } else if (message.control_length != 0) {
      look_control(message);
    }
    look_vectors(message.vectors, message.vector_count);
  }
  void look_bytes(uint64_t address, const Argument& argument) {
    const uint64_t bytes = syscalls::bytes_of(call_, argument, values_);
    expect(address, bytes, "bytes");
    if (!argument.holds_descriptor() || bytes > 4096) return;
    if (!expect_own(address, bytes, "a descriptor in guest memory")) return;
    if (bytes >= argument.descriptor_at + 4u) look_descriptor(address + argument.descriptor_at);
  }
  void look_length_and_bytes(uint32_t index, const Argument& argument) {
    const uint64_t length = values_[argument.count_from];
    if (!expect_own(length, 4, "length in guest memory"))
      return expect(values_[index], 1, "buffer");
    const int32_t bytes = load<int32_t>(length);
    expect(values_[index], bytes < 0 ? 1 : static_cast<uint64_t>(bytes), "buffer");
  }

  void look(uint32_t index, const Argument& argument) {
    const uint64_t value = values_[index];
    switch (argument.shape) {
      case Shape::kUnused:
      case Shape::kValue:
      case Shape::kLength:
        return;
      case Shape::kDescriptor:
        if (guard_.is_ours(static_cast<int>(value))) fault_ = "a descriptor of the VMM's";
        return;
      case Shape::kProgramAddress:
        fault_ = "not to be proxied";
        return;
      case Shape::kPath:
      case Shape::kName:
        if (expect_own(value, 1, "string in guest memory") &&
            std::memchr(reinterpret_cast<const void*>(value), 0,
                        std::min<uint64_t>(end_ - value, 4096)) == nullptr) {
          fault_ = "string without end";
        }
        return;
      case Shape::kBytes:
      case Shape::kBulk:
        return look_bytes(value, argument);
      case Shape::kSocketOption:
        if (argument.is_written()) return look_length_and_bytes(index, argument);
        expect(value, syscalls::bytes_of(call_, argument, values_), "option");
        return;
      case Shape::kSizedByPointer:
        return look_length_and_bytes(index, argument);
      case Shape::kVector:
        return look_vectors(value, count(argument));
      case Shape::kMessage:
        return look_message(value, argument);
      case Shape::kMessages:
        for (uint64_t i = 0; i < count(argument) && fault_.empty() && value != 0 &&
                             !syscalls::is_fault_address(value, 1);
             i++) {
          look_message(value + i * sizeof(HostMessageOfMany), argument);
        }
        return;
      case Shape::kDescriptorSet: {
        const auto bits = static_cast<int32_t>(values_[argument.count_from]);
        expect(value, bits < 0 ? 1 : (static_cast<uint64_t>(bits) + 63) / 64 * 8, "bits");
        return;
      }
      case Shape::kPollArray:
        expect(value, count(argument) * 8, "poll entries");
        return;
      case Shape::kSelfSized: {
        if (!expect_own(value, 4, "structure in guest memory")) return;
        const uint32_t size = load<uint32_t>(value);
        expect(value, size == 0 ? 48 : size < 48 || size > 4096 ? 4 : size, "structure");
        return;
      }
      case Shape::kFileHandle: {
        if (!expect_own(value, 8, "handle in guest memory")) return;
        const uint32_t size = load<uint32_t>(value);
        expect(value, 8 + (size > 128 ? 0 : size), "handle");
        return;
      }
      case Shape::kMaskAndSize:
        if (expect_own(value, 16, "mask in guest memory")) expect(load<uint64_t>(value), 8, "mask");
        return;
      case Shape::kByRequest: {
        const auto* request = syscalls::find_request(number_, values_[argument.count_from]);
        if (request == nullptr) {
          fault_ = "unknown request";
        } else {
          look(index, request->argument);
        }
        return;
      }
      case Shape::kInterfaceList:
        if (expect_own(value, 16, "list in guest memory")) {
          const int32_t length = load<int32_t>(value);
          expect(load<uint64_t>(value + 8), length < 0 ? 1 : static_cast<uint64_t>(length), "list");
        }
        return;
      case Shape::kNotification:
        if (expect_own(value, 64, "event in guest memory") && load<int32_t>(value + 12) == 2) {
          expect(load<uint64_t>(value), 32, "cookie");
          look_descriptor(value + 8);
        }
        return;
      case Shape::kWord:
        expect(value, 4, "word");
        return;
      case Shape::kSemaphoreValues:
        expect(value, uint64_t{65536} * 2, "semaphores");
        return;
    }
  }

  const vmm::GuestMemory& memory_;
  const vmm::DescriptorGuard& guard_;
  uint64_t begin_;
  uint64_t end_;
  const uint64_t* values_;
  uint32_t number_;
  const syscalls::SystemCall& call_;
  std::string fault_;
};

}  // namespace dbos::test
