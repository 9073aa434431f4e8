#include "guest/hypercall.h"

#include "guest/arch/cpu.h"
#include "guest/lib/assert.h"

namespace dbos {
namespace {

void exit_to_host() {
  arch::enter_host();
  static_assert(kHypercallPort < 256, "the immediate form of out");
  asm volatile("outb %%al, %0" : : "i"(kHypercallPort), "a"(0) : "memory");
  arch::leave_host();
}

}  // namespace

i64 hypercall(u32 number, u64 a0, u64 a1, u64 a2, u64 a3, u64 a4, u64 a5) {
  HypercallPage& page = current_hypercall_page();
  page.calls[0] = Call{number, 0, {a0, a1, a2, a3, a4, a5}, kInterrupted};
  page.call_count = 1;
  exit_to_host();
  return page.calls[0].result;
}

u32 hypercall_batch(Call* calls, u32 count) {
  DBOS_ASSERT(count <= kCallBatchMax);
  HypercallPage& page = current_hypercall_page();
  for (u32 i = 0; i < count; ++i) page.calls[i] = calls[i];
  page.call_count = count;
  page.calls_done = 0;
  exit_to_host();
  const u32 done = page.calls_done < count ? page.calls_done : count;
  for (u32 i = 0; i < done; ++i) calls[i].result = page.calls[i].result;
  return done;
}

}  // namespace dbos
