#include "guest/syscalls/filtered_calls.h"

#include <asm/unistd_64.h>

#include "guest/process/signal.h"
#include "guest/syscalls/proxy.h"

namespace dbos {
namespace {

// Calls that swap the signal mask while they wait.
i64 wait_with_mask(Thread& thread, u64 number, const u64 arguments[6], u64 mask, u64 mask_size) {
  TemporaryMask temporary(thread);
  const auto result = temporary.read(VirtualAddress(mask), mask_size);
  if (result.is_error()) return -static_cast<i64>(result.error().code());
  return temporary.finish(proxy_system_call(static_cast<u32>(number), arguments));
}

}  // namespace

bool dispatch_filtered(Thread& thread, u64 number, const u64 arguments[6], i64& result) {
  switch (number) {
    case __NR_ppoll:
      result = wait_with_mask(thread, number, arguments, arguments[3], arguments[4]);
      return true;
    case __NR_epoll_pwait:
    case __NR_epoll_pwait2:
      result = wait_with_mask(thread, number, arguments, arguments[4], arguments[5]);
      return true;
    default: return false;
  }
}

}  // namespace dbos
