// The model: steps, accesses, snapshots, scarcity.

#include "tests/unit/memory/model.h"

namespace dbos::test {

void Model::step() {
  vcpu_ = static_cast<u32>(pick(kVcpus));
  host::set_vcpu(vcpu_);
  if (calls_[vcpu_].space != nullptr) {
    if (chance(30))
      end_call(vcpu_);
    else
      host_works(vcpu_);
    return;
  }
  // A vCPU mostly stays where it is, so that its TLB has something to be wrong about.
  if (homes_[vcpu_] == nullptr || chance(5)) {
    homes_[vcpu_] = spaces_[static_cast<size_t>(pick(spaces_.size()))].get();
  }
  ModelSpace& space = *homes_[vcpu_];
  switch (pick(100)) {
    case 0 ... 44:
      return access(space, true);
    case 45 ... 59:
      return access(space, false);
    case 60 ... 65:
      return map(space);
    case 66 ... 68:
      return map_window(space);
    case 69 ... 72:
      return unmap(space, range());
    case 73 ... 78:
      return protect(space);
    case 79 ... 83:
      return remap(space);
    case 84 ... 88:
      return advise(space);
    case 89 ... 91:
      return snapshot(space);
    case 92 ... 93:
      return end(space);
    case 94 ... 97:
      return begin_call(space);
    case 98:
      return chance(50) ? work_ahead(space) : sweep(space);
    case 99:
      if (is_scarce_ && chance(20)) return chance(50) ? hog() : release_hog();
      if (chance(3)) frame_allocator.release_free_blocks(8 * kMiB);
      return;
  }
}

void Model::verify_everything() {
  for (u32 vcpu = 0; vcpu < kVcpus; ++vcpu) {
    host::set_vcpu(vcpu);
    end_call(vcpu);
  }
  release_hog();
  for (auto& space : spaces_) verify(*space);
  check();
  while (spaces_.size() > 1) {
    end(*spaces_[static_cast<size_t>(pick(spaces_.size()))]);
    check();
  }
  // Its writes adopt what dead ancestors left to it.
  for (u32 i = 0; i < kPages; ++i) {
    const Page& page = spaces_[0]->pages[i];
    if (page.kind != Kind::kNone && (page.protection & kWrite) != 0) {
      access_page(*spaces_[0], i, true, 0);
    }
  }
  verify(*spaces_[0]);
  check();
}

void Model::check() {
  check_memory_invariants();
  close_objects();
  u64 open = 0;
  for (const Object& object : objects_) open += object.is_open;
  expect(open == host::open_windows(), "a window is open that nobody maps, or the reverse");
  check_nothing_is_left();
}

// When the last snapshot has ended, the memory in use is what the one address space that is left
// maps, to the frame.
void Model::check_nothing_is_left() {
  AddressSpace& space = *spaces_[0]->space;
  if (spaces_.size() != 1 || space.line().parent() != nullptr) return;
  for (const HostCall& call : calls_) {
    if (call.space != nullptr) return;
  }
  const FrameCounts counts = frame_allocator.counts();
  const SpaceStatistics statistics = space.statistics();
  expect(counts.retired_pages == 0 && counts.retired_nodes == 0, "retired items are left");
  expect((counts.pages - kFramesPerBlock) * kPageSize == statistics.resident_anonymous_bytes,
         "pages are left that nobody maps");
  expect(counts.nodes * kPageSize == statistics.table_bytes + space.ready_counts().table_bytes,
         "page tables are left that nobody uses");
}

Model::Range Model::range() {
  u32 begin = static_cast<u32>(pick(kPages));
  u32 length = static_cast<u32>(1 + pick(chance(60) ? 16 : chance(70) ? 300 : 3000));
  if (chance(40)) {
    // Where something was used lately, by a processor or by the host.
    begin = last_ - static_cast<u32>(std::min<u64>(last_, pick(6)));
  } else if (chance(30)) {
    begin &= ~511u;
    length = static_cast<u32>(align_up(length, 512));
  }
  return {begin, std::min(begin + length, area_end(begin))};
}

// ---- Model ----

void Model::close_objects() {
  std::vector<bool> used(objects_.size());
  for (const auto& space : spaces_) {
    for (const Page& page : space->pages) {
      if (page.kind == Kind::kPrivate || page.kind == Kind::kShared) used[page.object] = true;
    }
  }
  for (size_t i = 0; i < objects_.size(); ++i) {
    if (!used[i] && objects_[i].pins == 0) objects_[i].is_open = false;
  }
}

// ---- Accesses ----

u32 Model::mapped_page(const ModelSpace& space) {
  u32 index = static_cast<u32>(pick(kPages));
  for (int tries = 0; tries < 20 && space.pages[index].kind == Kind::kNone; ++tries) {
    index = static_cast<u32>(pick(kPages));
  }
  // Close to the last one, often: what neighbours share is where mistakes show.
  if (chance(50)) index = std::min(last_ + static_cast<u32>(pick(4)), kPages - 1);
  last_ = index;
  return index;
}

u32 Model::window_page(const ModelSpace& space) {
  u32 index = static_cast<u32>(pick(kPages));
  for (int tries = 0; tries < 50; ++tries) {
    const Kind kind = space.pages[index].kind;
    if (kind == Kind::kPrivate || kind == Kind::kShared) break;
    index = static_cast<u32>(pick(kPages));
  }
  return index;
}

void Model::access_page(ModelSpace& space, u32 index, bool write, u32 i) {
  Page& page = space.pages[index];
  const VirtualAddress at = address_of(index) + kWordOffsets[i];
  PhysicalAddress physical;
  const FaultKind kind =
      machine_.access(*space.space, at, write ? Access::kWrite : Access::kRead, &physical);
  if (page.kind == Kind::kNone) return expect(kind == FaultKind::kNoMapping, "no SEGV_MAPERR");
  if (write ? (page.protection & kWrite) == 0 : page.protection == 0) {
    return expect(kind == FaultKind::kNoAccess, "no SEGV_ACCERR");
  }
  if (kind == FaultKind::kOutOfMemory && hog_.size() != 0) return;
  expect(kind == FaultKind::kResolved, "an access failed");
  u64* value = pointer_to<u64>(physical);
  if (page.is_uncertain) {
    // One word decides for the whole page.
    const u64* const words = value - kWordOffsets[i] / 8;
    bool is_discarded = false;
    for (u32 j = 0; j < kWordsPerPage; ++j) {
      const u64 found = words[kWordOffsets[j] / 8];
      if (found != word(page, j)) is_discarded = true;
    }
    if (is_discarded) discard(page);
    page.is_uncertain = false;
  }
  expect(*value == word(page, i),
         "wrong contents: " + std::to_string(*value) + " for " + std::to_string(word(page, i)));
  if (!write) return;
  const u64 fresh = fresh_value(page.incarnation, i);
  *value = fresh;
  if (page.kind == Kind::kPrivate && !page.is_own) {
    for (u32 j = 0; j < kWordsPerPage; ++j) page.words[j] = word(page, j);
    page.is_own = true;
  }
  if (page.kind != Kind::kShared) page.words[i] = fresh;
}

void Model::verify(ModelSpace& space) {
  for (u32 i = 0; i < kPages; ++i) {
    if (space.pages[i].kind == Kind::kNone || space.pages[i].protection == 0) continue;
    name("verification", {i, i + 1});
    access_page(space, i, false, static_cast<u32>(pick(kWordsPerPage)));
  }
}

void Model::sweep(ModelSpace& space) {
  const Range r = range();
  const bool write = chance(50);
  for (u32 i = r.begin; i < r.end && i < r.begin + 64; ++i) {
    name("a sweep", {i, i + 1});
    access_page(space, i, write, static_cast<u32>(pick(kWordsPerPage)));
  }
}

// ---- Snapshots ----

void Model::snapshot(ModelSpace& space) {
  if (spaces_.size() == kSpacesMax) return;
  name("a snapshot", {0, kPages});
  machine_.enter(vcpu_, space.space);
  const Result<AddressSpace*> result = space.space->snapshot();
  if (result.is_error()) return expect(!hog_.empty(), "a snapshot failed");
  auto child = std::make_unique<ModelSpace>();
  child->space = &machine_.adopt(result);
  child->pages = space.pages;
  for (Page& page : child->pages) {
    if (page.kind == Kind::kNone) continue;
    if ((page.flags & kDontFork) != 0) {
      page = Page{};
    } else if ((page.flags & kWipe) != 0) {
      discard(page);
    } else {
      page.incarnation = ++incarnation_;
    }
  }
  spaces_.push_back(std::move(child));
}

void Model::end(ModelSpace& space) {
  if (spaces_.size() == 1) return;
  name("an end", {0, kPages});
  for (u32 vcpu = 0; vcpu < kVcpus; ++vcpu) {
    if (calls_[vcpu].space == &space) end_call(vcpu);
    if (homes_[vcpu] == &space) homes_[vcpu] = nullptr;
  }
  machine_.destroy(*space.space);
  std::erase_if(spaces_, [&](const auto& each) { return each.get() == &space; });
}

// What a helper vCPU does, now and then, and never in time.
void Model::work_ahead(ModelSpace& space) {
  name("work ahead", {0, kPages});
  for (u64 steps = pick(4); steps != 0; --steps) {
    space.space->reassemble(static_cast<u32>(1 + pick(8)));
  }
  if (!uses_ready_tables()) return;
  if (chance(10)) {
    const Result<void> kept = space.space->keep_ready(static_cast<u32>(pick(3)));
    if (kept.is_error()) return expect(!hog_.empty(), "keep_ready failed");
  }
  for (u64 steps = pick(8); steps != 0; --steps) space.space->refill(static_cast<u32>(1 + pick(6)));
}

// ---- Scarcity ----

void Model::hog() {
  where = "hog";
  const u64 leave = pick(64);
  while (true) {
    const Result<PhysicalAddress> frame = frame_allocator.allocate_kernel(0);
    if (frame.is_error()) {
      const Result<PhysicalAddress> cached = frame_allocator.allocate_kernel(0);
      if (cached.is_error()) break;
    } else {
      hog_.push_back(frame.value());
    }
  }
  for (u64 i = 0; i < leave && !hog_.empty(); ++i) {
    frame_allocator.free_kernel(hog_.back(), 0);
    hog_.pop_back();
  }
}

}  // namespace dbos::test
