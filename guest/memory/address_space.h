// An address space: the vmas, the page tables, and the memory calls of Linux on them.
//
// The calls answer with Linux's errno in Linux's order of checks (mm/mmap.c, mprotect.c, mremap.c,
// madvise.c, mlock.c, msync.c of 6.1). Lengths and addresses are as the program gave them.
//
// Locks: lock_ protects everything here, the tables, and the vmas. Order: a parent's lock, a
// snapshot's lock, the lines' lock, the heap's and frame allocator's locks. The host is never
// called with a lock held, except for platform::arena_grow() and platform::shootdown(); so whatever
// drops the last reference of a window declares a DroppedWindows before it takes the lock.
#pragma once

#include "guest/lib/spinlock.h"
#include "guest/memory/page_tree.h"
#include "guest/memory/vcpu_set.h"
#include "guest/memory/vma_tree.h"
#include "guest/snapshot/ready.h"

namespace dbos {

inline constexpr u64 kUnlimited = ~u64{0};
inline constexpr VirtualAddress kLowestAddress{0x10000};  // vm.mmap_min_addr

// Whether anonymous memory may be mapped in pages of 2 MiB.
enum class LargePages : bool { kNo, kYes };

struct SpaceLimits {
  u64 address_space = kUnlimited;  // RLIMIT_AS, bytes
  u64 data = kUnlimited;           // RLIMIT_DATA: private writable memory
  u64 stack = 8 * kMiB;            // RLIMIT_STACK
  u64 locked = kUnlimited;         // RLIMIT_MEMLOCK
  u64 at_once = kUnlimited;        // Linux's heuristic overcommit: what no growth may exceed
};

struct SpaceStatistics {
  u64 virtual_bytes;
  u64 virtual_bytes_peak;
  u64 resident_anonymous_bytes;
  u64 resident_window_bytes;
  u64 resident_bytes_peak;
  u64 locked_bytes;
  u64 table_bytes;
  u64 retired_bytes;  // what only this space, of the running ones, keeps of its parent's memory
  u32 vma_count;
  u64 faults;
  u64 copied_pages;
  u64 reassembled_pages;  // of 2 MiB
};

// What a fault, or a host call's buffer, came to.
enum class FaultKind : u8 {
  kResolved,
  kNoMapping,  // SIGSEGV, SEGV_MAPERR
  kNoAccess,   // SIGSEGV, SEGV_ACCERR
  kBusError,   // SIGBUS, BUS_ADRERR: past the end of a file
  kOutOfMemory,
  kNeedsPopulate,  // call platform::window_populate() without locks, then try again
};

struct PopulateRequest {
  PhysicalAddress address;
  u64 length = 0;
  bool write = false;
  PhysicalAddress page;  // of these, the one that the fault was at

  bool covers(PhysicalAddress page, bool for_write) const {
    return page >= address && page < address + length && (write || !for_write);
  }
};

struct FaultOutcome {
  FaultKind kind = FaultKind::kResolved;
  PopulateRequest populate;
  bool needs_block = false;  // try_fault's own: a cleared 2 MiB block, made without the lock
  u32 copied = 0;            // pages that a snapshot may share
};

// A piece of a buffer that is contiguous for the host.
struct HostSegment {
  PhysicalAddress address;
  u64 length;
};

struct ResolveOutcome {
  FaultKind kind;  // kResolved: see `bytes`
  u64 bytes;       // from the buffer's start, that the segments cover
  u32 segment_count;
  u32 copied_pages = 0;  // that a snapshot may share
};

struct WindowMapping {
  WindowObject* object;
  u64 offset = 0;  // in the object
  bool is_shared = false;
  bool may_write = true;    // PROT_WRITE may be asked for later
  bool may_execute = true;  // PROT_EXEC may be asked for, now or later
};

// Another window onto the same file, for a mapping that grows beyond the end of its own.
struct LongerWindow {
  WindowObject* object;
  const WindowObject* of;  // the mapping's own, held by the caller
  u64 offset;              // of the longer one's first byte, in `of`
};

// A copy of what /proc/self/maps says about a vma.
struct VmaInfo {
  VirtualRange range;
  Protection protection;
  VmaKind kind;
  VmaName name;
  VmaFlags flags;
  FileIdentity file;  // of the window kinds; its offset is the vma's
  char path[kWindowPathMax];
};

// The window that the program sees at an address.
struct WindowPlace {
  WindowReference window;  // of none, where the memory is anonymous
  bool is_shared = false;
  Protection protection;
  u64 offset = 0;      // of the address, in the window
  u64 vma_offset = 0;  // of the vma's first byte

