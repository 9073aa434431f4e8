#include "guest/process/trace_capture.h"

#include <asm/unistd_64.h>

#include "hypercall/syscall_table.h"

namespace dbos {
namespace {

using syscalls::Argument;
using syscalls::Shape;
using syscalls::SystemCall;

constexpr u64 kDataMax = 32;
constexpr u64 kPathMax = 64;
constexpr u64 kSocketAddressMax = 28;

constexpr u64 least(u64 a, u64 b) {
  return a < b ? a : b;
}

class Capture {
 public:
  Capture(TraceEvent& event, PeekProgram peek) : event_(event), peek_(peek) {}

  void text(u32 index) {
    const u64 size = bytes(index, VirtualAddress(event_.arguments[index]), kPathMax);
    const u8* const begin = event_.payload + used_ - size;
    for (u64 i = 0; i < size; ++i) {
      if (begin[i] != 0) continue;
      drop(index, size - i);
      return;
    }
  }

  // Returns how many bytes were captured.
  u64 bytes(u32 index, VirtualAddress source, u64 size) {
    if (source.value() == 0) return 0;
    const u64 got =
        peek_(event_.payload + used_, source, least(size, TraceEvent::kPayloadMax - used_));
    if (size != 0 && got == 0) return 0;
    event_.payload_size[index] = static_cast<u8>(got);
    used_ += got;
    return got;
  }

  template <typename T>
  bool look(VirtualAddress source, T& value) const {
    return source.value() != 0 && peek_(&value, source, sizeof value) == sizeof value;
  }

 private:
  void drop(u32 index, u64 count) {
    used_ -= count;
    event_.payload_size[index] = static_cast<u8>(event_.payload_size[index] - count);
  }

  TraceEvent& event_;
  PeekProgram peek_;
  u64 used_ = 0;
};

// Of a buffer: what Linux read of it, or wrote to it.
u64 buffer_size(const TraceEvent& event, const SystemCall& call, const Argument& argument) {
  const u64 size = syscalls::bytes_of(call, argument, event.arguments);
  if (!argument.is_written() || argument.written != syscalls::Written::kResult) return size;
  return least(size, static_cast<u64>(event.result) * argument.unit + argument.extra);
}

void capture_vector(Capture& capture, const TraceEvent& event, u32 index,
                    const Argument& argument) {
  struct {
    u64 base, size;
  } first;
  if (!capture.look(VirtualAddress(event.arguments[index]), first)) return;
  if (argument.is_written()) first.size = least(first.size, static_cast<u64>(event.result));
  capture.bytes(index, VirtualAddress(first.base), least(first.size, kDataMax));
}

void capture_argument(Capture& capture, const TraceEvent& event, const SystemCall& call,
                      u32 index) {
  const Argument& argument = call.arguments[index];
  const VirtualAddress source(event.arguments[index]);
  const bool has_failed = event.result < 0 && (event.flags & kTraceNoResult) == 0;
  if (argument.is_written() && !argument.is_read() && has_failed) return;
  switch (argument.shape) {
    case Shape::kPath:
    case Shape::kName:
      return capture.text(index);
    case Shape::kBytes:
    case Shape::kBulk: {
      const bool is_address = argument.format == syscalls::Format::kSocketAddress;
      const u64 most = is_address ? kSocketAddressMax : kDataMax;
      capture.bytes(index, source, least(buffer_size(event, call, argument), most));
      return;
    }
    case Shape::kVector:
      if (!argument.is_written() || !has_failed) capture_vector(capture, event, index, argument);
      return;
    case Shape::kSizedByPointer: {
      u32 length = 0;
      if (!capture.look(VirtualAddress(event.arguments[argument.count_from]), length)) return;
      capture.bytes(index, source, least(length, kSocketAddressMax));
      return;
    }
    case Shape::kPollArray:
      capture.bytes(index, source,
                    least(syscalls::count_of(call.arguments[argument.count_from],
                                             event.arguments[argument.count_from]) *
                              argument.unit,
                          kDataMax));
      return;
    case Shape::kLength:
    case Shape::kWord:
      capture.bytes(index, source, sizeof(u32));
      return;
    default:
      return;
  }
}

}  // namespace

void capture_payload(TraceEvent& event, PeekProgram peek) {
  for (u8& size : event.payload_size) size = TraceEvent::kNoPayload;
  const SystemCall* const call = syscalls::find(event.number);
  if (call == nullptr || (event.flags & kTraceFault) != 0) return;
  Capture capture(event, peek);
  // The guest makes these itself, so the table has nothing to say of what they point to.
  if (event.number == __NR_execve) return capture.text(0);
  if (event.number == __NR_execveat) return capture.text(1);
  for (u32 i = 0; i < call->argument_count; ++i) capture_argument(capture, event, *call, i);
}

}  // namespace dbos
