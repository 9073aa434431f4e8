#include "vmm/process/helper.h"

#include <atomic>
#include <cerrno>
#include <cstring>

#include "hypercall/abi.h"
#include "vmm/log.h"
#include "vmm/process/host_process.h"
#include "vmm/process/vcpu_thread.h"

namespace dbos::vmm {
namespace {

std::atomic<uint32_t> is_requested{0};
std::atomic<bool> makes_tables{false};  // it was not to wait for a fork
std::atomic<uint64_t> waiting_argument{
    0};  // start argument of one that is still to be made; 0: none

int64_t create_helper(Vcpu& creator, uint64_t start_argument) {
  static std::atomic<bool> is_told{false};  // each fork tries again
  const int64_t result = create_helper_thread(creator, start_argument);
  if (result >= 0) {
    log_line(LogLevel::kInfo, "the guest kernel's helper has started");
  } else {
    log_once(is_told, LogLevel::kWarning,
             "there is no helper, {}: large pages are not put together again after a save{}; raise "
             "ulimit -u, or pids.max of the cgroup",
             strerrordesc_np(static_cast<int>(-result)),
             makes_tables.load() ? ", and no page tables are made ready for one" : "");
  }
  return result;
}

}  // namespace

int64_t request_helper(Vcpu& creator, uint64_t start_argument, uint64_t flags) {
  if (start_argument == 0 || (flags & ~uint64_t{DBOS_HELPER_AFTER_FORK}) != 0) return -EINVAL;
  if (creator.process->parent != nullptr) return -EPERM;
  if (is_requested.exchange(1) != 0) return -EALREADY;
  makes_tables.store((flags & DBOS_HELPER_AFTER_FORK) == 0);
  waiting_argument.store(start_argument);
  if (makes_tables.load()) {
    start_waiting_helper(creator);
    // In the place of the one that it has taken.
    vcpus().prepare(*creator.process, 1, &creator);
  }
  return 0;
}

void start_waiting_helper(Vcpu& creator) {
  if (creator.process->parent != nullptr) return;
  const uint64_t start_argument = waiting_argument.exchange(0);
  // Without one the guest does without; the next fork tries again.
  if (start_argument != 0 && create_helper(creator, start_argument) < 0) {
    waiting_argument.store(start_argument);
  }
}

}  // namespace dbos::vmm
