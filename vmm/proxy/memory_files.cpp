#include "vmm/proxy/memory_files.h"

#include <asm/fcntl.h>
#include <asm/unistd.h>
#include <linux/magic.h>
#include <sys/vfs.h>

#include <cerrno>
#include <cstring>

#include "vmm/host/host_lock.h"
#include "vmm/proxy/descriptor_link.h"

namespace dbos::vmm {
namespace {

bool opens_a_file(uint32_t call_number) {
  return call_number == __NR_open || call_number == __NR_openat || call_number == __NR_openat2 ||
         call_number == __NR_creat;
}

bool is_on_procfs(uint64_t descriptor) {
  struct statfs file_system = {};
  const int64_t result =
      raw_call(__NR_fstatfs, descriptor, reinterpret_cast<uint64_t>(&file_system));
  return result == 0 && file_system.f_type == PROC_SUPER_MAGIC;
}

bool shows_memory(const char* name) {
  static constexpr const char* kNames[] = {"mem",          "pagemap",   "maps",      "smaps",
                                           "smaps_rollup", "numa_maps", "clear_refs"};
  for (const char* const one : kNames) {
    if (std::strcmp(name, one) == 0) return true;
  }
  return false;
}

// `path` as .../<id of a process or thread>/<name>; wherever procfs is mounted.
bool is_of_our_memory(char* path) {
  char* const name = std::strrchr(path, '/');
  if (name == nullptr || !shows_memory(name + 1)) return false;
  *name = 0;
  const char* const last = std::strrchr(path, '/');
  uint32_t id = 0;
  for (const char* digit = last == nullptr ? path : last + 1; *digit != 0; ++digit) {
    if (*digit < '0' || *digit > '9') return false;
    id = id * 10 + static_cast<uint32_t>(*digit - '0');
  }
  return shares_our_memory(id);
}

}  // namespace

int64_t refuse_memory_file(const Call& call, int64_t result) {
  if (result < 0 || !opens_a_file(call.number)) return result;
  const auto descriptor = static_cast<uint64_t>(result);
  if (!is_on_procfs(descriptor)) return result;
  // What was opened for its path alone can be opened for more only here.
  if ((raw_call(__NR_fcntl, descriptor, F_GETFL) & O_PATH) != 0) return result;
  char path[256];
  const bool is_known = read_descriptor_link(static_cast<int>(result), path);
  if (is_known && !is_of_our_memory(path)) return result;
  raw_call(__NR_close, descriptor);
  return -EACCES;
}

}  // namespace dbos::vmm
