// The table of Linux's system calls as data: syscalls.def and syscall_requests.def, looked up by
// number. The guest's marshaller and the VMM's executor read the same entries.
#pragma once

#include <asm/errno.h>
#include <asm/unistd.h>

#include "hypercall/syscall_kinds.h"

namespace dbos::syscalls {

inline constexpr uint32_t kNumberMax = 450;

struct SystemCall {
  const char* name = nullptr;  // nullptr: Linux has no call of this number
  const char* note = nullptr;
  Placement placement{Where::kRefused, Waits::kNo, ENOSYS};
  uint8_t argument_count = 0;
  Argument arguments[6];

  constexpr bool is_proxied() const {
    return placement.where == Where::kProxied || placement.where == Where::kFiltered;
  }
};

struct Request {
  uint32_t call;
  uint32_t number;
  const char* name;
  Waits waits;
  Argument argument;
};

namespace detail {

struct Arguments {
  Argument list[6];
  uint8_t count;
};

template <typename... Kinds>
constexpr Arguments arguments_of(Kinds... kinds) {
  static_assert(sizeof...(kinds) <= 6);
  return {{kinds...}, sizeof...(kinds)};
}

struct Table {
  SystemCall calls[kNumberMax + 1];
};

constexpr SystemCall make_call(const char* name, const char* note, Placement placement,
                               Arguments arguments) {
  SystemCall call{name, note, placement, arguments.count, {}};
  for (int i = 0; i < 6; i++) call.arguments[i] = arguments.list[i];
  return call;
}

constexpr Table make_table() {
  using namespace kinds;
  Table table;
#define DBOS_SYSCALL(number, name, placement, arguments, note) \
  table.calls[number] = make_call(#name, note, placement, arguments_of arguments);
#include "hypercall/syscalls.def"
#undef DBOS_SYSCALL
  return table;
}

// Every length or count that an argument refers to must be one.
constexpr bool is_consistent(const Table& table) {
  for (const SystemCall& call : table.calls) {
    for (const Argument& argument : call.arguments) {
      if (argument.is_fixed()) continue;
      if (argument.count_from >= call.argument_count) return false;
      const Argument& counter = call.arguments[argument.count_from];
      const bool by_pointer = argument.shape == Shape::kSizedByPointer ||
                              (argument.shape == Shape::kSocketOption && argument.is_written());
      if (argument.shape == Shape::kByRequest) continue;
      if (by_pointer != (counter.shape == Shape::kLength)) return false;
      if (!by_pointer && counter.format != Format::kSize && counter.format != Format::kCount &&
          counter.format != Format::kUnsignedCount)
        return false;
    }
  }
  return true;
}

inline constexpr Table kTable = make_table();
static_assert(is_consistent(kTable));

struct Requests {
  static constexpr uint64_t kNumbers[] = {
#define DBOS_REQUEST(call, number, name, waits, argument) number,
#include "hypercall/syscall_requests.def"
#undef DBOS_REQUEST
  };
  static constexpr uint32_t kCount = sizeof kNumbers / sizeof kNumbers[0];
  Request list[kCount];  // by call and number
};

constexpr uint64_t key_of(uint32_t call, uint32_t number) {
  return uint64_t{call} << 32 | number;
}
constexpr uint64_t key_of(const Request& request) {
  return key_of(request.call, request.number);
}

constexpr Requests make_requests() {
  using namespace kinds;
  Requests requests{{
#define DBOS_REQUEST(call, number, name, waits, argument) \
  {__NR_##call, number, #name, Waits::waits, argument},
#include "hypercall/syscall_requests.def"
#undef DBOS_REQUEST
  }};
  for (uint32_t i = 1; i < Requests::kCount; i++) {
    const Request request = requests.list[i];
    uint32_t at = i;
    for (; at > 0 && key_of(requests.list[at - 1]) > key_of(request); at--) {
      requests.list[at] = requests.list[at - 1];
    }
    requests.list[at] = request;
  }
  return requests;
}

constexpr bool is_unique(const Requests& requests) {
  for (uint32_t i = 1; i < Requests::kCount; i++) {
    if (key_of(requests.list[i - 1]) == key_of(requests.list[i])) return false;
  }
  return true;
}

inline constexpr Requests kRequests = make_requests();
static_assert(is_unique(kRequests));

}  // namespace detail

// nullptr: Linux has no call of this number.
constexpr const SystemCall* find(uint32_t number) {
  if (number > kNumberMax || detail::kTable.calls[number].name == nullptr) return nullptr;
  return &detail::kTable.calls[number];
}

constexpr uint32_t request_number(uint32_t call, uint64_t value) {
  const uint32_t request = static_cast<uint32_t>(value);
  switch (call) {
    case __NR_quotactl:
    case __NR_quotactl_fd:
      return request >> 8;  // without the quota's type
    case __NR_futex:
      return request & 0x7f;  // without FUTEX_PRIVATE_FLAG, FUTEX_CLOCK_REALTIME
    default:
      return request;
  }
}

// nullptr: not proxied; the answer is -unknown_request(call).
constexpr const Request* find_request(uint32_t call, uint64_t value) {
  const uint64_t key = detail::key_of(call, request_number(call, value));
  uint32_t begin = 0;
  uint32_t end = detail::Requests::kCount;
  while (begin < end) {
    const uint32_t middle = (begin + end) / 2;
    const Request& request = detail::kRequests.list[middle];
    if (detail::key_of(request) == key) return &request;
    if (detail::key_of(request) < key) {
      begin = middle + 1;
    } else {
      end = middle;
    }
  }
  return nullptr;
}

constexpr int unknown_request(uint32_t call) {
  switch (call) {
    case __NR_ioctl:
      return ENOTTY;
    case __NR_futex:
      return ENOSYS;
    default:
      return EINVAL;
  }
}

// The number of bytes or elements that `counter` holds, as wide and as signed as Linux takes it.
// A negative count is more than any limit: Linux finds the error.
constexpr uint64_t count_of(const Argument& counter, uint64_t value) {
  switch (counter.format) {
    case Format::kCount:
      return static_cast<uint64_t>(static_cast<int64_t>(static_cast<int32_t>(value)));
    case Format::kUnsignedCount:
      return static_cast<uint32_t>(value);
    default:
      return value;
  }
}

// Bytes that an argument of Shape::kBytes or kBulk takes up; UINT64_MAX on overflow.
constexpr uint64_t bytes_of(const SystemCall& call, const Argument& argument,
                            const uint64_t arguments[6]) {
  if (argument.is_fixed()) return argument.unit;
  const uint64_t count =
      count_of(call.arguments[argument.count_from], arguments[argument.count_from]);
  uint64_t bytes = 0;
  if (__builtin_mul_overflow(count, uint64_t{argument.unit}, &bytes)) return UINT64_MAX;
  if (__builtin_add_overflow(bytes, uint64_t{argument.extra}, &bytes)) return UINT64_MAX;
  return bytes;
}

constexpr uint64_t descriptor_set_bytes(uint64_t bits) {
  return (bits + 63) / 64 * 8;
}

enum class OptionDirection : uint8_t { kGet, kSet };

// Whether a socket option is plain bytes. Options that hold addresses (packet filters, firewall
// tables, zero-copy receive) are not proxied, nor is SO_ZEROCOPY, whose buffers Linux would use
// after the call, nor multicast filters and TCP's keys (TCP_AO_GET_KEYS), of which Linux writes as
// many as the structure itself asks for, whatever its length.
constexpr bool is_plain_socket_option(OptionDirection direction, int32_t level, int32_t name) {
  constexpr int32_t kAttachFilter = 26, kAttachReuseportFilter = 51, kZeroCopy = 60;
  constexpr int32_t kFirewallBase = 64, kOriginalDestination = 80;
  constexpr int32_t kZeroCopyReceive = 35, kGetKeys = 41, kFanoutData = 22, kConnectx3 = 111;
  constexpr int32_t kSourceFilter = 41, kGroupFilter = 48;  // IP_MSFILTER, MCAST_MSFILTER
  switch (level) {
    case 0:
      if (direction == OptionDirection::kGet && name == kSourceFilter) return false;
      if (direction == OptionDirection::kGet && name == kGroupFilter) return false;
      return name < kFirewallBase || name == kOriginalDestination;  // IPPROTO_IP
    case 41:
      if (direction == OptionDirection::kGet && name == kGroupFilter) return false;
      return name != kFirewallBase && name != kFirewallBase + 1;  // IPPROTO_IPV6
    case 1:                                                       // SOL_SOCKET
      if (name == kAttachFilter || name == kAttachReuseportFilter) return false;
      return direction == OptionDirection::kGet || name != kZeroCopy;
    case 6:  // IPPROTO_TCP
      if (direction == OptionDirection::kGet && name == kGetKeys) return false;
      return name != kZeroCopyReceive;
    case 132:
      return name != kConnectx3;  // IPPROTO_SCTP
    case 263:
      return name != kFanoutData;  // SOL_PACKET
    case 17:                       // IPPROTO_UDP
    case 40:                       // AF_VSOCK
    case 58:                       // IPPROTO_ICMPV6
    case 136:                      // IPPROTO_UDPLITE
    case 255:                      // SOL_RAW
    case 270:                      // SOL_NETLINK
    case 279:                      // SOL_ALG
    case 282:                      // SOL_TLS
      return true;
    default:
      return false;
  }
}

constexpr bool is_plain_socket_family(int32_t family) {
  return family != 21 && family != 44;  // AF_RDS, AF_XDP: addresses in messages and options
}

}  // namespace dbos::syscalls
