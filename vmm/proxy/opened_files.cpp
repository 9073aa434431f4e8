#include "vmm/proxy/opened_files.h"

#include <asm/unistd.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <iterator>

#include "vmm/host/host_lock.h"
#include "vmm/log.h"
#include "vmm/proxy/descriptor_link.h"

namespace dbos::vmm {
namespace {

bool opens_a_file(uint32_t call_number) {
  return call_number == __NR_open || call_number == __NR_openat || call_number == __NR_openat2 ||
         call_number == __NR_creat || call_number == __NR_open_by_handle_at;
}

constexpr int64_t kPidFileSystem = 0x50494446;  // PID_FS_MAGIC, Linux 6.9 and later

// Its number (statfs(2)); 0: Linux does not tell.
int64_t file_system_of(uint64_t descriptor) {
  struct statfs file_system = {};
  const int64_t result =
      raw_call(__NR_fstatfs, descriptor, reinterpret_cast<uint64_t>(&file_system));
  return result == 0 ? file_system.f_type : 0;
}

// By which the VMM's memory knows itself.
class Mark {
 public:
  Mark() { raw_call(__NR_getrandom, reinterpret_cast<uint64_t>(bytes_), sizeof bytes_, 0); }
  // Whether the file has it where the memory has.
  bool is_in(uint64_t descriptor) const {
    uint8_t found[sizeof bytes_];
    const int64_t size = raw_call(__NR_pread64, descriptor, reinterpret_cast<uint64_t>(found),
                                  sizeof found, reinterpret_cast<uint64_t>(bytes_));
    return size == sizeof found && std::memcmp(found, bytes_, sizeof found) == 0;
  }

 private:
  uint8_t bytes_[16];
};
const Mark the_mark;

// The file behind `descriptor`, and no other one that another thread has put there meanwhile.
bool is_same_file(uint64_t descriptor, const struct stat& file) {
  struct stat other = {};
  const int64_t result = raw_call(__NR_fstat, descriptor, reinterpret_cast<uint64_t>(&other));
  return result == 0 && other.st_dev == file.st_dev && other.st_ino == file.st_ino;
}

// /proc/.../mem of a process or thread of ours, whatever it is called and whoever has died.
bool is_our_memory(uint64_t descriptor, const struct stat& file, uint64_t flags) {
  constexpr mode_t kModeOfMemory = S_IFREG | 0600;  // other such files may not be read by the way
  if (file.st_mode != kModeOfMemory) return false;
  if ((flags & O_ACCMODE) != O_WRONLY) return the_mark.is_in(descriptor);
  const int64_t again = open_again(static_cast<int>(descriptor), O_RDONLY | O_CLOEXEC);
  if (again < 0) return true;  // it can't be told
  const auto readable = static_cast<uint64_t>(again);
  const bool result = !is_same_file(readable, file) || the_mark.is_in(readable);
  raw_call(__NR_close, readable);
  return result;
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
  const char* const folder = last == nullptr ? path : last + 1;
  if (*folder == 0) return true;  // the program's root directory: it may be that of a process
  uint32_t id = 0;
  for (const char* digit = folder; *digit != 0; ++digit) {
    if (*digit < '0' || *digit > '9') return false;
    id = id * 10 + static_cast<uint32_t>(*digit - '0');
  }
  return shares_our_memory(id);
}

// What is written to a device may be a command with an address in it, to which Linux writes its
// answer: rdma_cm, uverbs, sg and uhid have such.
bool may_take_addresses(const struct stat& file, uint64_t flags) {
  if (!S_ISCHR(file.st_mode) || (flags & O_ACCMODE) == O_RDONLY) return false;
  constexpr unsigned kMisc = 10, kTun = 200, kFuse = 229;
  // Of memory (/dev/null), terminals, their other ends, and serial lines.
  constexpr unsigned kHarmless[] = {1, 4, 5, 136, 137, 138, 139, 140, 141, 142, 143, 166, 188};
  const unsigned kind = gnu_dev_major(file.st_rdev);
  const unsigned number = gnu_dev_minor(file.st_rdev);
  if (kind == kMisc) return number != kTun && number != kFuse;
  return std::find(std::begin(kHarmless), std::end(kHarmless), kind) == std::end(kHarmless);
}

int64_t judge(const struct stat& file, uint64_t descriptor, uint64_t flags) {
  if (may_take_addresses(file, flags)) {
    static std::atomic<bool> is_told{false};
    log_once(is_told, LogLevel::kWarning, "a device, {}:{}, may not be opened for writing: EACCES",
             gnu_dev_major(file.st_rdev), gnu_dev_minor(file.st_rdev));
    return -EACCES;
  }
  const int64_t file_system = file_system_of(descriptor);
  // By a handle any thread's can be opened, of those of ours, too, that have a table of their own.
  if (file_system == kPidFileSystem) return -EACCES;
  if (file_system != PROC_SUPER_MAGIC) return 0;
  char path[256];
  const bool is_known = read_descriptor_link(static_cast<int>(descriptor), path);
  const bool is_ours = !is_known || is_of_our_memory(path);
  return is_ours || is_our_memory(descriptor, file, flags) ? -EACCES : 0;
}

}  // namespace

int64_t refuse_opened_file(const Call& call, int64_t result) {
  if (result < 0 || !opens_a_file(call.number)) return result;
  const auto descriptor = static_cast<uint64_t>(result);
  const int64_t flags = raw_call(__NR_fcntl, descriptor, F_GETFL);
  // What was opened for its path alone can be opened for more only here.
  if (flags >= 0 && (flags & O_PATH) != 0) return result;
  struct stat file = {};
  int64_t error = raw_call(__NR_fstat, descriptor, reinterpret_cast<uint64_t>(&file));
  if (error == 0) error = flags < 0 ? flags : judge(file, descriptor, static_cast<uint64_t>(flags));
  if (error == 0) return result;
  raw_call(__NR_close, descriptor);
  return error;
}

}  // namespace dbos::vmm
