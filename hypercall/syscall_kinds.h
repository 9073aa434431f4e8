// What an argument of a Linux system call is: enough for the guest to marshal it, for the VMM to
// check it, and for a tracer to print it. syscalls.def is written in the words of namespace kinds.
#pragma once

#include <cstdint>

#include "include/dbos/hypercall.h"

namespace dbos::syscalls {

enum class Shape : uint8_t {
  kUnused,
  kValue,
  kDescriptor,       // a file descriptor, or AT_FDCWD, or -1
  kProgramAddress,   // an address that Linux never gets to see: only in calls made by the guest
  kPath,             // NUL-terminated; ENAMETOOLONG from kPathMax bytes on
  kName,             // NUL-terminated; cut at kPathMax: Linux's own limits are smaller
  kBytes,            // count * unit + extra bytes, copied through the bounce buffer
  kBulk,             // the same, but used where it lies in the program's memory
  kVector,           // iovec[count]
  kMessage,          // msghdr
  kMessages,         // mmsghdr[count]
  kLength,           // u32: the capacity of a kSizedByPointer, then its length
  kSizedByPointer,   // bytes; their capacity is in the kLength that count_from names
  kSocketOption,     // kBytes (in) or kSizedByPointer (out) for socket options without pointers
  kDescriptorSet,    // fd_set of `count` bits
  kPollArray,        // pollfd[count]
  kSelfSized,        // a structure whose first u32 is its size
  kFileHandle,       // file_handle: the first u32 is the size of what follows its 8 bytes
  kMaskAndSize,      // pselect6: {const sigset_t*, size_t}
  kByRequest,        // what it is depends on argument `count_from`: syscall_requests.def
  kInterfaceList,    // ifconf
  kNotification,     // mq_notify's sigevent, whose value may be the address of a 32-byte cookie
  kWord,             // a futex: Linux's only in shared mappings, and given by the guest as it is
  kSemaphoreValues,  // GETALL, SETALL: unsigned short for each semaphore of the set
};

enum class Direction : uint8_t {
  kNone,
  kIn,
  kOut,       // written as a whole when the call succeeds, else untouched
  kOutMaybe,  // written, or not, or in part: the program's bytes stay where Linux writes none
  kInOut,
  kInOutQuietly,  // written back if that is possible, no EFAULT if it isn't (select's timeout)
};

// How a tracer prints a value or what a pointer points to. kSize, kCount and kUnsignedCount also
// say how wide a number is that counts another argument's bytes or elements.
enum class Format : uint8_t {
  kDecimal,
  kHexadecimal,
  kOctal,
  kSize,
  kCount,
  kUnsignedCount,
  kOffset,
  kSignal,
  kProcess,
  kClock,
  kOpenFlags,
  kAtFlags,
  kProtection,
  kMapFlags,
  kSocketFamily,
  kSocketType,
  kWhence,
  kText,
  kData,
  kStructure,
  kTimespec,
  kTimeval,
  kSignalSet,
  kSocketAddress,
  kWaitStatus,
  kInteger32,
  kInteger64,
  kDescriptorPair,
  kEpollEvents,
};

enum class Excess : uint8_t {
  kRefuse,  // a size above `limit` is an error, which Linux finds itself
  kClamp,   // Linux may do less: ask for `limit` bytes
};

enum class Written : uint8_t { kWhole, kResult };  // kResult: result * unit + extra bytes

inline constexpr uint8_t kFixedCount = 0xff;
inline constexpr uint8_t kNoDescriptor = 0xff;
inline constexpr uint32_t kPathMax = 4096;
inline constexpr uint32_t kVectorMax = 1024;  // UIO_MAXIOV
inline constexpr uint32_t kSelfSizedMax = 4096;
inline constexpr uint32_t kFileHandleMax = 128;  // MAX_HANDLE_SZ
inline constexpr uint32_t kOptionMax = 64 * 1024;
inline constexpr uint32_t kMessageCountMax = 64;        // of one host call; the guest repeats it
inline constexpr uint32_t kControlMax = 64 * 1024;      // of a message that is received
inline constexpr uint32_t kControlSentMax = 20 * 1024;  // net.core.optmem_max as Linux sets it
inline constexpr uint32_t kDescriptorSetBitsMax = 1 << 20;
inline constexpr uint64_t kSemaphoresMax = 65536;

struct Argument {
  Shape shape = Shape::kUnused;
  Direction direction = Direction::kNone;
  Format format = Format::kDecimal;
  uint8_t count_from = kFixedCount;  // index of the argument that counts elements
  uint16_t unit = 0;                 // bytes of the structure or of one element
  uint8_t extra = 0;                 // bytes in front that the count does not count
  Excess excess = Excess::kRefuse;
  Written written = Written::kWhole;
  uint32_t limit = 0;                     // bytes; 0: none
  uint8_t descriptor_at = kNoDescriptor;  // offset of a descriptor (u32) in a kBytes

