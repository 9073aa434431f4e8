#include "vmm/control/passed_file.h"

#include <sys/socket.h>
#include <unistd.h>

#include <utility>

#include "vmm/host/descriptor_message.h"

namespace dbos::vmm {
DebuggerSockets make_debugger_sockets() {
  int ends[2];
  constexpr int kKind = SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK;
  if (socketpair(AF_UNIX, kKind, 0, ends) != 0) return {};
  return {ends[0], ends[1]};
}

void pass_file(int control_end, uint64_t client, int file) {
  send_with_file(control_end, &client, sizeof client, file);
  close(file);
}

void collect_files(int end, std::vector<PassedFile>* files) {
  for (;;) {
    PassedFile passed{0, -1};
    const ssize_t size = receive_with_file(end, &passed.client, sizeof passed.client, &passed.file);
    if (size <= 0) return;
    if (passed.file >= 0) files->push_back(passed);
  }
}

int take_file_of(uint64_t client, std::vector<PassedFile>* files) {
  int found = -1;
  for (PassedFile& passed : *files) {
    if (passed.client == client) std::swap(passed.file, found);
    if (passed.file >= 0) close(passed.file);
  }
  files->clear();
  return found;
}

}  // namespace dbos::vmm
