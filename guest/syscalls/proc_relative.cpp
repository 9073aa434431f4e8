// Paths of /proc by way of a directory's descriptor: crates and libraries keep one of /proc/<pid>.
#include <asm/unistd_64.h>
#include <linux/fcntl.h>

#include "guest/hypercall.h"
#include "guest/process/file_mapping.h"
#include "guest/syscalls/proc_files.h"

namespace dbos {

namespace {

// The directory's path: its length, or 0 where it is none that is short enough.
u64 read_directory(u64 directory, char (&path)[kProcPathMax]) {
  char link[kDescriptorLinkSize] = "/proc/thread-self/cwd";
  const auto descriptor = static_cast<i32>(directory);
  if (descriptor != AT_FDCWD) write_descriptor_link(link, descriptor);
  const i64 length = hypercall(__NR_readlink, host_pointer(link), host_pointer(path), sizeof path);
  return length <= 0 || length >= i64{sizeof path} ? 0 : static_cast<u64>(length);
}

}  // namespace

bool make_absolute(char (&path)[kProcPathMax], u64 directory) {
  if (!ends_with_proc_file(path)) return false;
  char joined[kProcPathMax];
  const u64 begin = read_directory(directory, joined);
  const u64 length = length_of(path) + 1;
  if (begin == 0 || begin + 1 + length > sizeof joined) return false;
  joined[begin] = '/';
  __builtin_memcpy(joined + begin + 1, path, length);
  __builtin_memcpy(path, joined, begin + 1 + length);
  return true;
}

}  // namespace dbos
