#include "guest/syscalls/memory_calls.h"

#include <asm/unistd_64.h>
#include <linux/fcntl.h>
#include <linux/mman.h>
#include <linux/shm.h>

#include <atomic>

#include "guest/hypercall.h"
#include "guest/lib/log.h"
#include "guest/memory/address_space.h"
#include "guest/memory/trim.h"
#include "guest/memory/user_copy.h"
#include "guest/process/file_mapping.h"
#include "guest/process/memory_limits.h"

namespace dbos {
namespace {

constexpr u64 kPagesAtOnce = 512;  // for mincore

bool has(int flags, int flag) {
  return (flags & flag) != 0;
}

// mmap(2)'s checks of a length, before anything is asked of the host.
Result<void> check_length(u64 length) {
  if (length == 0) return Error(EINVAL);
  if (align_up(length, kPageSize) == 0 || length > kProgramEnd) return Error(ENOMEM);
  return {};
}

// The mapping type; MAP_SHARED_VALIDATE additionally refuses flags that it does not know
// (LEGACY_MAP_MASK).
Result<bool> is_shared(int flags) {
  constexpr int kKnown = MAP_TYPE | MAP_FIXED | MAP_ANONYMOUS | MAP_32BIT | MAP_GROWSDOWN |
                         MAP_DENYWRITE | MAP_EXECUTABLE | MAP_LOCKED | MAP_NORESERVE |
                         MAP_POPULATE | MAP_NONBLOCK | MAP_STACK | MAP_HUGETLB | MAP_HUGE_2MB |
                         MAP_HUGE_1GB | MAP_UNINITIALIZED;
  switch (flags & MAP_TYPE) {
    case MAP_PRIVATE:
      return false;
    case MAP_SHARED:
      return true;
    case MAP_SHARED_VALIDATE:
      return has(flags, ~kKnown) ? Result<bool>(Error(EOPNOTSUPP)) : true;
    default:
      return Error(EINVAL);
  }
}

FileUse file_use(int protection, bool shared) {
  if (!shared) return FileUse::kPrivate;
  return has(protection, PROT_WRITE) ? FileUse::kSharedToWrite : FileUse::kShared;
}

// Once for each `is_told`.
void tell_of_length(std::atomic<bool>& is_told, u64 length, const char* what) {
  if (is_told.exchange(true)) return;
  LogLine().text("mapping ").number(static_cast<i64>(length)).text(what).send();
}

Result<VirtualAddress> map_with_host(Thread& thread, u64 address, u64 length, int protection,
                                     int flags, i32 descriptor, u64 offset, bool shared) {
  DBOS_RETURN_IF_ERROR(check_length(length));
  if (has(flags, MAP_GROWSDOWN)) return Error(EINVAL);
  if (length > DBOS_WINDOW_SIZE_MAX) {
    static constinit std::atomic<bool> is_told{false};
    tell_of_length(is_told, length,
                   " bytes of a file or of shared memory is not supported: ENOMEM");
  }
  const FileMapping file =
      has(flags, MAP_ANONYMOUS)
          ? DBOS_TRY(map_shared_memory(length, flags & MAP_NORESERVE))
          : DBOS_TRY(map_file(descriptor, offset, length, file_use(protection, shared)));
  const WindowMapping mapping{file.object, 0, shared, file.may_write, file.may_execute};
  const auto result =
      thread.space->map_window(VirtualAddress(address), length, protection, flags, mapping);
  window_release(file.object);
  return result;
}

// Of what is only reserved, or only read, Linux's heuristic refuses nothing.
bool is_obvious_overcommit(u64 length, int protection, int flags) {
  const bool is_counted = has(protection, PROT_WRITE) && !has(flags, MAP_NORESERVE);
  return is_counted && length > memory_at_once_max();
}

Result<VirtualAddress> map(Thread& thread, u64 address, u64 length, int protection, int flags,
                           i32 descriptor, u64 offset) {
  if (!is_aligned(offset, kPageSize)) return Error(EINVAL);
  if (!has(flags, MAP_ANONYMOUS) &&
      hypercall(__NR_fcntl, static_cast<u64>(i64{descriptor}), F_GETFD) < 0) {
    return Error(EBADF);
  }
  // No large pages are reserved for anybody, as on a Linux that was not told to.
  if (has(flags, MAP_HUGETLB)) return Error(has(flags, MAP_ANONYMOUS) ? ENOMEM : EINVAL);
  const bool validates = (flags & MAP_TYPE) == MAP_SHARED_VALIDATE;
  if (has(flags, MAP_ANONYMOUS) && validates) return Error(EINVAL);
  const bool shared = DBOS_TRY(is_shared(flags));
  if (has(flags, MAP_ANONYMOUS) && !shared) {
    if (is_obvious_overcommit(length, protection, flags)) {
      static constinit std::atomic<bool> is_told{false};
      tell_of_length(is_told, length, " bytes is more than --memory allows: ENOMEM");
      return Error(ENOMEM);
    }
    return thread.space->map_anonymous(VirtualAddress(address), length, protection, flags);
  }
  return map_with_host(thread, address, length, protection, flags, descriptor, offset, shared);
}

Access populating_access(int protection, bool shared) {
  return has(protection, PROT_WRITE) && !shared ? Access::kWrite : Access::kRead;
}

// Passes a memory call on to Linux for the window ranges of [address, end), up to the first error.
i64 control_windows(AddressSpace& space, VirtualAddress address, u64 length, u64 number,
                    u64 argument) {
  VirtualAddress from = address;
  const VirtualAddress end = address + align_up(length, kPageSize);
  while (from < end) {
    WindowRanges found;
    space.window_ranges(&from, end, &found);
    for (u32 i = 0; i < found.count; ++i) {
      const i64 result = hypercall(Service::kWindowControl, found.ranges[i].address.value(),
                                   found.ranges[i].length, number, argument);
      if (result < 0) return result;
    }
  }
  return 0;
}

// Of a file's pages Linux tells which are in its cache, whether they are mapped here or not.
void add_cached_pages(AddressSpace& space, VirtualRange range, u8* present) {
  VirtualAddress from = range.begin;
  while (from < range.end) {
    WindowRanges found;
    space.window_ranges(&from, range.end, &found);
    for (u32 i = 0; i < found.count; ++i) {
      const WindowRange& part = found.ranges[i];
      u8 cached[kPagesAtOnce] = {};
      hypercall(Service::kWindowControl, part.address.value(), part.length, __NR_mincore,
                host_pointer(cached));
      u8* const first = present + (part.begin - range.begin) / kPageSize;
      for (u64 page = 0; page < part.length / kPageSize; ++page) first[page] |= cached[page] & 1;
    }
  }
}

// What Linux does with the files behind mappings.
bool concerns_host(int advice) {
  switch (advice) {
    case MADV_NORMAL:
    case MADV_RANDOM:
    case MADV_SEQUENTIAL:
    case MADV_WILLNEED:
    case MADV_REMOVE:
      return true;
    default:
      return false;
  }
}

// After mlockall(MCL_FUTURE).
void populate_if_locked(AddressSpace& space, VirtualAddress address, u64 length) {
  if (!space.has_locked_memory()) return;
  (void)space.populate_locked(
      {address, VirtualAddress(align_up((address + length).value(), kPageSize))});
}

// The arguments of mremap.
struct Remap {
  VirtualAddress address;
  u64 old_length;
  u64 new_length;
  int flags;
  VirtualAddress new_address;

