// The steward: a thread of the VMM's own that releases what threads and processes held that ended
// without the guest kernel's doing: killed, or gone into another program by execve.
//
// Such a thread may have been anywhere, in the guest kernel with a lock held even. Its registers
// are still in its vCPU, so another host thread adopts the vCPU and runs it on: the guest kernel
// leaves what it is in, sees HypercallPage::dying where it would return to the program, releases
// the address space and so on, and ends the thread as usual. A parent adopts the children of its
// vfork() as well. Whoever adopts may be killed at it: another one goes on where it stopped.
#pragma once

#include "vmm/process/vcpu.h"

namespace dbos::vmm {

// Adopts and releases every such vCPU that `process` has the descriptor of. Signals are blocked
// meanwhile. Blocks only as long as the guest kernel works.
void reap_ended_threads(const HostProcess& process);

// Starts the steward as a thread of this process, unless there is one, or it is another process's
// to have it. From then on there should always be one. Where Linux gives no thread the log says so
// once, and for a second nobody tries again.
void start_steward(const HostProcess& process);

// With each call of the program's threads, not of the helper, whose rights are others: starts the
// steward again if it went with its process, or could not be started. While there is one it costs
// some loads.
void keep_steward(const HostProcess& process);

// Tells the steward that there are new threads to watch.
void ring_steward();

// A thread block that the steward has made. Null: there is no steward, or it does not answer.
ThreadBlock* ask_for_spare_block();

}  // namespace dbos::vmm