  PhysicalAddress address() const { return window.get()->address() + offset; }
};

// A range of a window that a memory call concerns, for Service::kWindowControl.
struct WindowRange {
  VirtualAddress begin;  // where the program sees it
  PhysicalAddress address;
  u64 length;
  WindowReference window;
};
struct WindowRanges {
  static constexpr u32 kMax = 16;
  WindowRange ranges[kMax];
  u32 count = 0;
};

// What takes time for each page is done to so much with the lock, so that faults elsewhere, and
// flushes of others, wait some milliseconds at most.
constexpr VirtualRange first_stretch(VirtualRange range) {
  const VirtualAddress next(align_down(range.begin.value(), kGiB) + kGiB);
  return {range.begin, next < range.end ? next : range.end};
}

// As much of a buffer is made present at once, for the same reason; a multiple of each page.
inline constexpr u64 kResolvedMax = 2 * kMiB;

class AddressSpace {
 public:
  // An empty one, of a line of its own, with the kernel's half of the tables.
  static Result<AddressSpace*> create(PhysicalAddress kernel_root);
  // No processor may be in it or enter it any more, nothing may be pinned.
  static void destroy(AddressSpace* space);
  // A snapshot of this one: a new address space with the same contents, privately writable
  // (guest/snapshot/snapshot.cpp). ENOMEM.
  Result<AddressSpace*> snapshot();

  // ---- Snapshots ahead of their time (guest/snapshot/background.cpp) ----
  // Keeps up to `copies` ready copies of the tables, for snapshots that share no tables; 0: gives
  // them up. At most kReadyCopiesMax. refill() makes them. ENOMEM, EINVAL.
  Result<void> keep_ready(u32 copies);
  // One step of the work that is ahead of snapshots, about `tables_max` page tables long and with
  // the lock for that long; from any vCPU, in the background. False: nothing can be done now.
  bool refill(u32 tables_max);
  ReadyCounts ready_counts();
  // Looks at up to `tables_max` page tables, and puts the first one's pages together to a 2 MiB
  // page that can be: what a write after a snapshot has split. Copies them without the lock. False:
  // all tables have been looked at; the next call begins again. When a snapshot has ended, in the
  // background, by one vCPU at a time.
  bool reassemble(u32 tables_max);

  PhysicalAddress root() const { return tree_.root(); }
  Line& line() { return *line_; }

  // ---- Layout and limits ----
  void set_mmap_base(VirtualAddress base);  // mappings are placed below it, top-down
  void set_brk_start(VirtualAddress start);
  void set_limits(const SpaceLimits& limits);
  // For what is touched from now on (PR_SET_THP_DISABLE); a snapshot inherits it.
  void set_large_pages(LargePages large_pages);
  LargePages large_pages();

  // ---- Mapping. `flags` are Linux's MAP_*; MAP_POPULATE is the caller's: see populate() ----
  Result<VirtualAddress> map_anonymous(VirtualAddress hint, u64 length, int protection, int flags,
                                       VmaName name = VmaName::kNone);
  // Takes a reference of its own of the object for each vma.
  Result<VirtualAddress> map_window(VirtualAddress hint, u64 length, int protection, int flags,
                                    const WindowMapping& mapping);
  // Where map_*() would put a mapping: for those that are to be placed before they are made.
  Result<VirtualAddress> find_free(VirtualAddress hint, u64 length);
  // EINVAL, ENOMEM: nothing was unmapped.
  Result<void> unmap(VirtualAddress address, u64 length);
  // Unmaps what is left, in its place, of the System V segment that was attached at this address.
  // EINVAL: nothing.
  Result<void> detach_segment(VirtualAddress attached);
  // EINVAL: nothing was changed. EACCES, ENOMEM: as under Linux, what lies before the page that
  // can't have these rights has them now.
  Result<void> protect(VirtualAddress address, u64 length, int protection);
  // Error(kWindowTooShort): nothing was changed, because the window ends before the new length.
  // Call again with a `longer` one, from the vma's first byte on. What grows then shows that one
  // alone, and so stays one vma. The same error again: the mapping has changed meanwhile.
  static constexpr int kWindowTooShort = 4095;
  Result<VirtualAddress> remap(VirtualAddress address, u64 old_length, u64 new_length, int flags,
                               VirtualAddress new_address, const LongerWindow* longer = nullptr);
  // The new break, or the old one where it can't be moved, as the system call returns it.
  VirtualAddress set_brk(VirtualAddress address);

