// Linux's msghdr, in the program's memory and as Linux is to see it.
#pragma once

#include "guest/syscalls/marshal_transfer.h"
#include "hypercall/linux_structures.h"

namespace dbos {

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
