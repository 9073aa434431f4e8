// Structures and numbers of Linux's own that the guest marshals and the VMM checks (x86-64, 6.1):
// those of arguments that hold pointers, or a size.
#pragma once

#include <cstdint>

namespace dbos {

// An iovec.
struct HostVector {
  uint64_t base;
  uint64_t size;
};

struct HostMessage {  // msghdr
  uint64_t name;
  uint32_t name_length;
  uint32_t padding;
  uint64_t vectors;
  uint64_t vector_count;
  uint64_t control;
  uint64_t control_length;
  uint32_t flags;
  uint32_t padding_2;
};
static_assert(sizeof(HostMessage) == 56);

struct HostMessageOfMany {  // mmsghdr
  HostMessage message;
  uint32_t bytes;
  uint32_t padding;
};
static_assert(sizeof(HostMessageOfMany) == 64);

// Of a message's name, sizeof(struct sockaddr_storage): Linux uses no more.
inline constexpr uint32_t kSocketNameMax = 128;

// What pselect6's last argument points to.
struct MaskAndSize {
  uint64_t mask;
  uint64_t size;
};

// SIOCGIFCONF's ifconf; without a buffer Linux tells the length needed.
struct InterfaceList {
  int32_t length;
  uint32_t padding;
  uint64_t buffer;
};

// mq_notify's sigevent: with kNotifyThread its value is the address of a cookie, and its signal a
// socket.
struct Notification {
  uint64_t value;
  int32_t signal;
  int32_t notify;
  uint8_t rest[48];
};
inline constexpr int32_t kNotifyThread = 2;  // SIGEV_THREAD
inline constexpr uint64_t kNotifyCookieSize = 32;

// The least size of a sched_attr, that of its first version; 0 stands for it.
inline constexpr uint32_t kSchedulingSizeMin = 48;

// MAX_ARG_STRLEN, 32 pages: the longest argument or environment string, with its NUL.
inline constexpr uint64_t kStringSizeMax = 128 * 1024;

}  // namespace dbos
