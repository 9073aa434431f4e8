#include "vmm/process/statistics.h"

#include <asm/unistd.h>
#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "vmm/control/figures_json.h"
#include "vmm/error.h"
#include "vmm/host/descriptor_guard.h"
#include "vmm/host/host_call.h"
#include "vmm/host/keep_descriptor.h"
#include "vmm/log.h"
#include "vmm/machine/machine.h"
#include "vmm/process/signals.h"

namespace dbos::vmm {
namespace {

int destination = -1;
bool is_file = false;

}  // namespace

void enable_statistics(const std::string& file) {
  // Not cut yet: should the program not start, the last run's counters are still there.
  is_file = !file.empty();
  const int descriptor =
      is_file ? open(file.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0666) : dup(STDERR_FILENO);
  if (descriptor < 0)
    throw StartError::with_errno("can't open the file of --stats={} for writing", file);
  destination = keep_descriptor(descriptor);
}

void give_up_statistics() {
  if (own_descriptors().is_ours(destination)) close_kept(destination);
}

bool write_statistics() {
  if (destination < 0) return true;
  // A reader that is gone (SIGPIPE) or a limit (SIGXFSZ) must not be what the program ends with.
  block_all_signals();
  const Figures figures = collect_figures(machine());
  const Json json = {{"vcpus", figures.vcpus},
                     {"frames", frames_json(figures)},
                     {"snapshots", snapshots_json(figures)},
                     {"exits", exits_json(figures)},
                     {"calls", calls_json(figures)}};
  const std::string text = json.dump() + "\n";
  // In vain where it is a pipe or a device.
  if (is_file) raw_call(__NR_ftruncate, static_cast<uint64_t>(destination), 0);
  for (size_t done = 0; done < text.size();) {
    const int64_t result =
        raw_call(__NR_write, static_cast<uint64_t>(destination),
                 reinterpret_cast<uint64_t>(text.data()) + done, text.size() - done);
    if (result == -EINTR) continue;
    if (result == -EAGAIN) {  // the program may have made its standard error non-blocking
      pollfd room = {destination, POLLOUT, 0};
      raw_call(__NR_poll, reinterpret_cast<uint64_t>(&room), 1, static_cast<uint64_t>(-1));
      continue;
    }
    if (result <= 0) {
      log_line(LogLevel::kError, "the counters of --stats can't be written: {}",
               std::strerror(static_cast<int>(-result)));
      return false;
    }
    done += static_cast<size_t>(result);
  }
  return true;
}

}  // namespace dbos::vmm
