#include "vmm/host_memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <string>

#include "vmm/host/number_file.h"

// The linker's: where what starts as zero begins and ends.
extern "C" char __bss_start[];
extern "C" char _end[];

namespace dbos::vmm {
namespace {

using std::filesystem::path;

// "max", and what is not there, is no limit.
uint64_t limit_in(const path& file) {
  return read_number(file, UINT64_MAX);
}

// In a container the group's own directory may be what is mounted: then there is no `group` below
// `mount`, or only a part of it, and the limit is at the top.
uint64_t least_limit(const path& mount, path group, const char* file) {
  uint64_t least = limit_in(mount / file);
  for (; group.has_relative_path(); group = group.parent_path()) {
    least = std::min(least, limit_in(mount / group.relative_path() / file));
  }
  return least;
}

// A line of /proc/meminfo, in bytes. 0: there is none.
uint64_t memory_line(const std::string& label) {
  std::ifstream stream("/proc/meminfo");
  std::string word;
  uint64_t kib = 0;
  while (stream >> word) {
    if (word == label && stream >> kib) return kib * 1024;
  }
  return 0;
}

// Whether "cpu,memory" names memory.
bool has_memory(const std::string& controllers) {
  return ("," + controllers + ",").find(",memory,") != std::string::npos;
}

}  // namespace

void keep_records_on_small_pages() {
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const uintptr_t begin = (reinterpret_cast<uintptr_t>(__bss_start) + page - 1) & ~(page - 1);
  const uintptr_t end = reinterpret_cast<uintptr_t>(_end) & ~(page - 1);
  // A refusal (a Linux without large pages) changes nothing.
  if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_NOHUGEPAGE);
}

uint64_t cgroup_memory_limit(const path& membership, const path& mounts) {
  uint64_t least = UINT64_MAX;
  std::ifstream stream(membership);
  for (std::string line; std::getline(stream, line);) {
    // ID:CONTROLLERS:PATH; version 2 has no controllers.
    const size_t first = line.find(':');
    const size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    // A group outside of our namespace is shown with "..", and can't be seen.
    path group = path(line.substr(second + 1)).lexically_normal();
    if (group.string().find("..") != std::string::npos) group = "/";
    if (controllers.empty()) {
      least = std::min(least, least_limit(mounts, group, "memory.max"));
    } else if (has_memory(controllers)) {
      least = std::min(least, least_limit(mounts / "memory", group, "memory.limit_in_bytes"));
    }
  }
  return least;
}

uint64_t commit_room() {
  constexpr uint64_t kNever = 2;  // proc(5): overcommit_memory
  if (read_number("/proc/sys/vm/overcommit_memory", 0) != kNever) return UINT64_MAX;
  const uint64_t limit = memory_line("CommitLimit:");
  const uint64_t used = memory_line("Committed_AS:");
  return limit > used ? limit - used : 0;
}

uint64_t host_memory_size() {
  const uint64_t ram =
      static_cast<uint64_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  return std::min(ram, cgroup_memory_limit("/proc/self/cgroup", "/sys/fs/cgroup"));
}

}  // namespace dbos::vmm
