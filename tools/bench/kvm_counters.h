// KVM's own counters of a machine, from debugfs: no code of ours takes part in the count.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <filesystem>
#include <string>

namespace dbos::bench {

class KvmCounters {
 public:
  // The machine that process `id` made. Mounts debugfs if it is not. Throws Failure.
  explicit KvmCounters(pid_t id);

  uint64_t read(const std::string& name) const;

  // Exits to user space by an I/O port: our hypercalls.
  uint64_t hypercalls() const { return read("io_exits"); }
  // All exits, those that Linux's KVM handles itself included (interrupts, nested page faults).
  uint64_t exits() const { return read("exits"); }

 private:
  std::filesystem::path directory_;
};

}  // namespace dbos::bench
