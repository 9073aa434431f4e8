#include "guest/process/file_mapping.h"

#include <asm/stat.h>
#include <asm/statfs.h>
#include <asm/unistd_64.h>
#include <linux/mman.h>
#include <linux/shm.h>

#include "guest/hypercall.h"
#include "guest/lib/decimal.h"
#include "guest/platform.h"

namespace dbos {
namespace {

u64 host_descriptor(i32 descriptor) {
  return static_cast<u64>(static_cast<i64>(descriptor));
}

// Linux's encoding of a device number in stat (new_encode_dev).
u32 device_major(u64 device) {
  return static_cast<u32>(device >> 8 & 0xfff);
}
u32 device_minor(u64 device) {
  return static_cast<u32>((device & 0xff) | (device >> 12 & 0xfff00));
}

struct Description {
  FileIdentity identity;
  char path[kWindowPathMax];
  bool may_execute;
};

// One exit for all questions. What Linux does not answer stays empty.
void describe(i32 descriptor, u64 offset, const char* path, Description& description) {
  constexpr i64 kMountedNoexec = 8;  // ST_NOEXEC
  struct stat status = {};
  struct statfs file_system = {};
  char link[kDescriptorLinkSize];
  write_descriptor_link(link, descriptor);
  Call calls[3] = {{__NR_fstat, 0, {host_descriptor(descriptor), host_pointer(&status)}, 0},
                   {__NR_fstatfs, 0, {host_descriptor(descriptor), host_pointer(&file_system)}, 0},
                   {__NR_readlink,
                    0,
                    {host_pointer(link), host_pointer(description.path), kWindowPathMax - 1},
                    0}};
  const u32 count = path == nullptr ? 3 : 2;
  const u32 done = hypercall_batch(calls, count);
  const i64 length = done == 3 && calls[2].result > 0 ? calls[2].result : 0;
  description.path[length] = 0;
  description.identity.inode = status.st_ino;
  description.identity.device_major = device_major(status.st_dev);
  description.identity.device_minor = device_minor(status.st_dev);
  description.identity.offset = offset;
  description.may_execute = (file_system.f_flags & kMountedNoexec) == 0;
  description.identity.path = path == nullptr ? description.path : path;
}

Result<FileMapping> make_object(PhysicalAddress address, u64 length, WindowKind kind,
                                bool may_write, const FileIdentity& identity,
                                bool may_execute = true) {
  const auto object = window_create(address, align_up(length, kPageSize), kind, identity);
  if (object.is_error()) {
    platform::window_unmap(address, align_up(length, kPageSize));
    return object.error();
  }
  return FileMapping{object.value(), may_write, may_execute};
}

Result<FileMapping> map_again(const WindowObject& window, u64 offset, u64 length) {
  const PhysicalAddress address = window.address() + offset;
  const i64 copy = hypercall(Service::kWindowDuplicate, address.value(), length);
  if (copy < 0) return error_of(copy);
  FileIdentity identity = window.file();
  identity.offset += offset;
  return make_object(PhysicalAddress(static_cast<u64>(copy)), length, window.kind(), true,
                     identity);
}

}  // namespace

void write_descriptor_link(char (&link)[kDescriptorLinkSize], i32 descriptor) {
  constexpr char kPrefix[] = "/proc/thread-self/fd/";  // the first thread may have ended
  __builtin_memcpy(link, kPrefix, sizeof kPrefix);
  char* end = link + sizeof kPrefix - 1;
  for (const char digit : Decimal(static_cast<u32>(descriptor))) *end++ = digit;
  *end = 0;
}

Result<FileMapping> map_file(i32 descriptor, u64 offset, u64 length, FileUse use,
                             const char* path) {
  const bool is_shared = use != FileUse::kPrivate;
  bool may_write = is_shared;
  auto address = platform::window_map(descriptor, offset, length,
                                      PROT_READ | (is_shared ? PROT_WRITE : 0), MAP_SHARED);
  // EACCES: the descriptor is open for reading alone; EPERM: a memfd is sealed against writes.
  const bool is_refused =
      address.is_error() && (address.error() == Error(EACCES) || address.error() == Error(EPERM));
  if (use == FileUse::kShared && is_refused) {
    may_write = false;
    address = platform::window_map(descriptor, offset, length, PROT_READ, MAP_SHARED);
  }
  // The guest copies what the program writes to a private mapping, so the host's may be shared, and
  // can then be duplicated (map_again). Some file systems have private ones only.
  if (!is_shared && address.is_error()) {
    address = platform::window_map(descriptor, offset, length, PROT_READ, MAP_PRIVATE);
  }
  if (address.is_error()) return address.error();
  Description description;
  describe(descriptor, offset, path, description);
  return make_object(address.value(), length, WindowKind::kFile, may_write, description.identity,
                     description.may_execute);
}

Result<FileMapping> map_longer(const WindowObject& window, u64 offset, u64 length) {
  constexpr u64 kSpareMax = kGiB;
  u64 spare = length < kSpareMax ? length : kSpareMax;
  // Other memory does not grow with its mapping: there is SIGBUS behind its end.
  if (window.kind() != WindowKind::kFile) spare = 0;
  Result<FileMapping> longer = map_again(window, offset, length + spare);
  if (longer.is_error() && spare != 0) longer = map_again(window, offset, length);
  return longer;
}

Result<FileMapping> attach_segment(i32 identifier, int flags) {
  shmid64_ds status = {};
  const i64 told =
      hypercall(__NR_shmctl, static_cast<u64>(i64{identifier}), IPC_STAT, host_pointer(&status));
  if (told < 0) return error_of(told);
  const u64 length = align_up(status.shm_segsz, kPageSize);
  const i64 address = hypercall(Service::kWindowAttach, static_cast<u64>(i64{identifier}), length,
                                static_cast<u64>(flags));
  if (address < 0) return error_of(address);
  // As Linux names the file that it keeps a segment in.
  char path[] = "/SYSV00000000 (deleted)";
  auto key = static_cast<u32>(status.shm_perm.key);
  for (char* digit = path + 12; key != 0; key >>= 4) *digit-- = "0123456789abcdef"[key & 15];
  FileIdentity identity;
  identity.inode = static_cast<u32>(identifier);
  identity.device_minor = 1;
  identity.path = path;
  return make_object(PhysicalAddress(static_cast<u64>(address)), length, WindowKind::kSegment,
                     (flags & SHM_RDONLY) == 0, identity);
}

Result<FileMapping> map_shared_memory(u64 length, int flags) {
  const PhysicalAddress address =
      DBOS_TRY(platform::window_map(-1, 0, length, PROT_READ | PROT_WRITE, MAP_SHARED | flags));
  FileIdentity identity;
  identity.path = "/dev/zero (deleted)";
  return make_object(address, length, WindowKind::kSharedAnonymous, true, identity);
}

}  // namespace dbos