  // ---- Advice ----
  // What concerns a file (MADV_REMOVE, MADV_WILLNEED ...) is the host's too: see window_ranges().
  // Where it fails, all before `*end` is done.
  Result<void> advise(VirtualAddress address, u64 length, int advice,
                      VirtualAddress* end = nullptr);
  // One byte for each page; `present` is the kernel's memory.
  Result<void> in_core(VirtualAddress address, u64 length, u8* present);
  Result<void> lock_memory(VirtualAddress address, u64 length, int flags);  // then populate()
  Result<void> unlock_memory(VirtualAddress address, u64 length);
  Result<void> lock_all(int flags);
  Result<void> unlock_all();
  // msync's checks. ENOMEM: there are holes; Linux writes back what there is nevertheless.
  Result<void> check_sync(VirtualAddress address, u64 length, int flags);
  // Fills `out`, which is empty, with the window ranges of the vmas in the range, from *from on;
  // moves *from.
  void window_ranges(VirtualAddress* from, VirtualAddress end, WindowRanges* out);

  // No frame was left for this address space, when so many were free. Without locks: gives up what
  // is ready for its next snapshots, or ends a snapshot, and answers whether another try is worth
  // it (shortage.h asks).
  bool make_room(u64 free_before);

  // ---- Faults ----
  // Does everything, host calls included.
  FaultKind handle_fault(VirtualAddress address, Access access);
  // One try, which never calls the host; `populated` is the last request, once that was done.
  FaultOutcome try_fault(VirtualAddress address, Access access,
                         const PopulateRequest* populated = nullptr);
  // Makes a range present (MAP_POPULATE, mlock, MADV_POPULATE_*); stops at the first failure.
  FaultKind populate(VirtualAddress address, u64 length, Access access);
  // Makes what is locked in the range present, private memory that may be written with pages of its
  // own; stops at the first failure. Memory without any right is passed over, or is a failure
  // (kNoMapping), as Linux's mlock has it.
  enum class NoRights { kPassOver, kFail };
  FaultKind populate_locked(VirtualRange range, NoRights no_rights = NoRights::kPassOver);
  bool has_locked_memory();
  bool begins_large_page(VirtualAddress address, Access access);

  // The segments of a buffer that the host is going to read (Access::kRead) or write. `segments`
  // has room for `segments_max`; fewer bytes than `length` are answered where that is too few,
  // where `length` is more than kResolvedMax, or where a page can't be accessed: then `kind` says
  // why, and `bytes` what lies before it. Those bytes stay pinned for this vCPU until unpin().
  // Calls the host where needed.
  ResolveOutcome resolve_for_host(VirtualAddress address, u64 length, Access access,
                                  HostSegment* segments, u32 segments_max);
  // This vCPU's host call is over.
  void unpin();
  void unpin(u32 vcpu);

  // ---- Looking ----
  // The first vma that ends after `from`; false: none.
  bool next_vma(VirtualAddress from, VmaInfo* info);
  bool query(VirtualAddress address, VmaInfo* info);
  // Fills `place`, which is empty. False: nothing is mapped there.
  bool find_window(VirtualAddress address, WindowPlace* place);
  PageUsage usage(VirtualRange range);
  SpaceStatistics statistics();
  // Bytes that this space has no use for any more and snapshots of it keep. Takes no lock.
  u64 left_for_snapshots() const;

  // ---- For platform::shootdown() ----
  // The vCPUs that have this root loaded: the platform's to maintain.
  VcpuSet& vcpus() { return vcpus_; }

  // Panics on the first inconsistency of this address space. For tests, as
  // check_memory_invariants().
  void check_invariants();
  static void publish(KernelView& view);
  static void publish_list(KernelView& view);
  // For the checker: every address space that exists, with nothing else running.
  static AddressSpace* first();
  AddressSpace* next() const { return next_space_; }
  PageTree& tree() { return tree_; }
  const VmaTree& vmas() const { return vmas_; }
  PinSet& pins() { return pins_; }
  // A ready copy's: it has tables and no vmas.
  bool is_copy() const { return is_copy_; }

