// Messages on Unix sockets with a descriptor beside the bytes (unix(7), SCM_RIGHTS).
#pragma once

#include <sys/types.h>

#include <cstddef>

namespace dbos::vmm {

// recvmsg(2). `file`: what came beside the bytes, to be closed at exec, or -1; Linux drops all but
// one. Waits as the socket and `flags` say.
ssize_t receive_with_file(int socket, void* bytes, size_t size, int* file, int flags = 0);
// sendmsg(2) with a file beside the bytes; -1: with none. No SIGPIPE.
ssize_t send_with_file(int socket, const void* bytes, size_t size, int file, int flags = 0);

}  // namespace dbos::vmm
