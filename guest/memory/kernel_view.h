// Tells the VMM where the kernel's lists and counts lie (hypercall/observe.h), so that it can look
// at them at any time: while the guest runs, when it hangs, and after it has crashed.
#pragma once

namespace dbos {

// Once, at boot.
void publish_kernel_view();

}  // namespace dbos
