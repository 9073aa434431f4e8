// Linux's msghdr, in the program's memory and as Linux is to see it.
#pragma once

#include "guest/syscalls/marshal_transfer.h"

namespace dbos {

struct HostMessage {
  u64 name;
  u32 name_length;
  u32 padding;
  u64 vectors;
  u64 vector_count;
  u64 control;
  u64 control_length;
  u32 flags;
  u32 padding_2;
};
static_assert(sizeof(HostMessage) == 56);

struct HostMessageOfMany {  // mmsghdr
  HostMessage message;
  u32 bytes;
  u32 padding;
};
static_assert(sizeof(HostMessageOfMany) == 64);

// What is to be done with a message after the call.
struct MessageState {
  MessageState(BounceBuffer& bounce, marshal_memory::HostAccess access)
      : transfer(bounce, access), access(access) {}

  // Hands back what Linux received: `message` is as Linux left it. `address`: the program's msghdr.
  Result<void> finish(u64 address, const HostMessage& message, u64 bytes);

  Transfer transfer;
  marshal_memory::HostAccess access;
  HostMessage program{};  // as the program gave it
  u8* name = nullptr;     // copies that Linux writes to; nullptr: none
  u8* control = nullptr;
};

}  // namespace dbos
