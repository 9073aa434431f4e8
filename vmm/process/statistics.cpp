#include "vmm/process/statistics.h"

#include <asm/unistd.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include "vmm/error.h"
#include "vmm/machine/keep_descriptor.h"
#include "vmm/process/exit_statistics.h"
#include "vmm/process/host_call.h"
#include "vmm/process/vcpu_thread.h"

namespace dbos::vmm {
namespace {

int destination = -1;

}  // namespace

void enable_statistics(const std::string& file) {
  const int descriptor = file.empty()
                             ? dup(STDERR_FILENO)
                             : open(file.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (descriptor < 0)
    throw StartError::with_errno("can't open the file of --stats={} for writing", file);
  destination = keep_descriptor(descriptor);
}

void write_statistics() {
  if (destination < 0) return;
  VcpuPool& vcpus = machine().vcpus();
  uint64_t exits = 0;
  uint64_t service_calls = 0;
  uint64_t system_calls = 0;
  for (uint32_t i = 0; i < vcpus.count(); ++i) {
    const ExitStatistics& statistics = *vcpus.at(i).statistics;
    for (const uint64_t count : statistics.exits) exits += count;
    for (const uint64_t count : statistics.services) service_calls += count;
    system_calls += statistics.system_calls;
  }
  const std::string text =
      fmt::format("{{\"vcpus\": {}, \"exits\": {}, \"service_calls\": {}, \"system_calls\": {}}}\n",
                  vcpus.count(), exits, service_calls, system_calls);
  raw_call(__NR_write, static_cast<uint64_t>(destination), reinterpret_cast<uint64_t>(text.data()),
           text.size());
}

}  // namespace dbos::vmm
