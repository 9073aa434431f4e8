// What the machine's memory takes beyond the pages that the program has.
#include <fmt/core.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>

#include "hypercall/layout.h"
#include "tools/bench/redis_server.h"
#include "tools/bench/row.h"

namespace dbos::bench {
namespace {

constexpr double kBytesPerMiB = 1024 * 1024;
constexpr double kKibPerMiB = 1024;
constexpr double kShareOfHeapMax = 0.01;
constexpr double kFixedMaxMiB = 16;

// redis looks at its own size in serverCron, ten times a second.
constexpr useconds_t kCronUs = 1'500'000;

// Memory of dbos-run that is in RAM, in MiB.
struct Resident {
  double arena = 0;   // frames of the program and of the guest kernel
  double window = 0;  // file mappings that the guest reaches
  double kernel = 0;  // guest kernel image, vCPU blocks
  double vmm = 0;     // the VMM's own code, heap and stacks
};

double& part_of(Resident& resident, uint64_t address) {
  if (address >= kArenaBase && address < kArenaBase + kArenaSizeMax) return resident.arena;
  if (address >= kWindowBase && address < kWindowBase + kWindowSizeMax) return resident.window;
  if (address >= kKernelRegionBase && address < kWindowBase) return resident.kernel;
  return resident.vmm;
}

Resident resident_of(pid_t id) {
  std::ifstream file(fmt::format("/proc/{}/smaps", id));
  if (!file) throw Failure("dbos-run's /proc/PID/smaps can't be read");
  Resident resident;
  uint64_t address = 0;
  for (std::string line; std::getline(file, line);) {
    char* end = nullptr;
    const uint64_t number = std::strtoull(line.c_str(), &end, 16);
    if (end != line.c_str() && *end == '-') address = number;
    if (line.rfind("Rss:", 0) == 0) {
      part_of(resident, address) += std::strtod(line.c_str() + 4, nullptr) / kKibPerMiB;
    }
  }
  return resident;
}

double mebibytes(const std::map<std::string, std::string>& information, const std::string& key) {
  const auto found = information.find(key);
  if (found == information.end()) throw Failure("redis says nothing of " + key);
  return std::strtod(found->second.c_str(), nullptr) / kBytesPerMiB;
}

Result measure_memory(const Context& context) {
  RedisServer server(context, Kernel::kDbos, {"--enable-debug-command", "yes"});
  // 200 MB in 1 kB values.
  server.call({"DEBUG", "POPULATE", "200000", "key", "1000"}, context.timeout);
  usleep(kCronUs);
  const auto information = server.information("memory");
  const double heap = mebibytes(information, "used_memory");
  const double program = mebibytes(information, "used_memory_rss");
  const Resident resident = resident_of(server.id());
  const double guest = resident.arena + resident.window + resident.kernel;

  Result result;
  result.dbos = Samples({guest - program});
  result.bound = kShareOfHeapMax * heap + kFixedMaxMiB;
  result.details = {{"heap_mib", heap},
                    {"program_rss_mib", program},
                    {"arena_mib", resident.arena},
                    {"window_mib", resident.window},
                    {"kernel_and_vcpus_mib", resident.kernel},
                    {"vmm_own_mib", resident.vmm}};
  result.note = fmt::format(
      "heap {:.0f} MiB, the program's own Rss {:.1f}; arena {:.1f}, file window {:.1f}, kernel and "
      "vCPUs {:.1f}; beside it the VMM's own {:.1f}",
      heap, program, resident.arena, resident.window, resident.kernel, resident.vmm);
  return result;
}

}  // namespace

Row memory_row() {
  return {"memory",
          "guest memory beyond redis's own pages, 200 MB loaded",
          "MiB",
          {MustKind::kOwn, 0},
          measure_memory};
}

}  // namespace dbos::bench
