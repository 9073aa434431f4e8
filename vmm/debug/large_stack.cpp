#include "vmm/debug/large_stack.h"

#include <sys/mman.h>
#include <ucontext.h>

namespace dbos::vmm {
namespace {

constexpr size_t kStackSize = 2 << 20;

thread_local const std::function<void()>* the_function = nullptr;

void call_function() {
  (*the_function)();
}

}  // namespace

void run_on_large_stack(const std::function<void()>& function) {
  void* const stack = mmap(nullptr, kStackSize, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK | MAP_NORESERVE, -1, 0);
  if (stack == MAP_FAILED) return;
  ucontext_t here;
  ucontext_t there;
  if (getcontext(&there) == 0) {
    there.uc_stack.ss_sp = stack;
    there.uc_stack.ss_size = kStackSize;
    there.uc_link = &here;
    the_function = &function;
    makecontext(&there, call_function, 0);
    swapcontext(&here, &there);
  }
  munmap(stack, kStackSize);
}

}  // namespace dbos::vmm
