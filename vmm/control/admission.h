// Who may use the control socket: whoever Linux lets look into this process, as /proc/<process>/fd
// asks for (ptrace(2), PTRACE_MODE_READ_FSCREDS: the same user in all its ids or CAP_SYS_PTRACE, no
// fewer capabilities, a user namespace that is this one or above it; but not Yama). A user id alone
// does not tell: that of a container's root may be the host's.
//
// The proof is a secret. It is the name of a memory file that the control thread alone has open, in
// a table of descriptors of its own; the thread's rights stay those that dbos-run began with. Linux
// shows the name only to those who may be let in, and the VMM need not find out who they are.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>

namespace dbos::vmm {

// The control thread's name, by which it is found.
inline constexpr const char* kControlThread = "dbos-control";

// Makes the secret of the calling thread, which keeps its descriptor for good. Nothing: Linux gives
// no file, with errno.
std::optional<std::string> make_secret();

// That of the control thread of a process, if the thread has the socket of this inode, too:
// somebody else may listen in the name of a process that is gone. Nothing: the caller may not look
// into the process, or there is no such thread.
std::optional<std::string> find_secret(pid_t process, uint64_t socket_inode);

}  // namespace dbos::vmm
