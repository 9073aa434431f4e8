// The program's processes and threads, as the VMM runs them.
#pragma once

#include "vmm/control/control_request.h"

namespace dbos::vmm {

// [{"process", "parent", "name", "space", "threads": [{"thread", "name", "vcpu", "state"}]}]
// `state` is "guest", the system call or service that the VMM makes for the thread, or "ended"
// where the guest kernel has not released it yet.
Json process_list();

// The root of the address space that the process runs in; 0: there is none.
uint64_t root_of_process(uint64_t process_id);
// ... and the reverse.
uint64_t process_of_root(uint64_t root);

}  // namespace dbos::vmm
