#include "vmm/machine/window.h"

#include <asm/mman.h>
#include <asm/unistd.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/vfs.h>

#include <algorithm>
#include <cerrno>

#include "vmm/host/host_call.h"
#include "vmm/machine/regions.h"

namespace dbos::vmm {
namespace {

// The window's slots grow in such steps: a slot costs KVM time and memory by its size.
constexpr uint64_t kSlotStep = 256 * kMiB;

// Takes away what is mapped there, and reserves the addresses again. Where the process has all the
// mappings that it may have (vm.max_map_count), it has one less without the reservation: nothing
// else of Linux's comes so low (hypercall/layout.h).
int64_t take_away(uint64_t address, uint64_t length) {
  const int64_t result = raw_call(__NR_mmap, address, length, PROT_NONE,
                                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED,
                                  static_cast<uint64_t>(-1), 0);
  return result == -ENOMEM ? raw_call(__NR_munmap, address, length) : result;
}

// Removes a mapping. Where another thread has put a descriptor of huge pages in the place of one
// that was looked at, it is longer than it was asked to be, and goes as a whole only.
void remove_mapping(uint64_t address, uint64_t length) {
  for (const uint64_t page : {kPageSize, 2 * kMiB, 1024 * kMiB}) {
    if (raw_call(__NR_munmap, address, align_up(length, page)) == 0) return;
  }
}

// Linux makes a mapping of such pages longer than it was asked to, over what lies behind.
bool has_huge_pages(int descriptor) {
  if (descriptor < 0) return false;
  struct statfs file_system = {};
  const int64_t result = raw_call(__NR_fstatfs, static_cast<uint64_t>(descriptor),
                                  reinterpret_cast<uint64_t>(&file_system));
  return result == 0 && file_system.f_type == HUGETLBFS_MAGIC;
}

}  // namespace

bool Window::contains(uint64_t address, uint64_t length) const {
  return is_aligned(address, kPageSize) && is_aligned(length, kPageSize) && length != 0 &&
         address >= kWindowBase && length <= kWindowSizeMax &&
         address - kWindowBase <= kWindowSizeMax - length;
}

int64_t Window::map(int descriptor, uint64_t offset, uint64_t length, int protection, int flags) {
  const int kind = flags & ~MAP_NORESERVE;
  if (!is_aligned(offset, kPageSize) || length == 0) return -EINVAL;
  if (kind != MAP_SHARED && kind != MAP_PRIVATE) return -EINVAL;
  if (length > kWindowSizeMax || has_huge_pages(descriptor)) return -ENOMEM;
  length = align_up(length, kPageSize);
  const int anonymous = descriptor < 0 ? MAP_ANONYMOUS : 0;
  const auto map_at = [&](uint64_t address, int fixed) {
    return raw_call(__NR_mmap, address, length, static_cast<uint64_t>(protection),
                    static_cast<uint64_t>(flags | anonymous | fixed),
                    static_cast<uint64_t>(static_cast<int64_t>(descriptor)), offset);
  };
  if ((protection & PROT_EXEC) != 0) {
    const int64_t elsewhere = map_at(0, 0);
    if (elsewhere < 0) return elsewhere;
    return move_in(static_cast<uint64_t>(elsewhere), length, protection);
  }
  const uint64_t address = reserve(length);
  if (address == 0) return -ENOMEM;
  const int64_t result = map_at(address, MAP_FIXED);
  if (result < 0) {
    give_back(address, length);
  } else {
    keep_out_of_cores(address, length);
  }
  return result;
}

int64_t Window::duplicate(uint64_t address, uint64_t length) {
  if (!contains(address, kPageSize) || !is_aligned(length, kPageSize) || length == 0)
    return -EINVAL;
  return map_again(address, length);
}

// shmat maps all of a segment, which another may have put in the place of the one whose size the
// guest knows. So Linux chooses where, and a second mapping, as long as was asked for, goes into
// the window.
int64_t Window::attach(int segment, uint64_t length, int flags) {
  if (length == 0 || (flags & ~(SHM_RDONLY | SHM_EXEC)) != 0) return -EINVAL;
  if (length > kWindowSizeMax) return -ENOMEM;
  length = align_up(length, kPageSize);
  const int64_t whole = raw_call(__NR_shmat, static_cast<uint64_t>(static_cast<int64_t>(segment)),
                                 0, static_cast<uint64_t>(flags));
  if (whole < 0) return whole;
  const auto from = static_cast<uint64_t>(whole);
  int64_t result = 0;
  if ((flags & SHM_EXEC) == 0) {
    result = map_again(from, length);
  } else {
    result = raw_call(__NR_mremap, from, 0, length, MREMAP_MAYMOVE);
    const int writes = (flags & SHM_RDONLY) != 0 ? 0 : PROT_WRITE;
    if (result >= 0) result = move_in(static_cast<uint64_t>(result), length, PROT_READ | writes);
  }
  raw_call(__NR_shmdt, from);
  return result;
}

// Linux checks whether memory may be executed when it is mapped, at an address that the guest does
// not know, and what comes into the window is not executable: the VMM is not to find the guest's
// code among its own, not even for the moment in which the guest could duplicate it.
int64_t Window::move_in(uint64_t from, uint64_t length, int protection) {
  int64_t result =
      raw_call(__NR_mprotect, from, length, static_cast<uint64_t>(protection & ~PROT_EXEC));
  const uint64_t address = result < 0 ? 0 : reserve(length);
  if (result >= 0) {
    result = address == 0 ? -ENOMEM
                          : raw_call(__NR_mremap, from, length, length,
                                     MREMAP_MAYMOVE | MREMAP_FIXED, address);
  }
  if (result >= 0) {
    keep_out_of_cores(address, length);
    return result;
  }
  remove_mapping(from, length);
  if (address != 0) give_back(address, length);
  return result;
}

// A second mapping, in the window, of the shared memory at a host address.
int64_t Window::map_again(uint64_t address, uint64_t length) {
  const uint64_t copy = reserve(length);
  if (copy == 0) return -ENOMEM;
  // An old size of 0 leaves the old mapping and makes a second one of the same file (mremap(2)).
  const int64_t result =
      raw_call(__NR_mremap, address, 0, length, MREMAP_MAYMOVE | MREMAP_FIXED, copy);
  if (result >= 0) {
    keep_out_of_cores(copy, length);
    return static_cast<int64_t>(copy);
  }
  give_back(copy, length);
  return result;
}

int64_t Window::unmap(uint64_t address, uint64_t length) {
  if (!contains(address, length)) return -EINVAL;
  return give_back(address, length);
}

int64_t Window::populate(uint64_t address, uint64_t length, bool write) {
  if (!contains(address, length)) return -EINVAL;
  return raw_call(__NR_madvise, address, length, write ? MADV_POPULATE_WRITE : MADV_POPULATE_READ);
}

bool Window::is_in_memory(uint64_t page) const {
  uint8_t state = 0;
  const bool is_mapped =
      contains(page, kPageSize) &&
      raw_call(__NR_mincore, page, kPageSize, reinterpret_cast<uint64_t>(&state)) == 0;
  return is_mapped && (state & 1) != 0;
}

uint64_t Window::used() {
  const HostLockGuard guard(lock_);
  mend(guard);
  uint64_t bytes = used_end_ - kWindowBase;
  for (uint32_t i = 0; i < hole_count_; ++i) bytes -= holes_[i].size;
  return bytes;
}

// Addresses of the caller's own, in a slot. 0: there are none.
uint64_t Window::reserve(uint64_t length) {
  const HostLockGuard guard(lock_);
  mend(guard);
  const uint64_t address = allocate(length);
  if (address == 0 || add_slots(address + length) >= 0) return address;
  release(address, length);
  return 0;
}

// Nobody else has them before Linux is done: a large mapping goes page by page.
int64_t Window::give_back(uint64_t address, uint64_t length) {
  const int64_t result = take_away(address, length);
  if (result < 0) return result;
  const HostLockGuard guard(lock_);
  mend(guard);
  release(address, length);
  return 0;
}

// Whoever was killed may have left holes that overlap. Without them addresses are lost, not memory;
// the other fields change by one store.
void Window::mend(const HostLockGuard& guard) {
  if (guard.is_from_the_dead()) hole_count_ = 0;
}

uint64_t Window::allocate(uint64_t length) {
  for (uint32_t i = 0; i < hole_count_; ++i) {
    Hole& hole = holes_[i];
    if (hole.size < length) continue;
    const uint64_t address = hole.begin;
    hole.begin += length;
    hole.size -= length;
    if (hole.size == 0) {
      std::copy(holes_ + i + 1, holes_ + hole_count_, holes_ + i);
      --hole_count_;
    }
    return address;
  }
  if (length > kWindowBase + kWindowSizeMax - used_end_) return 0;
  const uint64_t address = used_end_;
  used_end_ += length;
  return address;
}

void Window::release(uint64_t begin, uint64_t size) {
  Hole* const next = std::lower_bound(holes_, holes_ + hole_count_, begin,
                                      [](const Hole& h, uint64_t b) { return h.begin < b; });
  const bool joins_next = next != holes_ + hole_count_ && begin + size == next->begin;
  const bool joins_previous = next != holes_ && (next - 1)->begin + (next - 1)->size == begin;
  if (joins_previous && joins_next) {
    (next - 1)->size += size + next->size;
    std::copy(next + 1, holes_ + hole_count_, next);
    --hole_count_;
  } else if (joins_previous) {
    (next - 1)->size += size;
  } else if (joins_next) {
    next->begin = begin;
    next->size += size;
  } else {
    insert_hole(next, {begin, size});
  }
}

// Where there are as many as can be noted, the smallest one's addresses are lost, not its memory.
void Window::insert_hole(Hole* place, Hole hole) {
  if (hole_count_ == kHolesMax) {
    Hole* const smallest = std::min_element(
        holes_, holes_ + hole_count_, [](const Hole& a, const Hole& b) { return a.size < b.size; });
    if (hole.size <= smallest->size) return;
    std::copy(smallest + 1, holes_ + hole_count_, smallest);
    --hole_count_;
    if (smallest < place) --place;
  }
  std::copy_backward(place, holes_ + hole_count_, holes_ + hole_count_ + 1);
  *place = hole;
  ++hole_count_;
}

// Who is killed in KVM_SET_USER_MEMORY_REGION may have added a slot that slots_end_ does not know:
// the next caller adds the same one first, so that EEXIST means that very slot.
int64_t Window::add_slots(uint64_t end) {
  while (slots_end_ < end) {
    if (coming_end_ == slots_end_) coming_end_ += align_up(end - slots_end_, kSlotStep);
    const uint64_t size = coming_end_ - slots_end_;
    const int64_t result = add_memory_slot(vm_, slots_end_, size);
    if (result < 0 && result != -EEXIST) {
      coming_end_ = slots_end_;
      return result;
    }
    if (!memory_.add(slots_end_, size)) return -ENOMEM;
    slots_end_ = coming_end_;
  }
  return 0;
}

}  // namespace dbos::vmm
