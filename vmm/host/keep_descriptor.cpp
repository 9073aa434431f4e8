#include "vmm/host/keep_descriptor.h"

#include <asm/unistd.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "vmm/host/descriptor_guard.h"
#include "vmm/host/host_call.h"
#include "vmm/host/host_lock.h"

namespace dbos::vmm {
namespace {

// fork() looks at each number up to the highest that is in use (fs/file.c, dup_fd): with 4096 it
// took three times as long as with 768. A program with more descriptors than this sees ours as
// gaps.
constexpr rlim_t kFirstOwnDescriptor = 768;

// Held while a number is taken or given up and the guard is told. Otherwise the guard could forget
// a descriptor that another thread has just got under the number of one that was closed.
HostLock numbers_lock;

}  // namespace

int64_t make_descriptor(long number, uint64_t a0, uint64_t a1, uint64_t a2) {
  const int64_t result = raw_call(number, a0, a1, a2);
  // EINVAL is F_DUPFD's word for a first number that is beyond the limit.
  if (result != -EMFILE && result != -EINVAL) return result;
  // The limit is the program's: it is raised for the moment of the call only.
  rlimit limit = {};
  getrlimit(RLIMIT_NOFILE, &limit);
  const rlimit raised = {limit.rlim_max, limit.rlim_max};
  setrlimit(RLIMIT_NOFILE, &raised);
  const int64_t result_beyond = raw_call(number, a0, a1, a2);
  rlimit now = {};
  getrlimit(RLIMIT_NOFILE, &now);
  // Unless another thread has set one of its own meanwhile.
  if (now.rlim_cur == raised.rlim_cur && now.rlim_max == raised.rlim_max) {
    setrlimit(RLIMIT_NOFILE, &limit);
  }
  return result_beyond;
}

int keep_descriptor(int descriptor) {
  rlimit limit = {};
  getrlimit(RLIMIT_NOFILE, &limit);
  const rlim_t first = std::min(kFirstOwnDescriptor, limit.rlim_max / 2);
  const HostLockGuard guard(numbers_lock);
  const auto moved = static_cast<int>(
      make_descriptor(__NR_fcntl, static_cast<uint64_t>(descriptor), F_DUPFD_CLOEXEC, first));
  if (moved == -EBADF) return moved;
  if (moved >= 0) close(descriptor);
  const int kept = moved >= 0 ? moved : descriptor;
  if (!own_descriptors().knows(kept)) {
    close(kept);
    return -EMFILE;
  }
  own_descriptors().add(kept);
  descriptors_of_all_processes().add(kept);
  return kept;
}

void close_kept(int descriptor) {
  const HostLockGuard guard(numbers_lock);
  close(descriptor);  // first: nobody may use it in between
  own_descriptors().remove(descriptor);
}

}  // namespace dbos::vmm
