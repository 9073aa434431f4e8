#include "vmm/observe/call_text.h"

#include <arpa/inet.h>
#include <asm/unistd_64.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/un.h>

#include <algorithm>
#include <cstring>

#include "vmm/observe/flag_text.h"

namespace dbos::vmm {
namespace {

using syscalls::Argument;
using syscalls::Format;
using syscalls::Shape;
using syscalls::SystemCall;

struct Payload {
  const uint8_t* data = nullptr;  // null: nothing was captured
  size_t size = 0;

  template <typename T>
  bool read(size_t offset, T& value) const {
    if (data == nullptr || offset > size || size - offset < sizeof value) return false;
    std::memcpy(&value, data + offset, sizeof value);
    return true;
  }
};

Payload payload_of(const TraceEvent& event, uint32_t index) {
  size_t begin = 0;
  for (uint32_t i = 0; i < index; ++i) {
    if (event.payload_size[i] != TraceEvent::kNoPayload) begin += event.payload_size[i];
  }
  const size_t size = event.payload_size[index];
  if (size == TraceEvent::kNoPayload || begin > TraceEvent::kPayloadMax ||
      size > TraceEvent::kPayloadMax - begin) {
    return {};
  }
  return {event.payload + begin, size};
}

// Descriptors, sizes and small flags are read as decimal, addresses as hexadecimal.
void put_number(Text& text, uint64_t value) {
  constexpr uint64_t kSmall = 1 << 16;
  const auto number = static_cast<int64_t>(value);
  if (value < kSmall || is_errno(number)) {
    text.decimal(number);
  } else {
    text.hex(value);
  }
}

void put_pointer(Text& text, uint64_t value) {
  value == 0 ? void(text.put("NULL")) : void(text.hex(value));
}

// Of bytes of which `whole` were there.
void put_bytes(Text& text, const Payload& payload, uint64_t whole) {
  text.quoted(payload.data, payload.size);
  if (whole > payload.size) text.put("...");
}

bool put_time(Text& text, const Payload& payload, const char* fraction) {
  int64_t seconds = 0;
  int64_t rest = 0;
  if (!payload.read(0, seconds) || !payload.read(8, rest)) return false;
  text.put("{tv_sec=").decimal(seconds).put(", ").put(fraction).put('=').decimal(rest).put('}');
  return true;
}

bool put_socket_address(Text& text, const Payload& payload) {
  uint16_t family = 0;
  if (!payload.read(0, family)) return false;
  text.put('{');
  put_family(text, family);
  sockaddr_in address{};
  sockaddr_in6 address6{};
  char name[INET6_ADDRSTRLEN] = {};
  if (family == AF_INET && payload.read(0, address)) {
    inet_ntop(AF_INET, &address.sin_addr, name, sizeof name);
    text.put(", ").put(name).put(':').decimal(ntohs(address.sin_port));
  } else if (family == AF_INET6 && payload.read(0, address6)) {
    inet_ntop(AF_INET6, &address6.sin6_addr, name, sizeof name);
    text.put(", [").put(name).put("]:").decimal(ntohs(address6.sin6_port));
  } else if (family == AF_UNIX && payload.size > 2) {
    const uint8_t* const path = payload.data + 2;
    const bool is_abstract = path[0] == 0;
    const size_t most = payload.size - 2;
    const auto* const end = static_cast<const uint8_t*>(std::memchr(path, 0, most));
    text.put(", ").quoted(path,
                          is_abstract || end == nullptr ? most : static_cast<size_t>(end - path));
  }
  text.put('}');
  return true;
}

bool put_integers(Text& text, const Payload& payload, bool is_pair) {
  int32_t first = 0;
  int32_t second = 0;
  if (!payload.read(0, first) || (is_pair && !payload.read(4, second))) return false;
  text.put('[').decimal(first);
  if (is_pair) text.put(", ").decimal(second);
  text.put(']');
  return true;
}

bool put_epoll_event(Text& text, const Payload& payload, size_t at) {
  uint32_t events = 0;
  uint64_t data = 0;
  if (!payload.read(at, events) || !payload.read(at + 4, data)) return false;
  text.put("{events=").hex(events).put(", data=").hex(data).put('}');
  return true;
}

bool put_poll_entry(Text& text, const Payload& payload, size_t at) {
  int32_t descriptor = 0;
  uint16_t events = 0;
  uint16_t answered = 0;
  if (!payload.read(at, descriptor) || !payload.read(at + 4, events) ||
      !payload.read(at + 6, answered)) {
    return false;
  }
  text.put("{fd=").decimal(descriptor).put(", events=").hex(events);
  text.put(", revents=").hex(answered).put('}');
  return true;
}

template <typename PutOne>
void put_list(Text& text, size_t unit, uint64_t count, PutOne put_one) {
  text.put('[');
  uint64_t shown = 0;
  for (; shown < count; ++shown) {
    Text one;
    if (!put_one(one, shown * unit)) break;
    if (shown != 0) text.put(", ");
    text.put(one.view());
  }
  if (shown < count) text.put(shown == 0 ? "..." : ", ...");
  text.put(']');
}

// What is behind a pointer. False: it can't be told.
bool put_structure(Text& text, const TraceEvent& event, const Argument& argument,
                   const Payload& payload) {
  switch (argument.format) {
    case Format::kTimespec:
      return put_time(text, payload, "tv_nsec");
    case Format::kTimeval:
      return put_time(text, payload, "tv_usec");
    case Format::kInteger32:
    case Format::kWaitStatus:
      return put_integers(text, payload, false);
    case Format::kDescriptorPair:
      return put_integers(text, payload, true);
    case Format::kInteger64: {
      int64_t value = 0;
      if (!payload.read(0, value)) return false;
      text.put('[').decimal(value).put(']');
      return true;
    }
    case Format::kSignalSet: {
      uint64_t mask = 0;
      if (!payload.read(0, mask)) return false;
      text.put("mask ").hex(mask);
      return true;
    }
    case Format::kEpollEvents:
      return put_epoll_event(text, payload, 0);
    case Format::kSocketAddress:
      return put_socket_address(text, payload);
    default:
      break;
  }
  const bool are_epoll_events = event.number == __NR_epoll_wait || event.number == __NR_epoll_pwait;
  if (are_epoll_events && event.result >= 0) {
    put_list(text, 12, static_cast<uint64_t>(event.result),
             [&](Text& one, size_t at) { return put_epoll_event(one, payload, at); });
    return true;
  }
  return false;
}

// How many bytes a captured buffer really has.
uint64_t whole_size(const TraceEvent& event, const SystemCall& call, const Argument& argument) {
  if (argument.shape == Shape::kVector) return UINT64_MAX;  // there is more than its first part
  const uint64_t size = syscalls::bytes_of(call, argument, event.arguments);
  const bool by_result = argument.is_written() && argument.written == syscalls::Written::kResult;
  if (!by_result || event.result < 0) return size;
  return std::min(size, static_cast<uint64_t>(event.result) * argument.unit + argument.extra);
}

bool put_captured(Text& text, const TraceEvent& event, const SystemCall& call, uint32_t index) {
  const Argument& argument = call.arguments[index];
  const Payload payload = payload_of(event, index);
  if (payload.data == nullptr) return false;
  switch (argument.shape) {
    case Shape::kPath:
    case Shape::kName:
    case Shape::kProgramAddress:  // execve's path
      text.quoted(payload.data, payload.size);
      if (payload.size >= 64) text.put("...");
      return true;
    case Shape::kVector:
      text.put("[{");
      put_bytes(text, payload, 0);
      text.put("}, ...]");
      return true;
    case Shape::kPollArray:
      put_list(text, 8,
               syscalls::count_of(call.arguments[argument.count_from],
                                  event.arguments[argument.count_from]),
               [&](Text& one, size_t at) { return put_poll_entry(one, payload, at); });
      return true;
    case Shape::kLength:
    case Shape::kWord:
      return put_integers(text, payload, false);
    default:
      break;
  }
  if (put_structure(text, event, argument, payload)) return true;
  if (argument.format != Format::kData && argument.format != Format::kText) return false;
  put_bytes(text, payload, whole_size(event, call, argument));
  return true;
}

// ioctl(5, TCGETS, ...): the number's name, if this argument is one.
const char* request_name(const TraceEvent& event, const SystemCall& call, uint32_t index) {
  for (uint32_t i = 0; i < call.argument_count; ++i) {
    if (call.arguments[i].shape != Shape::kByRequest || call.arguments[i].count_from != index)
      continue;
    const auto* const request = syscalls::find_request(event.number, event.arguments[index]);
    return request == nullptr ? nullptr : request->name;
  }
  return nullptr;
}

bool answers_address(uint32_t number) {
  return number == __NR_mmap || number == __NR_brk || number == __NR_mremap;
}

}  // namespace

uint32_t argument_count(const TraceEvent& event) {
  const SystemCall* const call = syscalls::find(event.number);
  return call == nullptr ? 6 : call->argument_count;
}

void put_call_name(Text& text, uint32_t number) {
  const SystemCall* const call = syscalls::find(number);
  if (call == nullptr) {
    text.put("syscall_").unsigned_decimal(number);
  } else {
    text.put(call->name);
  }
}

void put_argument(Text& text, const TraceEvent& event, uint32_t index) {
  const SystemCall* const call = syscalls::find(event.number);
  const uint64_t value = event.arguments[index];
  if (call == nullptr) return put_number(text, value);
  if (put_captured(text, event, *call, index)) return;
  const Argument& argument = call->arguments[index];
  if (const char* const name = request_name(event, *call, index); name != nullptr) {
    text.put(name);
    return;
  }
  if (argument.is_pointer() || argument.shape == Shape::kProgramAddress) {
    return put_pointer(text, value);
  }
  if (argument.shape == Shape::kDescriptor) {
    const auto descriptor = static_cast<int32_t>(value);
    descriptor == AT_FDCWD ? text.put("AT_FDCWD") : text.decimal(descriptor);
    return;
  }
  if (put_named(text, argument.format, value)) return;
  switch (argument.format) {
    case Format::kHexadecimal:
      text.hex(value);
      return;
    case Format::kOctal:
      text.octal(value & 0xffffffff);
      return;
    case Format::kCount:
    case Format::kProcess:
      text.decimal(static_cast<int32_t>(value));
      return;
    case Format::kSize:
      text.unsigned_decimal(value);
      return;
    case Format::kOffset:
      text.decimal(static_cast<int64_t>(value));
      return;
    default:
      put_number(text, value);
  }
}

void put_result(Text& text, const TraceEvent& event) {
  if ((event.flags & kTraceNoResult) != 0) {
    text.put('?');
    return;
  }
  if (is_interrupted(event.result)) {
    text.put("? (interrupted by a signal)");
    return;
  }
  const auto error = static_cast<int>(-event.result);
  const char* const name = is_errno(event.result) ? strerrorname_np(error) : nullptr;
  if (name != nullptr) {
    text.put("-1 ").put(name).put(" (").put(strerrordesc_np(error)).put(')');
  } else if (answers_address(event.number)) {
    text.hex(static_cast<uint64_t>(event.result));
  } else {
    text.decimal(event.result);
  }
}

uint64_t duration_ns(const TraceEvent& event, uint32_t ns_multiplier) {
  if (event.end_ticks < event.begin_ticks) return 0;
  return ns_of(event.end_ticks - event.begin_ticks, ns_multiplier);
}

void put_event(Text& text, const TraceEvent& event, uint32_t ns_multiplier) {
  text.put('[').unsigned_decimal(event.thread_id).put("] ");
  if ((event.flags & kTraceFault) != 0) {
    text.put("--- ");
    put_signal(text, static_cast<uint64_t>(event.result));
    text.put(" {vector ").unsigned_decimal(event.arguments[0]);
    text.put(", address ").hex(event.arguments[1]);
    text.put(", instruction ").hex(event.arguments[2]).put("} ---");
    return;
  }
  put_call_name(text, event.number);
  text.put('(');
  for (uint32_t i = 0; i < argument_count(event); ++i) {
    if (i != 0) text.put(", ");
    put_argument(text, event, i);
  }
  text.put(") = ");
  put_result(text, event);
  if ((event.flags & kTraceNoResult) != 0) return;
  const uint64_t us = duration_ns(event, ns_multiplier) / 1000;
  text.put(" <").unsigned_decimal(us / 1'000'000).put('.').unsigned_decimal(us % 1'000'000, 6);
  text.put('>');
}

}  // namespace dbos::vmm
