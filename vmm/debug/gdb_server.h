// The thread that waits for gdb and serves it: dbos-run --gdb ADDRESS.
#pragma once

#include <string>

namespace dbos::vmm {

// Listens at `address`: "HOST:PORT", ":PORT" (of the loopback interface alone), or the path of a
// Unix socket, which holds a '/' and at which nobody listens; only the owner may open it. Starts
// the thread, with all signals blocked. debugging must be enabled. Throws StartError.
//
// One gdb at a time: another one is told so and sent away. When gdb goes, whichever way, the
// program runs on without it, and the next one may come.
void start_gdb_server(const std::string& address);

// Removes the Unix socket, if there is one. Called at the end of the first process.
void remove_gdb_socket();

}  // namespace dbos::vmm
