#include "vmm/machine/keep_descriptor.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>

#include "vmm/proxy/descriptor_guard.h"

namespace dbos::vmm {
namespace {

// Linux copies the table of descriptors at each fork: 8 bytes for each number up to the highest. So
// not much higher than programs go.
constexpr rlim_t kFirstOwnDescriptor = 4096;

}  // namespace

int keep_descriptor(int descriptor) {
  // The limit is raised for the moment of the move only, because it is the program's.
  rlimit limit = {};
  getrlimit(RLIMIT_NOFILE, &limit);
  const rlimit original = limit;
  const auto first = static_cast<int>(std::min(kFirstOwnDescriptor, limit.rlim_max / 2));
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
  const int moved = fcntl(descriptor, F_DUPFD_CLOEXEC, first);
  setrlimit(RLIMIT_NOFILE, &original);
  if (moved >= 0) close(descriptor);
  const int kept = moved >= 0 ? moved : descriptor;
  own_descriptors().add(kept);
  return kept;
}

}  // namespace dbos::vmm
