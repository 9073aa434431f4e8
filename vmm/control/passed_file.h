// Files that dbos-dbg sends beside a request (SCM_RIGHTS): it opens them itself, with its own
// rights, its folder and its root directory, and the VMM opens none for it. From the control
// thread, which has the client's socket, they go on to the debugger's thread, which has another
// table of descriptors, by way of a pair of sockets, with which the two wake each other, too.
#pragma once

#include <cstdint>
#include <vector>

namespace dbos::vmm {

// The end of the control thread and that of the debugger's, which do not wait; -1 where they could
// not be made.
struct DebuggerSockets {
  int control = -1;
  int debugger = -1;
};
DebuggerSockets make_debugger_sockets();

// Hands on a file of the client that is called by this number. It is closed here, also where it
// finds no room.
void pass_file(int control_end, uint64_t client, int file);

struct PassedFile {
  uint64_t client;
  int file;
};
// Empties an end: what came without a file has woken the reader, and is done with.
void collect_files(int end, std::vector<PassedFile>* files);
// The file that came last from that client, -1 where none did. All others are closed.
int take_file_of(uint64_t client, std::vector<PassedFile>* files);

}  // namespace dbos::vmm
