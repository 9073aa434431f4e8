// Files that dbos-dbg sends beside a request (SCM_RIGHTS): it opens them itself, with its own
// rights, its folder and its root directory, and the VMM opens none for it. From the control
// thread, which has the client's socket, they go on to the debugger's thread, which has another
// table of descriptors, by way of a pair of sockets.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>

namespace dbos::vmm {

// The two ends; -1 where they could not be made.
struct FilePassage {
  int in = -1;
  int out = -1;
};
FilePassage make_file_passage();

// recv(2). `file`: what came beside the bytes, or -1; Linux drops all but one.
ssize_t receive_with_file(int socket, void* bytes, size_t size, int* file);
// send(2) with a file beside the bytes; -1: with none.
ssize_t send_with_file(int socket, const void* bytes, size_t size, int file);

// Hands on a file of the client that is called by this number. It is closed here, also where it
// finds no room.
void pass_file(int passage_in, uint64_t client, int file);
// The file that came last from that client, -1 where none did. Those of others are closed.
int take_passed_file(int passage_out, uint64_t client);

}  // namespace dbos::vmm
