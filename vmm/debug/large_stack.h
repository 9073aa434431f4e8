// Running a function on a stack of its own: a vCPU's host thread has 128 KiB, which libdwfl
// exceeds.
#pragma once

#include <functional>

namespace dbos::vmm {

// Calls `function` on 2 MiB of stack and comes back. No exception may leave it. Where there is no
// memory for a stack, it is not called.
void run_on_large_stack(const std::function<void()>& function);

}  // namespace dbos::vmm