 private:
  template <typename T, typename... Arguments>
  friend T* heap_new(Arguments&&... arguments);
  template <typename T>
  friend void heap_delete(T* object);
  AddressSpace() = default;
  ~AddressSpace() = default;

  void enlist();
  void delist();

  // All below: with the lock. (mapping.cpp)
  Result<VirtualAddress> map(VirtualAddress hint, u64 length, int flags, Vma description,
                             DroppedWindows& dropped);
  Result<VirtualAddress> place(VirtualAddress hint, u64 length, int flags) const;
  Result<VirtualAddress> find_gap(u64 length) const;
  Result<Vma*> insert_vma(const Vma& description);
  Result<PageTree::Clearing> prepare_unmap(VirtualRange range, TlbBatch& batch);
  Result<void> unmap_range(VirtualRange range, TlbBatch& batch, DroppedWindows& dropped);
  void remove_vma(Vma* vma, DroppedWindows& dropped);
  enum class CountLimit : bool { kKept, kExceeded };  // the latter for a moment, by munmap
  Result<Vma*> split_vma(Vma* vma, VirtualAddress at, CountLimit limit);
  // Splits so that vmas begin and end at the range's ends.
  Result<void> split_at(VirtualRange range, CountLimit limit = CountLimit::kKept);
  Vma* merge_around(Vma* vma, DroppedWindows& dropped);
  void absorb_next(Vma* vma, DroppedWindows& dropped);
  void merge_range(VirtualRange range, DroppedWindows& dropped);
  Result<VirtualAddress> protect_begin(VirtualRange range, int growth) const;
  Result<void> protect_piece(Vma* vma, VirtualRange piece, Protection wanted, TlbBatch& batch);
  VirtualRange freeable_around(VirtualRange range) const;
  bool may_grow_by(u64 bytes) const;
  bool may_grow_data_by(u64 bytes) const;
  bool may_expand(const Vma& vma, u64 bytes) const;
  bool may_become(const Vma& vma, Protection wanted, u64 bytes) const;
  // (remap.cpp)
  Result<VirtualAddress> remap_locked(VirtualAddress address, u64 old_length, u64 new_length,
                                      int flags, VirtualAddress new_address,
                                      const LongerWindow* longer, DroppedWindows& dropped);
  Result<VirtualAddress> remap_to(VirtualAddress address, u64 old_length, u64 new_length, int flags,
                                  VirtualAddress new_address, const LongerWindow* longer,
                                  DroppedWindows& dropped);
  Result<Vma*> check_growth(VirtualAddress address, u64 old_length, u64 new_length,
                            const LongerWindow* longer) const;
  Result<void> extend(Vma* vma, VirtualAddress address, u64 new_length, const LongerWindow* longer,
                      DroppedWindows& dropped);
  Result<VirtualAddress> move_vma(Vma* vma, VirtualAddress address, u64 old_length, u64 new_length,
                                  VirtualAddress new_address, bool keep_old,
                                  const LongerWindow* longer, DroppedWindows& dropped);
  Result<void> move_pages(VirtualRange source, VirtualRange target, bool keep_old);
  Result<void> drop_window_pages(VirtualRange range);
  void leave_behind(Vma* vma, bool keep_old, DroppedWindows& dropped);
  // (advise.cpp)
  // Without the lock. `range` is afterwards what is not done.
  Result<void> advise_stretch(VirtualRange& range, int advice, bool& has_hole);
  Result<void> advise_vma(Vma* vma, VirtualRange range, int advice, TlbBatch& batch);
  Result<void> discard(VirtualRange range, TlbBatch& batch);
  Result<void> change_flags(Vma* vma, VirtualRange range, VmaFlags clear, VmaFlags set);
  Result<void> change_lock(VirtualRange range, VmaFlags set, DroppedWindows& dropped);
  // (fault.cpp)
  // A 2 MiB block that a fault may take. Clearing one takes longer than all else that a fault does,
  // so it is done before the lock is taken, where that is possible.
  struct SpareBlock {
    PhysicalAddress block;
    bool is_wanted = false;  // answer needs_block, rather than clear one with the lock
  };
  FaultOutcome fault_locked(VirtualAddress address, Access access, const PopulateRequest* populated,
                            SpareBlock& spare, TlbBatch& batch);
  FaultOutcome fault_with_host(VirtualAddress address, Access access);  // without the lock
  // A request has failed: what the fault comes to now, without the host's help. (without the lock)
  FaultOutcome fault_again(VirtualAddress address, Access access, const PopulateRequest& failed,
                           Error error);
  void check_copy_limit(u32 copied_pages);  // without the lock
  Vma* grow_stack(VirtualAddress address);
  FaultOutcome fault_anonymous(Vma& vma, VirtualAddress page, Access access, SpareBlock& spare,
                               TlbBatch& batch);
  FaultOutcome fault_window(Vma& vma, VirtualAddress page, Access access,
                            const PopulateRequest* populated, TlbBatch& batch);
  static PopulateRequest populate_request(const Vma& vma, VirtualAddress page, bool is_write);
  bool wants_large(const Vma& vma, VirtualAddress page) const;
  enum class Touched : u8 { kDone, kNeedsBlock, kUseSmall };
  Result<Touched> touch_large(const Vma& vma, VirtualAddress page, Access access, SpareBlock& spare,
                              TlbBatch& batch);
  Result<Walk> open_small(VirtualAddress page, TlbBatch& batch);
  FaultOutcome write_private(const Vma& vma, VirtualAddress page, const Walk& walk,
                             PhysicalAddress source, TlbBatch& batch);
  void make_writable(PteSlot* slots, u32 count, VirtualRange range, TlbBatch& batch);
  void grant(const Vma& vma, VirtualAddress page, const Walk& walk, Access access, bool may_write);
  void grant_neighbours(const Vma& vma, VirtualAddress page, const Walk& walk);
  void map_window_run(const Vma& vma, VirtualAddress page, const PopulateRequest& populated,
                      bool writable);
  static Pte leaf(const Vma& vma, PhysicalAddress frame, bool writable, bool dirty);
  void note_peaks();

