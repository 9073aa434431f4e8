#include "vmm/observe/flag_text.h"

#include <fcntl.h>
#include <linux/mman.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>

#include <csignal>
#include <cstring>
#include <span>

namespace dbos::vmm {
namespace {

using syscalls::Format;

struct Name {
  uint64_t value;
  const char* name;
};

#define DBOS_NAME(constant) \
  { static_cast<uint64_t>(constant), #constant }
constexpr Name kProtections[] = {DBOS_NAME(PROT_READ), DBOS_NAME(PROT_WRITE), DBOS_NAME(PROT_EXEC)};
constexpr Name kMapFlags[] = {
    DBOS_NAME(MAP_SHARED),    DBOS_NAME(MAP_PRIVATE),   DBOS_NAME(MAP_FIXED),
    DBOS_NAME(MAP_ANONYMOUS), DBOS_NAME(MAP_GROWSDOWN), DBOS_NAME(MAP_DENYWRITE),
    DBOS_NAME(MAP_LOCKED),    DBOS_NAME(MAP_NORESERVE), DBOS_NAME(MAP_POPULATE),
    DBOS_NAME(MAP_STACK),     DBOS_NAME(MAP_HUGETLB),   DBOS_NAME(MAP_FIXED_NOREPLACE)};
// Those of several bits before those that are a part of them.
constexpr Name kOpenFlags[] = {
    {0x410000, "O_TMPFILE"},  {0x101000, "O_SYNC"},    DBOS_NAME(O_CREAT),
    DBOS_NAME(O_EXCL),        DBOS_NAME(O_NOCTTY),     DBOS_NAME(O_TRUNC),
    DBOS_NAME(O_APPEND),      DBOS_NAME(O_NONBLOCK),   DBOS_NAME(O_DSYNC),
    {0x10000, "O_DIRECTORY"}, {0x20000, "O_NOFOLLOW"}, {0x40000, "O_NOATIME"},
    DBOS_NAME(O_CLOEXEC),     {0x200000, "O_PATH"},    {0x4000, "O_DIRECT"}};
constexpr Name kAtFlags[] = {{0x100, "AT_SYMLINK_NOFOLLOW"},
                             {0x200, "AT_REMOVEDIR"},
                             {0x400, "AT_SYMLINK_FOLLOW"},
                             {0x1000, "AT_EMPTY_PATH"}};
constexpr Name kWhences[] = {DBOS_NAME(SEEK_SET), DBOS_NAME(SEEK_CUR), DBOS_NAME(SEEK_END)};
constexpr Name kFamilies[] = {DBOS_NAME(AF_UNSPEC), DBOS_NAME(AF_UNIX), DBOS_NAME(AF_INET),
                              DBOS_NAME(AF_INET6), DBOS_NAME(AF_NETLINK)};
constexpr Name kSocketTypes[] = {DBOS_NAME(SOCK_STREAM), DBOS_NAME(SOCK_DGRAM), DBOS_NAME(SOCK_RAW),
                                 DBOS_NAME(SOCK_SEQPACKET)};
constexpr Name kSocketFlags[] = {DBOS_NAME(SOCK_NONBLOCK), DBOS_NAME(SOCK_CLOEXEC)};
constexpr Name kClocks[] = {DBOS_NAME(CLOCK_REALTIME),           DBOS_NAME(CLOCK_MONOTONIC),
                            DBOS_NAME(CLOCK_PROCESS_CPUTIME_ID), DBOS_NAME(CLOCK_THREAD_CPUTIME_ID),
                            DBOS_NAME(CLOCK_MONOTONIC_RAW),      DBOS_NAME(CLOCK_REALTIME_COARSE),
                            DBOS_NAME(CLOCK_MONOTONIC_COARSE),   DBOS_NAME(CLOCK_BOOTTIME)};
#undef DBOS_NAME

void put_one(Text& text, std::span<const Name> names, uint64_t value) {
  for (const Name& name : names) {
    if (name.value == value) {
      text.put(name.name);
      return;
    }
  }
  text.decimal(static_cast<int32_t>(value));
}

// `text` has the first words already where `is_first` is false.
void put_bits(Text& text, std::span<const Name> names, uint64_t value, bool is_first) {
  for (const Name& name : names) {
    if ((value & name.value) != name.value) continue;
    if (!is_first) text.put('|');
    text.put(name.name);
    value &= ~name.value;
    is_first = false;
  }
  if (value == 0) return;
  if (!is_first) text.put('|');
  text.hex(value);
}

void put_open_flags(Text& text, uint64_t value) {
  constexpr const char* kModes[] = {"O_RDONLY", "O_WRONLY", "O_RDWR", "O_ACCMODE"};
  text.put(kModes[value & O_ACCMODE]);
  put_bits(text, kOpenFlags, value & 0xffffffff & ~uint64_t{O_ACCMODE | 0x8000}, false);
}

}  // namespace

void put_signal(Text& text, uint64_t signal) {
  const char* const name = signal <= 64 ? sigabbrev_np(static_cast<int>(signal)) : nullptr;
  if (name == nullptr) {
    text.decimal(static_cast<int32_t>(signal));
  } else {
    text.put("SIG").put(name);
  }
}

void put_family(Text& text, uint64_t family) {
  put_one(text, kFamilies, family);
}

bool put_named(Text& text, Format format, uint64_t value) {
  switch (format) {
    case Format::kSignal:
      put_signal(text, value);
      return true;
    case Format::kClock:
      put_one(text, kClocks, value);
      return true;
    case Format::kOpenFlags:
      put_open_flags(text, value);
      return true;
    case Format::kAtFlags:
      value == 0 ? void(text.put('0')) : put_bits(text, kAtFlags, value, true);
      return true;
    case Format::kProtection:
      value == 0 ? void(text.put("PROT_NONE")) : put_bits(text, kProtections, value, true);
      return true;
    case Format::kMapFlags:
      value == 0 ? void(text.put('0')) : put_bits(text, kMapFlags, value, true);
      return true;
    case Format::kSocketFamily:
      put_family(text, value);
      return true;
    case Format::kSocketType:
      put_one(text, kSocketTypes, value & 0xf);
      if ((value & ~uint64_t{0xf}) != 0)
        put_bits(text, kSocketFlags, value & ~uint64_t{0xf}, false);
      return true;
    case Format::kWhence:
      put_one(text, kWhences, value);
      return true;
    default:
      return false;
  }
}

}  // namespace dbos::vmm
