#include "vmm/machine/keep_descriptor.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>

#include "vmm/proxy/descriptor_guard.h"

namespace dbos::vmm {
namespace {

// fork() looks at each number up to the highest that is in use (fs/file.c, dup_fd): with 4096 it
// took three times as long as with 768. A program with more descriptors than this sees ours as
// gaps.
constexpr rlim_t kFirstOwnDescriptor = 768;

}  // namespace

int keep_descriptor(int descriptor) {
  rlimit limit = {};
  getrlimit(RLIMIT_NOFILE, &limit);
  const auto first = static_cast<int>(std::min(kFirstOwnDescriptor, limit.rlim_max / 2));
  int moved = fcntl(descriptor, F_DUPFD_CLOEXEC, first);
  if (moved < 0) {
    // The limit is the program's: it is raised for the moment of the move only.
    const rlimit original = limit;
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    moved = fcntl(descriptor, F_DUPFD_CLOEXEC, first);
    setrlimit(RLIMIT_NOFILE, &original);
  }
  if (moved >= 0) close(descriptor);
  const int kept = moved >= 0 ? moved : descriptor;
  own_descriptors().add(kept);
  return kept;
}

void close_kept(int descriptor) {
  own_descriptors().remove(descriptor);
  close(descriptor);
}

}  // namespace dbos::vmm
