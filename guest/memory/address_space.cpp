#include "guest/memory/address_space.h"

#include "guest/memory/shared_zero.h"

namespace dbos {
namespace {

constinit Spinlock spaces_lock;  // protects the list of address spaces; taken last of all
constinit AddressSpace* first_space = nullptr;

}  // namespace

Result<AddressSpace*> AddressSpace::create(PhysicalAddress kernel_root) {
  Line* line = DBOS_TRY(line_create());
  AddressSpace* space = heap_new<AddressSpace>();
  Result<void> made = Error(ENOMEM);
  if (space != nullptr) made = space->tree_.initialize(*line, kernel_root);
  if (made.is_error()) {
    heap_delete(space);
    line_end(line);
    return made.error();
  }
  space->line_ = line;
  space->enlist();
  return space;
}

void AddressSpace::destroy(AddressSpace* space) {
  DBOS_ASSERT(space->vcpus_.is_empty());
  space->give_up_ready();
  DroppedWindows dropped;
  Line* line = space->line_;
  {
    LockGuard guard(space->lock_);
    DBOS_ASSERT(space->pins_.is_empty());
    space->delist();
    TlbBatch batch(*space, *line, space->pins_);
    space->tree_.destroy(batch);
    space->vmas_.clear([&](Vma* vma) {
      if (vma->window != nullptr) dropped.drop_reference(vma->window);
      heap_delete(vma);
    });
  }
  heap_delete(space);
  line_end(line);
}

void AddressSpace::enlist() {
  LockGuard guard(spaces_lock);
  next_space_ = first_space;
  if (next_space_ != nullptr) next_space_->previous_space_ = this;
  first_space = this;
}

void AddressSpace::delist() {
  LockGuard guard(spaces_lock);
  (previous_space_ == nullptr ? first_space : previous_space_->next_space_) = next_space_;
  if (next_space_ != nullptr) next_space_->previous_space_ = previous_space_;
}

AddressSpace* AddressSpace::first() {
  return first_space;
}

void AddressSpace::publish_list(KernelView& view) {
  view.spaces = reinterpret_cast<u64>(&first_space);
}

void AddressSpace::set_mmap_base(VirtualAddress base) {
  LockGuard guard(lock_);
  mmap_base_ = VirtualAddress(align_down(base.value(), kPageSize));
}

void AddressSpace::set_brk_start(VirtualAddress start) {
  LockGuard guard(lock_);
  brk_start_ = start;
  brk_ = start;
}

void AddressSpace::set_limits(const SpaceLimits& limits) {
  LockGuard guard(lock_);
  limits_ = limits;
}

void AddressSpace::set_large_pages(LargePages large_pages) {
  LockGuard guard(lock_);
  large_pages_ = large_pages;
}

LargePages AddressSpace::large_pages() {
  LockGuard guard(lock_);
  return large_pages_;
}

// ---- Pins ----

void AddressSpace::unpin() {
  unpin(platform::current_vcpu());
}

void AddressSpace::unpin(u32 vcpu) {
  DroppedWindows dropped;
  LockGuard guard(lock_);
  pins_.remove(vcpu, *line_, dropped);
}

// ---- Looking ----

namespace {

void describe(const Vma& vma, VmaInfo* info) {
  info->range = vma.range;
  info->protection = vma.protection;
  info->kind = vma.kind;
  info->name = vma.name;
  info->flags = vma.flags;
  info->file = FileIdentity{};
  info->path[0] = '\0';
  if (vma.window != nullptr) {
    info->file = vma.window->file();
    info->file.offset += vma.window_offset;
    const char* path = vma.window->path();
    u32 i = 0;
    do info->path[i] = path[i];
    while (path[i++] != '\0');
  }
  info->file.path = info->path;
}

}  // namespace

bool AddressSpace::next_vma(VirtualAddress from, VmaInfo* info) {
  LockGuard guard(lock_);
  const Vma* vma = vmas_.find_ending_after(from);
  if (vma == nullptr) return false;
  describe(*vma, info);
  return true;
}

bool AddressSpace::query(VirtualAddress address, VmaInfo* info) {
  LockGuard guard(lock_);
  const Vma* vma = vmas_.find(address);
  if (vma == nullptr) return false;
  describe(*vma, info);
  return true;
}

bool AddressSpace::find_window(VirtualAddress address, WindowPlace* place) {
  LockGuard guard(lock_);
  const Vma* vma = vmas_.find(address);
  if (vma == nullptr) return false;
  if (vma->window == nullptr) return true;
  place->window.hold(*vma->window);
  place->is_shared = vma->is_shared();
  place->protection = vma->protection;
  place->offset = vma->window_offset + (address - vma->begin());
  place->vma_offset = vma->window_offset;
  return true;
}

PageUsage AddressSpace::usage(VirtualRange range) {
  PageUsage result;
  while (range.size() != 0) {
    const VirtualRange stretch = first_stretch(range);
    LockGuard guard(lock_);
    tree_.add_usage(stretch, result);
    range.begin = stretch.end;
  }
  return result;
}

SpaceStatistics AddressSpace::statistics() {
  LockGuard guard(lock_);
  note_peaks();
  const PageCounts& counts = tree_.counts();
  SpaceStatistics result{};
  result.virtual_bytes = vmas_.bytes();
  result.virtual_bytes_peak = virtual_bytes_peak_;
  result.resident_anonymous_bytes = counts.anonymous * kPageSize;
  result.resident_window_bytes = counts.window * kPageSize;
  result.resident_bytes_peak = resident_peak_ * kPageSize;
  result.locked_bytes = vmas_.locked_bytes();
  result.table_bytes = counts.nodes * kPageSize;
  result.retired_bytes = line_->retired_pages() * kPageSize;
  result.vma_count = vmas_.count();
  result.faults = faults_;
  result.copied_pages = copied_pages_;
  result.reassembled_pages = reassembled_;
  return result;
}

// The peaks are brought up to date before vmas or pages go, and when somebody asks: a fault need
// not.
void AddressSpace::note_peaks() {
  if (vmas_.bytes() > virtual_bytes_peak_) virtual_bytes_peak_ = vmas_.bytes();
  const u64 resident = tree_.counts().anonymous + tree_.counts().window;
  if (resident > resident_peak_) resident_peak_ = resident;
}

}  // namespace dbos
