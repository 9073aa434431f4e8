#include "tools/bench/kvm_counters.h"

#include <fmt/core.h>
#include <sys/mount.h>

#include <fstream>
#include <system_error>

#include "tools/bench/command.h"

namespace dbos::bench {
namespace {

constexpr const char* kDebugfs = "/sys/kernel/debug";

}  // namespace

KvmCounters::KvmCounters(pid_t id) {
  const std::filesystem::path all = std::filesystem::path(kDebugfs) / "kvm";
  std::error_code error;
  if (!std::filesystem::exists(all, error)) {
    mount("debugfs", kDebugfs, "debugfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, nullptr);
  }
  const std::string prefix = fmt::format("{}-", id);
  for (const auto& entry : std::filesystem::directory_iterator(all, error)) {
    if (entry.path().filename().string().rfind(prefix, 0) == 0) directory_ = entry.path();
  }
  if (error) {
    throw Failure(fmt::format("KVM's counters in {} can't be read ({}); run as root", all.string(),
                              error.message()));
  }
  if (directory_.empty()) throw Failure(fmt::format("KVM has no machine of process {}", id));
}

uint64_t KvmCounters::read(const std::string& name) const {
  std::ifstream file(directory_ / name);
  uint64_t value = 0;
  if (!(file >> value)) throw Failure(fmt::format("KVM has no counter '{}'", name));
  return value;
}

}  // namespace dbos::bench
