// Page faults, as an ordered list of cases.

#include "guest/memory/address_space.h"
#include "guest/memory/frame_allocator.h"
#include "guest/memory/shared_zero.h"
#include "guest/memory/shortage.h"

namespace dbos {
namespace {

constexpr u64 kFaultAround = 16 * kPageSize;  // how much of a window is mapped at once

constexpr FaultOutcome outcome(FaultKind kind) {
  return FaultOutcome{kind, {}};
}

VirtualRange fault_around(const Vma& vma, VirtualAddress page) {
  const VirtualAddress begin(align_down(page.value(), kFaultAround));
  return vma.range.intersect({begin, begin + kFaultAround});
}

}  // namespace

FaultOutcome AddressSpace::try_fault(VirtualAddress address, Access access,
                                     const PopulateRequest* populated) {
  SpareBlock spare;
  spare.is_wanted = true;
  FaultOutcome result;
  do {
    if (result.needs_block) {
      const Result<PhysicalAddress> block =
          frame_allocator.allocate_large(Clear::kYes, line_->ownership());
      spare.is_wanted =
          false;  // not again: there is none, or somebody else maps the page meanwhile
      if (block.is_ok()) spare.block = block.value();
    }
    LockGuard guard(lock_);
    TlbBatch batch(*this, *line_, pins_);
    result = fault_locked(address, access, populated, spare, batch);
  } while (result.needs_block);
  if (!spare.block.is_null()) frame_allocator.free(spare.block);
  return result;
}

FaultOutcome AddressSpace::fault_locked(VirtualAddress address, Access access,
                                        const PopulateRequest* populated, SpareBlock& spare,
                                        TlbBatch& batch) {
  const VirtualAddress page(align_down(address.value(), kPageSize));
  ++faults_;

  // 1. Nothing is mapped there, unless a stack can grow.
  Vma* vma = vmas_.find(page);
  if (vma == nullptr) vma = grow_stack(page);
  if (vma == nullptr) return outcome(FaultKind::kNoMapping);

  // 2. The mapping does not allow it.
  if (!vma->permits(access)) return outcome(FaultKind::kNoAccess);

  // 3. Somebody else was here meanwhile, or this processor remembered too little.
  const Walk found = tree_.find(page);
  if (found.permits(access)) {
    if (access == Access::kWrite) found.slot->set(Pte::kDirty);
    platform::flush_local(page);
    platform::counters().count(Counter::kFaultSpurious);
    return outcome(FaultKind::kResolved);
  }

  if (line_->may_adopt()) adopt(batch);

  // 4. A page of a file or of shared memory. 5. Anonymous memory.
  return vma->is_anonymous() ? fault_anonymous(*vma, page, access, spare, batch)
                             : fault_window(*vma, page, access, populated, batch);
}

FaultKind AddressSpace::handle_fault(VirtualAddress address, Access access) {
  Shortage shortage(*this);
  FaultOutcome result = fault_with_host(address, access);
  while (result.kind == FaultKind::kOutOfMemory && shortage.try_again()) {
    result = fault_with_host(address, access);
  }
  if (result.copied != 0) check_copy_limit(result.copied);
  return result.kind;
}

bool AddressSpace::make_room(u64 free_before) {
  return yield_ready() || platform::make_room(free_before);
}

u64 AddressSpace::left_for_snapshots() const {
  return line_->left_frames() * kPageSize;
}

// Snapshots are made to cost less where they keep too much.
void AddressSpace::check_copy_limit(u32 copied_pages) {
  const u64 kept = left_for_snapshots();
  if (kept > copy_limit()) platform::limit_copies(kept, copied_pages);
}

FaultOutcome AddressSpace::fault_with_host(VirtualAddress address, Access access) {
  FaultOutcome result = try_fault(address, access);
  while (result.kind == FaultKind::kNeedsPopulate) {
    const PopulateRequest request = result.populate;
    const Result<void> done =
        platform::window_populate(request.address, request.length, request.write);
    result = done.is_ok() ? try_fault(address, access, &request)
                          : fault_again(address, access, request, done.error());
  }
  return result;
}

// No lock was held meanwhile, so something else may be mapped there now. If not, a part of the run
// may lie past the end of the file, or this is a dead thread's vCPU, which gets single pages alone:
// the page is asked for by itself.
FaultOutcome AddressSpace::fault_again(VirtualAddress address, Access access,
                                       const PopulateRequest& failed, Error error) {
  FaultOutcome result = try_fault(address, access);
  const bool is_same =
      result.kind == FaultKind::kNeedsPopulate && result.populate.page == failed.page;
  if (!is_same) return result;
  if (failed.length == kPageSize) {
    const bool is_memory = error == Error(ENOMEM);
    return outcome(is_memory ? FaultKind::kOutOfMemory : FaultKind::kBusError);
  }
  result.populate.address = failed.page;
  result.populate.length = kPageSize;
  return result;
}

// ---- Stacks ----

// The stack above the address, grown down to it; nullptr: there is none, or it may not grow.
Vma* AddressSpace::grow_stack(VirtualAddress address) {
  Vma* vma = vmas_.find_ending_after(address);
  if (vma == nullptr || !vma->has(VmaFlag::kGrowsDown) || address < kLowestAddress) return nullptr;
  const u64 growth = vma->begin() - address;
  if (vma->end() - address > limits_.stack || !may_grow_by(growth)) return nullptr;
  if (vma->has(VmaFlag::kLocked) && vmas_.locked_bytes() + growth > limits_.locked) return nullptr;
  const Vma* below = vma->previous;
  if (below != nullptr && !below->has(VmaFlag::kGrowsDown) && !below->protection.is_none() &&
      address - below->end() < kStackGuardGap) {
    return nullptr;
  }
  vmas_.set_range(vma, {address, vma->end()});
  return vma;
}

// ---- Leaves ----

Pte AddressSpace::leaf(const Vma& vma, PhysicalAddress frame, bool writable, bool dirty) {
  u64 bits = frame.value() | Pte::kPresent | Pte::kAccessed;
  if (writable) bits |= Pte::kWritable;
  if (dirty) bits |= Pte::kDirty;
  if (!vma.protection.may_execute()) bits |= Pte::kNoExecute;
  return Pte(bits);
}

// Gives a leaf that is there the rights of its vma: after mprotect, or when a page has become
// exclusive again. `may_write`: it is the line's alone, or shared on purpose.
void AddressSpace::grant(const Vma& vma, VirtualAddress page, const Walk& walk, Access access,
                         bool may_write) {
  DBOS_ASSERT(!may_write || !is_arena(walk.entry.address()) ||
              tree_.is_exclusive(walk.entry.address()));
  u64 to_set = Pte::kPresent | Pte::kAccessed;
  u64 to_clear = Pte::kHeld;
  if (may_write && vma.protection.may_write()) to_set |= Pte::kWritable;
  if (access == Access::kWrite) to_set |= Pte::kDirty;
  (vma.protection.may_execute() ? to_clear : to_set) |= Pte::kNoExecute;
  walk.slot->change_flags(to_clear, to_set);
  platform::counters().count(Counter::kFaultGranted);
  platform::flush_local(page);
}

// ---- Anonymous memory ----

FaultOutcome AddressSpace::fault_anonymous(Vma& vma, VirtualAddress page, Access access,
                                           SpareBlock& spare, TlbBatch& batch) {
  if (wants_large(vma, page)) {
    const Result<Touched> touched = touch_large(vma, page, access, spare, batch);
    if (touched.is_error()) return outcome(FaultKind::kOutOfMemory);
    if (touched.value() == Touched::kDone) return outcome(FaultKind::kResolved);
    if (touched.value() == Touched::kNeedsBlock)
      return FaultOutcome{FaultKind::kResolved, {}, true};
  }
  const Result<Walk> opened = open_small(page, batch);
  if (opened.is_error()) return outcome(FaultKind::kOutOfMemory);
  const Walk& walk = opened.value();
  if (access != Access::kWrite) {
    if (walk.entry.is_empty()) {
      walk.slot->store(leaf(vma, shared_zero.page(), false, false));
      platform::counters().count(Counter::kFaultZero);
    } else {
      grant(vma, page, walk, access, false);
    }
    return outcome(FaultKind::kResolved);
  }
  return write_private(vma, page, walk, walk.entry.address(), batch);
}

bool AddressSpace::wants_large(const Vma& vma, VirtualAddress page) const {
  if (!memory_options().large_pages || large_pages_ == LargePages::kNo ||
      vma.has(VmaFlag::kNoHugePage) || vma.has(VmaFlag::kGrowsDown)) {
    return false;
  }
  const VirtualAddress begin(align_down(page.value(), kLargePageSize));
  return vma.begin() <= begin && begin + kLargePageSize <= vma.end();
}

// The 2 MiB cases.
Result<AddressSpace::Touched> AddressSpace::touch_large(const Vma& vma, VirtualAddress page,
                                                        Access access, SpareBlock& spare,
                                                        TlbBatch& batch) {
  const Walk walk = DBOS_TRY(tree_.open(page, Level::kDirectory, batch));
  const VirtualAddress begin(align_down(page.value(), kLargePageSize));
  const bool is_empty = walk.entry.is_empty();
  if (!is_empty && !walk.entry.is_leaf(Level::kDirectory)) return Touched::kUseSmall;
  const bool is_zero = !is_empty && shared_zero.contains(walk.entry.address());
  if (is_empty && access != Access::kWrite) {
    walk.slot->store(leaf(vma, shared_zero.large_page(), false, false).with(Pte::kLarge));
    tree_.note_change({begin, begin + kLargePageSize});
    platform::counters().count(Counter::kFaultZero);
    return Touched::kDone;
  }
  if (access != Access::kWrite) {
    grant(vma, page, walk, access, false);
    return Touched::kDone;
  }
  if (is_empty || is_zero) {
    PhysicalAddress block = spare.block;
    spare.block = PhysicalAddress();
    if (block.is_null()) {
      if (spare.is_wanted) return Touched::kNeedsBlock;
      const Result<PhysicalAddress> made =
          frame_allocator.allocate_large(Clear::kYes, line_->ownership());
      if (made.is_error()) return Touched::kUseSmall;
      block = made.value();
    } else {
      // A snapshot may have been taken since it was made; it does not see this block.
      frame_allocator.set_birth_of_large(block, current_epoch());
    }
    walk.slot->store(leaf(vma, block, is_empty, true).with(Pte::kLarge));
    tree_.note_change({begin, begin + kLargePageSize});
    if (is_zero) make_writable(walk.slot, 1, {begin, begin + kLargePageSize}, batch);
    tree_.counts().anonymous += kFramesPerBlock;
    platform::counters().count(Counter::kFaultFreshLarge);
    return Touched::kDone;
  }
  if (!tree_.is_exclusive(walk.entry.address())) return Touched::kUseSmall;
  grant(vma, page, walk, access, true);
  return Touched::kDone;
}

// The 4 KiB entry; a large page that is in the way is split.
Result<Walk> AddressSpace::open_small(VirtualAddress page, TlbBatch& batch) {
  Walk walk = DBOS_TRY(tree_.open(page, Level::kPage, batch));
  if (walk.level != Level::kPage) {
    DBOS_RETURN_IF_ERROR(tree_.split(*walk.slot));
    walk = DBOS_TRY(tree_.open(page, Level::kPage, batch));
  }
  return walk;
}

// A write to private memory: makes the page the line's alone and writable. `source`: what it shows
// so far, mapped or not; null: zeros.
FaultOutcome AddressSpace::write_private(const Vma& vma, VirtualAddress page, const Walk& walk,
                                         PhysicalAddress source, TlbBatch& batch) {
  const bool is_fresh = source.is_null() || (is_arena(source) && shared_zero.contains(source));
  const bool is_frame = !is_fresh && is_arena(source);
  if (is_frame && tree_.is_exclusive(source)) {
    grant(vma, page, walk, Access::kWrite, true);
    if (line_->newest_departure() == 0) grant_neighbours(vma, page, walk);
    return outcome(FaultKind::kResolved);
  }
  if (is_frame) return copy_run(vma, page, walk, batch);
  const Result<PhysicalAddress> allocated =
      frame_allocator.allocate_page(is_fresh ? Clear::kYes : Clear::kNo, line_->ownership());
  if (allocated.is_error()) return outcome(FaultKind::kOutOfMemory);
  const PhysicalAddress frame = allocated.value();
  if (!is_fresh) {
    if (platform::copy_window_page(frame, source).is_error()) {
      frame_allocator.free(frame);  // it is of a file that was cut meanwhile
      return outcome(FaultKind::kBusError);
    }
    ++copied_pages_;
  }
  platform::counters().count(is_fresh ? Counter::kFaultFresh : Counter::kFaultCopied);
  const bool is_empty = walk.entry.is_empty();
  walk.slot->store(leaf(vma, frame, is_empty, true));
  ++tree_.counts().anonymous;
  if (is_empty) return outcome(FaultKind::kResolved);
  if (!is_fresh) --tree_.counts().window;
  make_writable(walk.slot, 1, {page, page + kPageSize}, batch);
  return outcome(FaultKind::kResolved);
}

// What was put in another page's place, with the same contents. Nobody may write it while somebody
// still reads the other one.
void AddressSpace::make_writable(PteSlot* slots, u32 count, VirtualRange range, TlbBatch& batch) {
  batch.invalidate(range);
  batch.flush();
  for (u32 i = 0; i < count; ++i) slots[i].set(Pte::kWritable);
}

// The last snapshot has ended, so all that this table holds and the line owns is exclusive again.
// One fault for all of it costs less than a second one would (0.5 us for 512 entries).
void AddressSpace::grant_neighbours(const Vma& vma, VirtualAddress page, const Walk& walk) {
  const PteSlot* above = tree_.find_table(page);
  DBOS_ASSERT(above != nullptr && above->load().is_writable() &&
              tree_.is_exclusive(above->load().address()));
  PteSlot* slots = walk.slot - entry_index(page, Level::kPage);
  const VirtualAddress table(align_down(page.value(), kLargePageSize));
  const VirtualRange piece = vma.range.intersect({table, table + kLargePageSize});
  for (u64 i = (piece.begin - table) / kPageSize; i < (piece.end - table) / kPageSize; ++i) {
    const Pte entry = slots[i].load();
    if (!entry.is_present() || entry.is_writable() || !is_arena(entry.address())) continue;
    if (line_->owns(frame_info(entry.address()))) slots[i].set(Pte::kWritable);
  }
}

// ---- Windows ----

// Private memory of a file's becomes anonymous when it is written; shared memory stays the
// window's.
FaultOutcome AddressSpace::fault_window(Vma& vma, VirtualAddress page, Access access,
                                        const PopulateRequest* populated, TlbBatch& batch) {
  const Result<Walk> opened = open_small(page, batch);
  if (opened.is_error()) return outcome(FaultKind::kOutOfMemory);
  const Walk& walk = opened.value();
  const bool is_write = access == Access::kWrite;
  const bool is_private_write = is_write && !vma.is_shared();
  const bool is_present = !walk.entry.is_empty();

  // 1. What is there needs no host to be copied ...
  if (is_present && is_private_write) {
    return write_private(vma, page, walk, walk.entry.address(), batch);
  }

  // 2. ... or read, or written again after a snapshot took the right to write away.
  if (is_present && (!is_write || walk.entry.has(Pte::kHostWritable))) {
    grant(vma, page, walk, access, is_write);
    return outcome(FaultKind::kResolved);
  }

  // 3. Linux has not loaded it, or not to be written.
  const PopulateRequest needed = populate_request(vma, page, is_write);
  if (populated == nullptr || !populated->covers(needed.page, needed.write)) {
    return FaultOutcome{FaultKind::kNeedsPopulate, needed};
  }

  // 4. The first write to private memory. 5. The first one to shared memory that was read.
  if (is_private_write) return write_private(vma, page, walk, needed.page, batch);
  if (is_present) {
    walk.slot->set(Pte::kHostWritable);
    grant(vma, page, walk, access, true);
    return outcome(FaultKind::kResolved);
  }

  // 6. The first access.
  map_window_run(vma, page, *populated, needed.write);
  platform::counters().count(Counter::kFaultWindow);
  return outcome(FaultKind::kResolved);
}

// What Linux is to load: a run around the page, or the page alone where a write makes a file's page
// dirty, or its neighbours will not be read.
PopulateRequest AddressSpace::populate_request(const Vma& vma, VirtualAddress page, bool is_write) {
  const bool is_memory = vma.is_shared() && vma.window->kind() != WindowKind::kFile;
  const bool for_write = (is_write && vma.is_shared()) || (is_memory && vma.protection.may_write());
  const PhysicalAddress window_page = vma.window_address(page);
  const bool is_alone = is_write || vma.has(VmaFlag::kRandom);
  if (is_alone && !is_memory) return {window_page, kPageSize, for_write, window_page};
  const VirtualRange run = fault_around(vma, page);
  return {vma.window_address(run.begin), run.size(), for_write, window_page};
}

// Maps what was populated and is not mapped yet, within the page table of `page`, which is open.
void AddressSpace::map_window_run(const Vma& vma, VirtualAddress page,
                                  const PopulateRequest& populated, bool writable) {
  PteSlot* slots = tree_.find(page).slot - entry_index(page, Level::kPage);
  const VirtualRange run = fault_around(vma, page);
  for (VirtualAddress at = run.begin; at < run.end; at = at + kPageSize) {
    PteSlot& slot = slots[entry_index(at, Level::kPage)];
    const PhysicalAddress window_page = vma.window_address(at);
    if (!slot.load().is_empty() || !populated.covers(window_page, writable)) continue;
    Pte entry = leaf(vma, window_page, writable && vma.protection.may_write(), false);
    if (writable) entry = entry.with(Pte::kHostWritable);
    if (at != page) entry = entry.without(Pte::kAccessed);
    slot.store(entry);
    ++tree_.counts().window;
  }
}

FaultKind AddressSpace::populate(VirtualAddress address, u64 length, Access access) {
  const VirtualAddress end(align_up((address + length).value(), kPageSize));
  for (VirtualAddress at(align_down(address.value(), kPageSize)); at < end;) {
    if (platform::is_dying()) return FaultKind::kOutOfMemory;  // nobody learns of it
    const FaultKind kind = handle_fault(at, access);
    if (kind != FaultKind::kResolved) return kind;
    at = at + (begins_large_page(at, access) ? kLargePageSize : kPageSize);
  }
  return FaultKind::kResolved;
}

// Whether a page of 2 MiB that permits the access is mapped from here on.
bool AddressSpace::begins_large_page(VirtualAddress address, Access access) {
  if (!is_aligned(address.value(), kLargePageSize)) return false;
  const LockGuard guard(lock_);
  const Walk walk = tree_.find(address);
  return walk.level == Level::kDirectory && walk.permits(access);
}

FaultKind AddressSpace::populate_locked(VirtualRange range, NoRights no_rights) {
  VmaInfo vma;
  for (VirtualAddress from = range.begin; next_vma(from, &vma) && vma.range.begin < range.end;
       from = vma.range.end) {
    const bool is_wanted = vma.flags.has(VmaFlag::kLocked) && !vma.flags.has(VmaFlag::kLockOnFault);
    if (!is_wanted) continue;
    if (vma.protection.is_none()) {
      if (no_rights == NoRights::kFail) return FaultKind::kNoMapping;
      continue;
    }
    const VirtualRange piece = vma.range.intersect(range);
    const bool is_own = vma.kind != VmaKind::kWindowShared && vma.protection.may_write();
    const FaultKind kind =
        populate(piece.begin, piece.size(), is_own ? Access::kWrite : Access::kRead);
    const bool goes_on = kind == FaultKind::kResolved ||
                         (kind == FaultKind::kBusError && no_rights == NoRights::kPassOver);
    if (!goes_on) return kind;
  }
  return FaultKind::kResolved;
}

bool AddressSpace::has_locked_memory() {
  LockGuard guard(lock_);
  return vmas_.locked_bytes() != 0;
}

}  // namespace dbos
