// The window: host mappings of files, and of memory that processes share, at host addresses that
// are guest-physical addresses too.
#pragma once

#include <atomic>
#include <cstdint>

#include "hypercall/layout.h"
#include "vmm/host/host_lock.h"
#include "vmm/proxy/guest_memory.h"

namespace dbos::vmm {

// All of it may be called by any thread, of any process of the program. lock_ guards the books, and
// what a process that is killed leaves half done in them is mended by the next caller. It is not
// held while Linux maps and unmaps: a file system may let one wait for ever.
class Window {
 public:
  Window(int vm_descriptor, GuestMemory& memory) : vm_(vm_descriptor), memory_(memory) {}

  // Maps `length` bytes of a file (or shared memory without one: descriptor -1) from the
  // page-aligned `offset`. Result: the address, or -errno as mmap gives it; -EINVAL for an offset
  // that is not, no length or other flags than MAP_SHARED, MAP_PRIVATE and MAP_NORESERVE; -ENOMEM
  // when the window is full, and for a file of huge pages. Reads nothing of the file.
  int64_t map(int descriptor, uint64_t offset, uint64_t length, int protection, int flags);

  // A further mapping of what lies at `address`, from there on and `length` bytes long. Result: its
  // address; -EINVAL for what is not whole pages of the window, and for a private mapping; -ENOMEM
  // when the window is full; else -errno as mremap gives it.
  int64_t duplicate(uint64_t address, uint64_t length);

  // Maps the first `length` bytes of a System V shared memory segment. `flags`: of shmat(2),
  // SHM_RDONLY and SHM_EXEC. Result: the address; -EINVAL for no length, other flags and a segment
  // of huge pages; -ENOMEM when the window is full; else -errno as shmat gives it. Reads nothing.
  int64_t attach(int segment, uint64_t length, int flags);

  // Each of these returns -EINVAL for a range that is not whole pages within the window, else 0 or
  // -errno as mmap and madvise give it. populate() takes no lock, and waits for the file.
  int64_t unmap(uint64_t address, uint64_t length);
  int64_t populate(uint64_t address, uint64_t length, bool write);

  // Whether Linux has the page, so that populate() of it reads no file. Of a file that the caller
  // neither may write nor owns, Linux says so of every page (mm/mincore.c: can_do_mincore).
  bool is_in_memory(uint64_t page) const;

  // Bytes of it that are mapped, or lost.
  uint64_t used();

  // Whether [address, address + length) is whole pages of the window.
  bool contains(uint64_t address, uint64_t length) const;

 private:
  struct Hole {
    uint64_t begin;
    uint64_t size;
  };
  static constexpr uint32_t kHolesMax = 8192;

  uint64_t reserve(uint64_t length);
  int64_t give_back(uint64_t address, uint64_t length);
  void mend(const HostLockGuard& guard);
  int64_t map_again(uint64_t address, uint64_t length);
  int64_t move_in(uint64_t from, uint64_t length, int protection);
  uint64_t allocate(uint64_t length);
  void release(uint64_t begin, uint64_t size);
  void insert_hole(Hole* place, Hole hole);
  int64_t add_slots(uint64_t end);

  int vm_;
  GuestMemory& memory_;
  HostLock lock_;                    // guards the fields below
  uint64_t used_end_ = kWindowBase;  // beyond it everything is free
  uint64_t slots_end_ = kWindowBase;
  uint64_t coming_end_ = kWindowBase;  // with the slot that is being added
  uint32_t hole_count_ = 0;
  Hole holes_[kHolesMax];  // sorted by address, never touching one another
};

}  // namespace dbos::vmm