  // (resolve.cpp) One try, as try_fault(). (without the lock)
  ResolveOutcome try_resolve(VirtualAddress address, u64 length, Access access,
                             HostSegment* segments, u32 segments_max);

  // (guest/snapshot/)
  FaultOutcome copy_run(const Vma& vma, VirtualAddress page, const Walk& walk, TlbBatch& batch);
  u32 pages_ahead(const Vma& vma, VirtualAddress page, const Walk& walk) const;
  bool may_be_shared(Pte entry) const;
  bool replace_by_copy(PteSlot& slot, VirtualAddress page, TlbBatch& batch);
  void adopt(TlbBatch& batch);
  bool has_room_for_ready() const;
  bool yield_ready();
  void give_up_ready();
  struct Scattered;
  enum class Search : u8 { kMore, kFound, kEnd };
  Search find_scattered(u32 tables_max, Scattered& found, TlbBatch& batch);
  bool is_scattered(VirtualAddress begin, Scattered& found);
  bool is_unchanged(const Scattered& found);
  void replace_table(const Scattered& found, PhysicalAddress block, TlbBatch& batch);
  Result<void> share_with(AddressSpace& child, bool is_ready, Epoch previous_departure);
  Result<void> inherit(AddressSpace& parent, Epoch previous_departure);

  Spinlock lock_;
  Line* line_ = nullptr;
  PageTree tree_;
  VmaTree vmas_;
  PinSet pins_;
  VirtualAddress mmap_base_{kProgramEnd - 128 * kMiB};
  VirtualAddress brk_start_;
  VirtualAddress brk_;
  SpaceLimits limits_;
  LargePages large_pages_ = LargePages::kYes;
  VmaFlags future_flags_;  // mlockall(MCL_FUTURE)
  u64 virtual_bytes_peak_ = 0;
  u64 resident_peak_ = 0;  // pages
  u64 faults_ = 0;
  u64 copied_pages_ = 0;
  u64 reassembled_ = 0;
  VirtualAddress reassembled_to_;
  ReadyTables* ready_ = nullptr;
  bool is_copy_ = false;
  VcpuSet vcpus_;
  AddressSpace* previous_space_ = nullptr;
  AddressSpace* next_space_ = nullptr;
};

// Once, before anything else: `kernel_root` is the root whose upper half every address space gets.
struct MemoryOptions {
  bool large_pages = true;
  u64 vma_count_max = 65530;  // of an address space: vm.max_map_count
};
Result<void> memory_initialize(const MemoryOptions& options = {});
const MemoryOptions& memory_options();

// How many bytes may be kept for snapshots only before platform::limit_copies() is called.
void set_copy_limit(u64 bytes);
u64 copy_limit();

// Walks every frame, line and address space. Only while nothing else runs.
void check_memory_invariants();

}  // namespace dbos