  constexpr bool is_fixed() const { return count_from == kFixedCount; }
  constexpr bool holds_descriptor() const { return descriptor_at != kNoDescriptor; }
  constexpr bool is_pointer() const { return shape >= Shape::kPath && shape != Shape::kByRequest; }
  constexpr bool is_read() const {
    return direction == Direction::kIn || direction == Direction::kInOut ||
           direction == Direction::kInOutQuietly || direction == Direction::kOutMaybe;
  }
  constexpr bool is_written() const {
    return direction != Direction::kNone && direction != Direction::kIn;
  }
};

// A pointer that the program got wrong is passed on as an address that Linux can't access either,
// so that Linux finds the error itself, in its own order: in [kFaultHoleBase, + kFaultHoleSize),
// where nothing is ever mapped, or above every user address, where even access_ok() fails.
inline constexpr uint64_t kFaultHoleBase = DBOS_FAULT_HOLE_BASE;
inline constexpr uint64_t kFaultHoleSize = DBOS_FAULT_HOLE_SIZE;
inline constexpr uint64_t kNoUserAddress = uint64_t{1} << 63;

constexpr bool is_fault_address(uint64_t address, uint64_t size) {
  if (address >= kNoUserAddress) return true;
  return address >= kFaultHoleBase && address < kFaultHoleBase + kFaultHoleSize &&
         size <= kFaultHoleBase + kFaultHoleSize - address;
}
constexpr uint64_t fault_address(uint64_t size) {
  return size <= kFaultHoleSize ? kFaultHoleBase : kNoUserAddress;
}

enum class Where : uint8_t { kGuest, kProxied, kFiltered, kRefused };
enum class Waits : uint8_t { kNo, kYes };  // kYes: a signal may interrupt it

struct Placement {
  Where where;
  Waits waits;
  uint16_t refusal;  // errno
};

namespace kinds {

inline constexpr Placement guest{Where::kGuest, Waits::kNo, 0};
inline constexpr Placement proxied{Where::kProxied, Waits::kNo, 0};
inline constexpr Placement proxied_wait{Where::kProxied, Waits::kYes, 0};
inline constexpr Placement filtered{Where::kFiltered, Waits::kNo, 0};  // the guest first
inline constexpr Placement filtered_wait{Where::kFiltered, Waits::kYes, 0};
constexpr Placement refused(int error) {
  return {Where::kRefused, Waits::kNo, static_cast<uint16_t>(error)};
}

constexpr Argument value_of(Format format) {
  return {Shape::kValue, Direction::kNone, format};
}
inline constexpr Argument value = value_of(Format::kDecimal);
inline constexpr Argument hex = value_of(Format::kHexadecimal);
inline constexpr Argument flags = value_of(Format::kHexadecimal);
inline constexpr Argument mode = value_of(Format::kOctal);
inline constexpr Argument size = value_of(Format::kSize);
inline constexpr Argument count = value_of(Format::kCount);
inline constexpr Argument ucount = value_of(Format::kUnsignedCount);
inline constexpr Argument offset = value_of(Format::kOffset);
inline constexpr Argument signal = value_of(Format::kSignal);
inline constexpr Argument process = value_of(Format::kProcess);
inline constexpr Argument clock_id = value_of(Format::kClock);
inline constexpr Argument open_flags = value_of(Format::kOpenFlags);
inline constexpr Argument at_flags = value_of(Format::kAtFlags);
inline constexpr Argument protection = value_of(Format::kProtection);
inline constexpr Argument map_flags = value_of(Format::kMapFlags);
inline constexpr Argument family = value_of(Format::kSocketFamily);
inline constexpr Argument socket_type = value_of(Format::kSocketType);
inline constexpr Argument whence = value_of(Format::kWhence);
inline constexpr Argument request = value_of(Format::kDecimal);
inline constexpr Argument descriptor{Shape::kDescriptor};
inline constexpr Argument address{Shape::kProgramAddress, Direction::kNone, Format::kHexadecimal};
inline constexpr Argument path{Shape::kPath, Direction::kIn, Format::kText};
inline constexpr Argument name{Shape::kName, Direction::kIn, Format::kText};

constexpr Argument fixed(Direction direction, uint16_t bytes, Format format) {
  return {Shape::kBytes, direction, format, kFixedCount, bytes};
}
constexpr Argument in(uint16_t bytes, Format format = Format::kStructure) {
  return fixed(Direction::kIn, bytes, format);
}
constexpr Argument out(uint16_t bytes, Format format = Format::kStructure) {
  return fixed(Direction::kOut, bytes, format);
}
constexpr Argument maybe_out(uint16_t bytes, Format format = Format::kStructure) {
  return fixed(Direction::kOutMaybe, bytes, format);
}
constexpr Argument inout(uint16_t bytes, Format format = Format::kStructure) {
  return fixed(Direction::kInOut, bytes, format);
}
constexpr Argument quiet_inout(uint16_t bytes, Format format = Format::kStructure) {
  return fixed(Direction::kInOutQuietly, bytes, format);
}

constexpr Argument counted(Direction direction, uint8_t count_from, uint16_t unit, uint32_t limit,
                           Excess excess, Written written, uint8_t extra = 0) {
  const Format format = unit == 1 ? Format::kData : Format::kStructure;
  return {Shape::kBytes, direction, format, count_from, unit, extra, excess, written, limit};
}
// Bytes or elements that argument `count_from` counts. More than `limit` bytes is Linux's error.
constexpr Argument in_bytes(uint8_t count_from, uint32_t limit) {
  return counted(Direction::kIn, count_from, 1, limit, Excess::kRefuse, Written::kWhole);
}
constexpr Argument in_bytes_clamped(uint8_t count_from, uint32_t limit) {
  return counted(Direction::kIn, count_from, 1, limit, Excess::kClamp, Written::kWhole);
}
constexpr Argument in_array(uint16_t unit, uint8_t count_from, uint32_t limit) {
  return counted(Direction::kIn, count_from, unit, limit, Excess::kRefuse, Written::kWhole);
}
// A structure with a descriptor (u32) at byte `offset`.
constexpr Argument with_descriptor(uint8_t offset, Argument structure) {
  structure.descriptor_at = offset;
  return structure;
}
// Linux writes as much as its result says.
constexpr Argument out_result(uint8_t count_from, uint32_t limit) {
  return counted(Direction::kOut, count_from, 1, limit, Excess::kClamp, Written::kResult);
}
constexpr Argument out_array(uint16_t unit, uint8_t count_from, uint32_t limit) {
  return counted(Direction::kOut, count_from, unit, limit, Excess::kClamp, Written::kResult);
}
constexpr Argument out_bytes(uint8_t count_from, uint32_t limit) {
  return counted(Direction::kOutMaybe, count_from, 1, limit, Excess::kClamp, Written::kWhole);
}
constexpr Argument maybe_out_bytes(uint8_t count_from, uint32_t limit) {
  return counted(Direction::kOutMaybe, count_from, 1, limit, Excess::kRefuse, Written::kWhole);
}
// A message of a System V queue: its type in front.
constexpr Argument in_queued(uint8_t count_from, uint32_t limit) {
  return counted(Direction::kIn, count_from, 1, limit, Excess::kRefuse, Written::kWhole, 8);
}
constexpr Argument out_queued(uint8_t count_from, uint32_t limit) {
  return counted(Direction::kOut, count_from, 1, limit, Excess::kClamp, Written::kResult, 8);
}

constexpr Argument bulk_in(uint8_t count_from) {
  return {Shape::kBulk, Direction::kIn, Format::kData, count_from, 1};
}
constexpr Argument bulk_out(uint8_t count_from) {
  return {Shape::kBulk,    Direction::kOut, Format::kData, count_from, 1, 0,
          Excess::kRefuse, Written::kResult};
}
constexpr Argument vector_in(uint8_t count_from) {
  return {Shape::kVector, Direction::kIn, Format::kStructure, count_from, 16};
}
constexpr Argument vector_out(uint8_t count_from) {
  return {Shape::kVector, Direction::kOut, Format::kStructure, count_from, 16};
}
inline constexpr Argument message_in{Shape::kMessage, Direction::kIn, Format::kStructure};
inline constexpr Argument message_out{Shape::kMessage, Direction::kInOut, Format::kStructure};
constexpr Argument messages_in(uint8_t count_from) {
  return {Shape::kMessages, Direction::kIn, Format::kStructure, count_from, 64};
}
constexpr Argument messages_out(uint8_t count_from) {
  return {Shape::kMessages, Direction::kInOut, Format::kStructure, count_from, 64};
}

inline constexpr Argument length{Shape::kLength, Direction::kInOut, Format::kInteger32};
constexpr Argument socket_address_out(uint8_t length_from) {
  return {Shape::kSizedByPointer,
          Direction::kOut,
          Format::kSocketAddress,
          length_from,
          1,
          0,
          Excess::kClamp,
          Written::kWhole,
          128};
}
constexpr Argument socket_address_in(uint8_t count_from) {
  return {Shape::kBytes,
          Direction::kIn,
          Format::kSocketAddress,
          count_from,
          1,
          0,
          Excess::kRefuse,
          Written::kWhole,
          128};
}
constexpr Argument option_in(uint8_t count_from) {
  return {Shape::kSocketOption, Direction::kIn,  Format::kData, count_from, 1, 0,
          Excess::kRefuse,      Written::kWhole, kOptionMax};
}
constexpr Argument option_out(uint8_t length_from) {
  return {Shape::kSocketOption, Direction::kInOut, Format::kData, length_from, 1, 0,
          Excess::kClamp,       Written::kWhole,   kOptionMax};
}
constexpr Argument descriptor_set(uint8_t count_from) {
  return {Shape::kDescriptorSet, Direction::kInOut, Format::kData, count_from, 1};
}
constexpr Argument poll_array(uint8_t count_from) {
  return {Shape::kPollArray, Direction::kInOut, Format::kStructure, count_from, 8};
}
inline constexpr Argument self_sized{Shape::kSelfSized, Direction::kInOut, Format::kStructure};
constexpr Argument file_handle(Direction direction) {
  return {Shape::kFileHandle, direction, Format::kStructure};
}
inline constexpr Argument mask_and_size{Shape::kMaskAndSize, Direction::kIn, Format::kSignalSet};
constexpr Argument by_request(uint8_t request_from) {
  return {Shape::kByRequest, Direction::kNone, Format::kHexadecimal, request_from};
}
inline constexpr Argument interface_list{Shape::kInterfaceList, Direction::kInOut,
                                         Format::kStructure};
constexpr Argument semaphore_values(Direction direction) {
  return {Shape::kSemaphoreValues, direction, Format::kData, kFixedCount, 2};
}

inline constexpr Argument word{Shape::kWord, Direction::kInOut, Format::kInteger32};
inline constexpr Argument notification{Shape::kNotification, Direction::kIn, Format::kStructure};

inline constexpr Argument int_out = out(4, Format::kInteger32);
inline constexpr Argument timespec_in = in(16, Format::kTimespec);
inline constexpr Argument timespec_out = out(16, Format::kTimespec);
inline constexpr Argument timespec_left = maybe_out(16, Format::kTimespec);
inline constexpr Argument timeval_in = in(16, Format::kTimeval);
inline constexpr Argument stat_out = out(144);
inline constexpr Argument rusage_out = maybe_out(144);
inline constexpr Argument status_out = maybe_out(4, Format::kWaitStatus);
inline constexpr Argument signal_set_in = in(8, Format::kSignalSet);
inline constexpr Argument offset_inout = inout(8, Format::kInteger64);

}  // namespace kinds
}  // namespace dbos::syscalls
