// A hostile guest: hypercalls whose pointers and sizes are mostly wrong, over memory full of such
// pointers, made from a stream of bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <iterator>

#include "hypercall/abi.h"
#include "hypercall/syscall_table.h"

namespace dbos::test {

// Bytes of a fuzzer's input, then zeros.
class Bytes {
 public:
  Bytes(const uint8_t* data, size_t size) : data_(data), size_(size) {}
  uint64_t next(size_t width) {
    uint64_t value = 0;
    for (size_t i = 0; i < width; i++) {
      value = value << 8 | (at_ < size_ ? data_[at_] : 0);
      if (at_ < size_) at_++;
    }
    return value;
  }
  bool is_empty() const { return at_ == size_; }

 private:
  const uint8_t* data_;
  size_t size_;
  size_t at_ = 0;
};

struct HostileMemory {
  uint64_t begin;  // of the guest's memory
  uint64_t end;
  uint64_t outside;  // an address of the VMM's
};

inline uint64_t hostile_size(Bytes& bytes) {
  static constexpr uint64_t kSizes[] = {0,
                                        1,
                                        2,
                                        8,
                                        16,
                                        64,
                                        1024,
                                        1025,
                                        4096,
                                        65536,
                                        0x7ffff000,
                                        uint64_t{1} << 31,
                                        uint64_t{1} << 32,
                                        uint64_t{1} << 60,
                                        uint64_t{1} << 63,
                                        ~uint64_t{0}};
  const uint64_t kind = bytes.next(1);
  if (kind < 200) return kSizes[kind % std::size(kSizes)] - kind / 64 % 2;
  return bytes.next(kind % 9);
}

inline uint64_t hostile_address(Bytes& bytes, const HostileMemory& memory) {
  const uint64_t size = memory.end - memory.begin;
  switch (bytes.next(1) % 10) {
    case 0:
      return 0;
    case 1:
      return memory.end - bytes.next(2) % 4097;
    case 2:
      return memory.begin - bytes.next(2) % 4097;
    case 3:
      return memory.outside + bytes.next(1);
    case 4:
      return syscalls::kFaultHoleBase + bytes.next(4);
    case 5:
      return syscalls::kFaultHoleBase + syscalls::kFaultHoleSize - bytes.next(1);
    case 6:
      return bytes.next(8);
    default:
      return memory.begin + bytes.next(4) % size / 8 * 8;
  }
}

inline Call hostile_call(Bytes& bytes, const HostileMemory& memory) {
  Call call{};
  call.number = static_cast<uint32_t>(bytes.next(2) % (syscalls::kNumberMax + 20));
  const syscalls::SystemCall* entry = syscalls::find(call.number);
  for (int i = 0; i < 6; i++) {
    const bool pointer = entry == nullptr || entry->arguments[i].is_pointer() ||
                         entry->arguments[i].shape == syscalls::Shape::kByRequest;
    call.arguments[i] = pointer ? hostile_address(bytes, memory) : hostile_size(bytes);
  }
  if (entry == nullptr) return call;
  for (const syscalls::Argument& argument : entry->arguments) {  // a request that is known
    if (argument.shape != syscalls::Shape::kByRequest) continue;
    const auto& requests = syscalls::detail::kRequests.list;
    const auto& request = requests[bytes.next(2) % std::size(requests)];
    if (request.call == call.number) call.arguments[argument.count_from] = request.number;
  }
  return call;
}

// Makes it a message that carries descriptors, the VMM's (3 and 1000) among them.
inline void send_descriptors(Bytes& bytes, const HostileMemory& memory, Call& call) {
  const uint64_t control = memory.begin + 4096;
  const uint64_t message[8] = {0, 0, 0, 0, control, bytes.next(1), 0, 0};
  std::memcpy(reinterpret_cast<void*>(memory.begin), message, sizeof message);
  for (uint64_t at = 0; at < 256;) {
    const bool is_rights = bytes.next(1) % 8 != 0;  // SOL_SOCKET, SCM_RIGHTS
    const uint64_t header[2] = {bytes.next(1) % 64, is_rights ? uint64_t{0x1'0000'0001} : 0};
    std::memcpy(reinterpret_cast<void*>(control + at), header, sizeof header);
    for (uint64_t word = 16; word < 64; word += 4) {
      const int32_t descriptor = static_cast<int32_t>(bytes.next(1) % 2 == 0 ? 3 : 1000);
      std::memcpy(reinterpret_cast<void*>(control + at + word), &descriptor, sizeof descriptor);
    }
    at += header[0] < 16 ? 256 : (header[0] + 7) / 8 * 8;
  }
  call.number = bytes.next(1) % 2 == 0 ? __NR_sendmsg : __NR_sendmmsg;
  call.arguments[1] = memory.begin;
  call.arguments[2] = 1;
}

// Fills the guest's memory with what looks like iovecs, messages, lengths.
inline void fill_hostile(Bytes& bytes, const HostileMemory& memory, size_t words) {
  for (size_t i = 0; i < words && !bytes.is_empty(); i++) {
    const uint64_t at = memory.begin + bytes.next(2) % 8192 * 8;
    const bool address = bytes.next(1) % 2 == 0;
    const uint64_t value = address ? hostile_address(bytes, memory) : hostile_size(bytes);
    std::memcpy(reinterpret_cast<void*>(at), &value, sizeof value);
  }
}

}  // namespace dbos::test