  Result<VirtualAddress> in(AddressSpace& space, const LongerWindow* longer = nullptr) const {
    return space.remap(address, old_length, new_length, flags, new_address, longer);
  }
};

bool is_window_too_short(const Result<VirtualAddress>& result) {
  return result.is_error() && result.error().code() == AddressSpace::kWindowTooShort;
}

// What the window is too short for, with a longer one. It is too short again where another thread
// has changed the mapping meanwhile.
Result<VirtualAddress> remap_with_longer_window(AddressSpace& space, const Remap& remap) {
  WindowPlace place;
  const bool is_mapped = space.find_window(remap.address, &place);
  if (!is_mapped || place.window.get() == nullptr) return remap.in(space);
  const u64 length = place.offset - place.vma_offset + align_up(remap.new_length, kPageSize);
  const auto mapping = map_longer(*place.window.get(), place.vma_offset, length);
  if (mapping.is_error()) return Error(ENOMEM);
  const LongerWindow longer{mapping.value().object, place.window.get(), place.vma_offset};
  const auto result = remap.in(space, &longer);
  window_release(longer.object);
  return result;
}

}  // namespace

i64 system_mmap(Thread& thread, u64 address, u64 length, int protection, int flags, i32 descriptor,
                u64 offset) {
  if (has(flags, MAP_LOCKED)) apply_lock_limit(*thread.process);
  const auto result = map(thread, address, length, protection, flags, descriptor, offset);
  const bool populates =
      result.is_ok() &&
      (has(flags, MAP_LOCKED) || (has(flags, MAP_POPULATE) && !has(flags, MAP_NONBLOCK)));
  if (populates) {
    (void)thread.space->populate(result.value(), length,
                                 populating_access(protection, (flags & MAP_TYPE) != MAP_PRIVATE));
  } else if (result.is_ok()) {
    populate_if_locked(*thread.space, result.value(), length);
  }
  return result_of(result);
}

i64 system_brk(Thread& thread, u64 address) {
  const u64 before = thread.space->set_brk(VirtualAddress(0)).value();
  const bool grows_too_far = address > before && address - before > memory_at_once_max();
  if (address == 0 || grows_too_far) return static_cast<i64>(before);
  const VirtualAddress now = thread.space->set_brk(VirtualAddress(address));
  if (now.value() > before) {
    populate_if_locked(*thread.space, VirtualAddress(before), now.value() - before);
  }
  return static_cast<i64>(now.value());
}

i64 system_munmap(Thread& thread, u64 address, u64 length) {
  const i64 result = result_of(thread.space->unmap(VirtualAddress(address), length));
  trim_free_memory();
  return result;
}

i64 system_mremap(Thread& thread, u64 address, u64 old_length, u64 new_length, int flags,
                  u64 new_address) {
  AddressSpace& space = *thread.space;
  const Remap remap{VirtualAddress(address), old_length, new_length, flags,
                    VirtualAddress(new_address)};
  u64 present = old_length;  // what is locked and need not be populated
  Result<VirtualAddress> result = remap.in(space);
  while (is_window_too_short(result)) {
    result = remap_with_longer_window(space, remap);
    present = 0;
  }
  if (result.is_ok() && present < new_length) {
    populate_if_locked(space, result.value() + present, new_length - present);
  }
  return result_of(result);
}

i64 system_msync(Thread& thread, u64 address, u64 length, int flags) {
  const i64 result = result_of(thread.space->check_sync(VirtualAddress(address), length, flags));
  if (result != 0 && result != -ENOMEM) return result;
  const i64 synced = control_windows(*thread.space, VirtualAddress(address), length, __NR_msync,
                                     static_cast<u64>(flags & ~MS_INVALIDATE));
  return synced < 0 ? synced : result;
}

i64 system_madvise(Thread& thread, u64 address, u64 length, int advice) {
  VirtualAddress end;  // of what is done where it fails; ENOMEM: there are holes, the rest is done
  const i64 result = result_of(thread.space->advise(VirtualAddress(address), length, advice, &end));
  if (advice == MADV_DONTNEED || advice == MADV_FREE) trim_free_memory();
  if (!concerns_host(advice)) return result;
  const i64 passed = control_windows(*thread.space, VirtualAddress(address), end.value() - address,
                                     __NR_madvise, static_cast<u64>(advice));
  return advice == MADV_REMOVE && passed < 0 ? passed : result;
}

i64 system_mincore(Thread& thread, u64 address, u64 length, VirtualAddress vector) {
  u8 present[kPagesAtOnce];
  if (!is_aligned(address, kPageSize)) return -EINVAL;
  if (!is_program_range(VirtualAddress(address), length)) return -ENOMEM;
  const u64 pages = align_up(length, kPageSize) / kPageSize;
  for (u64 done = 0; done < pages;) {
    const u64 count = pages - done < kPagesAtOnce ? pages - done : kPagesAtOnce;
    const VirtualAddress begin(address + done * kPageSize);
    const i64 result = result_of(thread.space->in_core(begin, count * kPageSize, present));
    if (result != 0) return result;
    add_cached_pages(*thread.space, {begin, begin + count * kPageSize}, present);
    if (copy_to_program(vector + done, present, count).is_error()) return -EFAULT;
    done += count;
  }
  return 0;
}

// In the order of Linux's do_shmat().
i64 system_shmat(Thread& thread, i32 identifier, u64 address, int flags) {
  if (identifier < 0) return -EINVAL;
  const bool replaces = has(flags, SHM_REMAP);
  if (has(flags, SHM_RND)) address = align_down(address, kPageSize);
  if (!is_aligned(address, kPageSize) || (address == 0 && replaces)) return -EINVAL;
  const auto segment = DBOS_TRY_CALL(attach_segment(identifier, flags & (SHM_RDONLY | SHM_EXEC)));
  int map_flags = MAP_SHARED;
  if (address != 0) map_flags |= replaces ? MAP_FIXED : MAP_FIXED_NOREPLACE;
  int protection = PROT_READ | (has(flags, SHM_RDONLY) ? 0 : PROT_WRITE);
  if (has(flags, SHM_EXEC)) protection |= PROT_EXEC;
  WindowObject* const object = segment.object;
  const u64 length = object->length();
  const auto result = thread.space->map_window(VirtualAddress(address), length, protection,
                                               map_flags, {object, 0, true, segment.may_write});
  window_release(object);
  if (result.is_error() && result.error() == Error(EEXIST)) return -EINVAL;
  if (result.is_ok()) populate_if_locked(*thread.space, result.value(), length);
  return result_of(result);
}

i64 system_mlock(Thread& thread, u64 address, u64 length, int flags) {
  if ((flags & ~MLOCK_ONFAULT) != 0) return -EINVAL;
  apply_lock_limit(*thread.process);
  const i64 result = result_of(thread.space->lock_memory(VirtualAddress(address), length, flags));
  if (result != 0 || (flags & MLOCK_ONFAULT) != 0) return result;
  const VirtualRange range{VirtualAddress(align_down(address, kPageSize)),
                           VirtualAddress(align_up(address + length, kPageSize))};
  const FaultKind kind = thread.space->populate_locked(range, AddressSpace::NoRights::kFail);
  if (kind == FaultKind::kResolved || kind == FaultKind::kNoAccess) return 0;
  return kind == FaultKind::kOutOfMemory ? -EAGAIN : -ENOMEM;  // as POSIX wants them
}

// Linux ignores it, too, when not all can be made present.
i64 system_mlockall(Thread& thread, int flags) {
  apply_lock_limit(*thread.process);
  const i64 result = result_of(thread.space->lock_all(flags));
  if (result == 0 && (flags & MCL_CURRENT) != 0) {
    (void)thread.space->populate_locked({VirtualAddress(0), VirtualAddress(kProgramEnd)});
  }
  return result;
}

i64 system_set_thp_disable(Thread& thread, const u64 arguments[6]) {
  if (arguments[2] != 0 || arguments[3] != 0 || arguments[4] != 0) return -EINVAL;
  thread.space->set_large_pages(arguments[1] != 0 ? LargePages::kNo : LargePages::kYes);
  return 0;
}

i64 system_get_thp_disable(Thread& thread, const u64 arguments[6]) {
  for (u32 i = 1; i < 5; ++i) {
    if (arguments[i] != 0) return -EINVAL;
  }
  return thread.space->large_pages() == LargePages::kNo ? 1 : 0;
}

}  // namespace dbos
