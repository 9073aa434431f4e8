#include "vmm/proxy/relative_timeout.h"

#include <asm/unistd.h>
#include <linux/futex.h>

#include <algorithm>

#include "vmm/host/clock_ns.h"

namespace dbos::vmm {
namespace {

constexpr int64_t kSecond = 1'000'000'000;
constexpr int64_t kMillisecond = 1'000'000;
constexpr int64_t kLongest = INT64_MAX / kSecond / 2;  // in seconds: over a hundred years

int64_t now_ns() {
  return static_cast<int64_t>(clock_ns(CLOCK_MONOTONIC));
}

}  // namespace

// Not select, pselect6 and ppoll, where Linux itself writes down what is left.
RelativeTimeout::Place RelativeTimeout::place_of(uint32_t number, const uint64_t* arguments) {
  switch (number) {
    case __NR_poll:
      return {Kind::kMilliseconds, 2};
    case __NR_epoll_wait:
    case __NR_epoll_pwait:
      return {Kind::kMilliseconds, 3};
    case __NR_nanosleep:
      return {Kind::kTimespec, 0};
    case __NR_clock_nanosleep:
      return {(arguments[1] & TIMER_ABSTIME) == 0 ? Kind::kTimespec : Kind::kNone, 2};
    case __NR_rt_sigtimedwait:
      return {Kind::kTimespec, 2};
    case __NR_semtimedop:
    case __NR_epoll_pwait2:
      return {Kind::kTimespec, 3};
    case __NR_futex: {
      const bool is_relative = (arguments[1] & FUTEX_CMD_MASK) == FUTEX_WAIT;
      return {is_relative ? Kind::kTimespec : Kind::kNone, 3};
    }
    default:
      return {Kind::kNone, 0};
  }
}

RelativeTimeout::RelativeTimeout(const GuestMemory& memory, uint32_t number,
                                 const uint64_t* arguments)
    : place_(place_of(number, arguments)) {
  const uint64_t argument = arguments[place_.argument];
  int64_t length_ns = -1;
  if (place_.kind == Kind::kMilliseconds) {
    length_ns = static_cast<int32_t>(argument) * kMillisecond;
  } else if (place_.kind == Kind::kTimespec && memory.is_plain(argument, sizeof(timespec))) {
    const auto* const timeout = reinterpret_cast<const volatile timespec*>(argument);
    const int64_t seconds = timeout->tv_sec;
    const int64_t nanoseconds = timeout->tv_nsec;
    length_ns = std::clamp<int64_t>(seconds, -1, kLongest) * kSecond +
                std::clamp<int64_t>(nanoseconds, 0, kSecond);
  }
  if (length_ns <= 0) {
    place_.kind = Kind::kNone;
  } else {
    end_ns_ = now_ns() + length_ns;
  }
}

void RelativeTimeout::shorten(uint64_t* arguments) {
  if (place_.kind == Kind::kNone) return;
  const int64_t left_ns = std::max<int64_t>(end_ns_ - now_ns(), 0);
  if (place_.kind == Kind::kMilliseconds) {
    const int64_t left = (left_ns + kMillisecond - 1) / kMillisecond;
    arguments[place_.argument] = static_cast<uint64_t>(left);
  } else {
    left_ = {left_ns / kSecond, left_ns % kSecond};
    arguments[place_.argument] = reinterpret_cast<uint64_t>(&left_);
  }
}

}  // namespace dbos::vmm
