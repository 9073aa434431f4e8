#include "guest/syscalls/proxy.h"

#include <asm/unistd.h>
#include <linux/fcntl.h>

#include <atomic>

#include "guest/hypercall.h"
#include "guest/lib/log.h"
#include "guest/syscalls/marshal.h"

namespace dbos {

namespace {

// One line on the log for each call that is not supported.
class OncePerNumber {
 public:
  bool is_first(u32 number) {
    const u32 index = number < kNumbers ? number : kNumbers - 1;
    const u64 bit = u64{1} << (index % 64);
    std::atomic<u64>& word = seen_[index / 64];
    if ((word.load(std::memory_order_relaxed) & bit) != 0) return false;
    return (word.fetch_or(bit, std::memory_order_relaxed) & bit) == 0;
  }

 private:
  static constexpr u32 kNumbers = 512;
  std::atomic<u64> seen_[kNumbers / 64]{};
};

OncePerNumber refused_calls;
OncePerNumber refused_requests;

i64 refuse(u32 number, const syscalls::SystemCall* call) {
  const int error = call != nullptr && !call->is_proxied() && call->placement.refusal != 0
                        ? call->placement.refusal
                        : ENOSYS;
  if (refused_calls.is_first(number)) {
    LogLine line;
    line.text("system call ").number(number);
    if (call != nullptr) line.text(" (").text(call->name).text(")");
    line.text(" is not supported: errno ").number(error);
    if (call != nullptr && call->note[0] != '\0') line.text("; ").text(call->note);
    line.send();
  }
  return -error;
}

// ioctl, prctl and their like with a request that is not in the table.
i64 refuse_request(u32 number, const syscalls::SystemCall& call, u64 descriptor, u64 request) {
  const int error = syscalls::unknown_request(number);
  if (call.arguments[0].shape == syscalls::Shape::kDescriptor) {
    const i64 looked = hypercall(__NR_fcntl, descriptor, F_GETFD);
    if (looked < 0) return looked;
  }
  if (number == __NR_fcntl) return -error;  // Linux has no other requests
  const u32 hash = (number * 31 + static_cast<u32>(request ^ (request >> 8))) % 511;
  if (refused_requests.is_first(hash)) {
    LogLine()
        .text(call.name)
        .text(" request ")
        .hex(static_cast<u32>(request))
        .text(" is not supported: errno ")
        .number(error)
        .send();
  }
  return -error;
}

}  // namespace

i64 proxy_system_call(u32 number, const u64 arguments[6]) {
  if (number == __NR_vmsplice) return splice_program_memory(arguments);
  const syscalls::SystemCall* call = syscalls::find(number);
  if (call == nullptr || !call->is_proxied()) return refuse(number, call);
  for (u32 i = 0; i < call->argument_count; i++) {
    if (call->arguments[i].shape != syscalls::Shape::kByRequest) continue;
    const u64 request = arguments[call->arguments[i].count_from];
    if (syscalls::find_request(number, request) == nullptr) {
      return refuse_request(number, *call, arguments[0], request);
    }
  }
  Marshaller marshaller(number, *call, arguments);
  return marshaller.run();
}

}  // namespace dbos
