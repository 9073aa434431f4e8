// The model test: random memory calls, accesses, host calls, snapshots and ends, of several address
// spaces on several vCPUs, against a plain model that copies everything.
//
// MODEL_SEED and MODEL_STEPS reproduce a run.

#include <linux/mman.h>

#include <catch2/catch.hpp>
#include <cstdlib>
#include <iostream>
#include <optional>
#include <random>

#include "tests/unit/memory/machine.h"

namespace dbos::test {
namespace {

constexpr u32 kVcpus = 4;
constexpr size_t kSpacesMax = 7;
constexpr int kRead = PROT_READ;
constexpr int kWrite = PROT_WRITE;

// Two areas, each across the border of a higher-level page table.
struct Area {
  u64 begin;
  u32 pages;
};
constexpr Area kAreas[] = {{kGiB - 12 * kMiB, 6144}, {512 * kGiB - 4 * kMiB, 2048}};
constexpr u32 kPages = kAreas[0].pages + kAreas[1].pages;

VirtualAddress address_of(u32 page) {
  if (page < kAreas[0].pages) return VirtualAddress(kAreas[0].begin + page * kPageSize);
  return VirtualAddress(kAreas[1].begin + (page - kAreas[0].pages) * kPageSize);
}
// The end of the area that the page is in.
u32 area_end(u32 page) {
  return page < kAreas[0].pages ? kAreas[0].pages : kPages;
}

constexpr u32 kWordsPerPage = 3;
constexpr u64 kWordOffsets[kWordsPerPage] = {0, 2048, 4088};

enum class Kind : u8 { kNone, kAnonymous, kPrivate, kShared };

constexpr u8 kDontFork = 1, kWipe = 2, kHuge = 4, kNoHuge = 8;

struct Page {
  Kind kind = Kind::kNone;
  u8 protection = 0;
  u8 flags = 0;
  bool is_own = false;        // private: differs from its file, or was written
  bool is_uncertain = false;  // may have been discarded: an operation failed halfway
  u32 object = 0;
  u32 object_page = 0;
  u64 incarnation = 0;  // which page of memory this is: pins refer to it
  u64 words[kWordsPerPage] = {};
};

struct Object {
  WindowObject* window;
  PhysicalAddress address;
  u32 pages;
  u32 pins = 0;
  bool is_open = true;
  u64 word(u32 page, u32 i) const {
    return *pointer_to<u64>(address + page * kPageSize + kWordOffsets[i]);
  }
};

struct ModelSpace {
  AddressSpace* space;
  std::vector<Page> pages = std::vector<Page>(kPages);
};

// One page of a buffer that the "host" uses.
struct HostPage {
  PhysicalAddress physical;
  u32 page;  // where it was mapped, for messages
  u64 incarnation;
  bool is_window;
  u32 object;
  u64 words[kWordsPerPage];  // what it held
};
struct HostCall {
  ModelSpace* space = nullptr;
  Access access = Access::kRead;
  std::vector<HostPage> pages;
};

class Model {
 public:
  Model(u64 seed, bool scarce) : machine_(kVcpus), random_(seed), is_scarce_(scarce) {
    new_space();
  }
  ~Model() {
    release_hog();
    for (u32 vcpu = 0; vcpu < kVcpus; ++vcpu) end_call(vcpu);
  }

  void step() {
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
        return unmap(space);
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
        return sweep(space);
      case 99:
        if (is_scarce_ && chance(20)) return chance(50) ? hog() : release_hog();
        if (chance(3)) frame_allocator.release_free_blocks(8 * kMiB);
        return;
    }
  }

  void verify_everything() {
    for (u32 vcpu = 0; vcpu < kVcpus; ++vcpu) {
      host::set_vcpu(vcpu);
      end_call(vcpu);
    }
    release_hog();
    for (auto& space : spaces_) verify(*space);
    check();
  }
  void check() {
    check_memory_invariants();
    close_objects();
    u64 open = 0;
    for (const Object& object : objects_) open += object.is_open;
    expect(open == host::open_windows(), "a window is open that nobody maps, or the reverse");
  }
  std::string where;

 private:
  u64 pick(u64 below) { return std::uniform_int_distribution<u64>(0, below - 1)(random_); }
  bool chance(u64 percent) { return pick(100) < percent; }

  void expect(bool condition, const std::string& what) {
    if (!condition) throw std::runtime_error(what + " in " + where);
  }

  struct Range {
    u32 begin, end;
    VirtualAddress address() const { return address_of(begin); }
    u64 size() const { return (end - begin) * kPageSize; }
  };
  Range range() {
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
  void name(const char* what, Range range) {
    where = std::string(what) + " of pages " + std::to_string(range.begin) + ".." +
            std::to_string(range.end);
  }

  // ---- Model ----
  u64 word(const Page& page, u32 i) const {
    if (page.kind == Kind::kAnonymous || page.is_own) return page.words[i];
    return objects_[page.object].word(page.object_page, i);
  }
  static bool continues(const Page& a, const Page& b) {
    if (a.kind != b.kind || a.protection != b.protection || a.flags != b.flags) return false;
    return a.kind == Kind::kAnonymous ||
           (a.object == b.object && a.object_page + 1 == b.object_page);
  }
  // How many pages from `begin` on are of the same vma.
  u32 run(const ModelSpace& space, u32 begin) const {
    u32 end = begin + 1;
    while (end < area_end(begin) && continues(space.pages[end - 1], space.pages[end])) ++end;
    return end - begin;
  }
  void discard(Page& page) {
    page.is_own = false;
    page.is_uncertain = false;
    page.incarnation = ++incarnation_;
    std::fill(std::begin(page.words), std::end(page.words), 0);
  }
  void clear(ModelSpace& space, u32 begin, u32 end) {
    for (u32 i = begin; i < end; ++i) space.pages[i] = Page{};
  }
  void close_objects() {
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
  static bool is_no_memory(Error error) { return error == Error(ENOMEM); }

  // ---- Accesses ----
  void access(ModelSpace& space, bool write) {
    const u32 index = mapped_page(space);
    name(write ? "a write" : "a read", {index, index + 1});
    access_page(space, index, write, static_cast<u32>(pick(kWordsPerPage)));
  }
  // Mostly one that is mapped.
  u32 mapped_page(const ModelSpace& space) {
    u32 index = static_cast<u32>(pick(kPages));
    for (int tries = 0; tries < 20 && space.pages[index].kind == Kind::kNone; ++tries) {
      index = static_cast<u32>(pick(kPages));
    }
    // Close to the last one, often: what neighbours share is where mistakes show.
    if (chance(50)) index = std::min(last_ + static_cast<u32>(pick(4)), kPages - 1);
    last_ = index;
    return index;
  }
  void access_page(ModelSpace& space, u32 index, bool write, u32 i) {
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
      bool is_discarded = false;
      for (u32 j = 0; j < kWordsPerPage; ++j) {
        const u64 found = value[(kWordOffsets[j] - kWordOffsets[i]) / 8];
        if (found != word(page, j)) is_discarded = true;
      }
      if (is_discarded) discard(page);
      page.is_uncertain = false;
    }
    expect(*value == word(page, i),
           "wrong contents: " + std::to_string(*value) + " for " + std::to_string(word(page, i)));
    if (!write) return;
    const u64 fresh = ++value_;
    *value = fresh;
    if (page.kind == Kind::kPrivate && !page.is_own) {
      for (u32 j = 0; j < kWordsPerPage; ++j) page.words[j] = word(page, j);
      page.is_own = true;
    }
    if (page.kind != Kind::kShared) page.words[i] = fresh;
  }
  void verify(ModelSpace& space) {
    for (u32 i = 0; i < kPages; ++i) {
      if (space.pages[i].kind == Kind::kNone || space.pages[i].protection == 0) continue;
      name("verification", {i, i + 1});
      access_page(space, i, false, static_cast<u32>(pick(kWordsPerPage)));
    }
  }
  void sweep(ModelSpace& space) {
    const Range r = range();
    const bool write = chance(50);
    for (u32 i = r.begin; i < r.end && i < r.begin + 64; ++i) {
      name("a sweep", {i, i + 1});
      access_page(space, i, write, static_cast<u32>(pick(kWordsPerPage)));
    }
  }

  // ---- Calls ----
  void map(ModelSpace& space) {
    const Range r = range();
    name("mmap", r);
    const int protection = random_protection();
    const bool no_huge = chance(30);
    const Result<VirtualAddress> result = space.space->map_anonymous(
        r.address(), r.size(), protection,
        MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | (no_huge ? MAP_STACK : 0));
    if (result.is_error()) return expect(is_no_memory(result.error()), "mmap failed");
    clear(space, r.begin, r.end);
    for (u32 i = r.begin; i < r.end; ++i) {
      Page& page = space.pages[i];
      page.kind = Kind::kAnonymous;
      page.protection = static_cast<u8>(protection);
      page.flags = no_huge ? kNoHuge : 0;
      page.incarnation = ++incarnation_;
    }
  }
  void map_window(ModelSpace& space) {
    Range r = range();
    if (r.end - r.begin > 100) r.end = r.begin + 100;
    name("mmap of a window", r);
    const u32 before = static_cast<u32>(pick(3));
    const u32 pages = r.end - r.begin + before + static_cast<u32>(pick(20));
    const bool is_shared = chance(50);
    const PhysicalAddress at = host::make_window(pages * kPageSize, pages * kPageSize);
    std::memset(pointer_to<char>(at), 0, pages * kPageSize);
    const Result<WindowObject*> window = window_create(
        at, pages * kPageSize, chance(50) ? WindowKind::kFile : WindowKind::kSharedAnonymous, {});
    if (window.is_error()) return platform::window_unmap(at, pages * kPageSize);
    for (u32 page = 0; page < pages; ++page) {
      for (u64 offset : kWordOffsets) *pointer_to<u64>(at + page * kPageSize + offset) = ++value_;
    }
    const int protection = random_protection();
    const Result<VirtualAddress> result =
        space.space->map_window(r.address(), r.size(), protection, MAP_FIXED,
                                {window.value(), before * kPageSize, is_shared, true});
    window_release(window.value());
    if (result.is_error()) return expect(is_no_memory(result.error()), "mmap failed");
    objects_.push_back({window.value(), at, pages});
    clear(space, r.begin, r.end);
    for (u32 i = r.begin; i < r.end; ++i) {
      Page& page = space.pages[i];
      page.kind = is_shared ? Kind::kShared : Kind::kPrivate;
      page.protection = static_cast<u8>(protection);
      page.object = static_cast<u32>(objects_.size() - 1);
      page.object_page = before + i - r.begin;
      page.incarnation = ++incarnation_;
    }
  }
  int random_protection() {
    const u64 kind = pick(10);
    return kind < 7 ? kRead | kWrite : kind < 9 ? kRead : 0;
  }
  void unmap(ModelSpace& space) {
    const Range r = range();
    name("munmap", r);
    const Result<void> result = space.space->unmap(r.address(), r.size());
    if (result.is_error()) return expect(is_no_memory(result.error()), "munmap failed");
    clear(space, r.begin, r.end);
  }
  void protect(ModelSpace& space) {
    const Range r = range();
    name("mprotect", r);
    const int protection = random_protection();
    const Result<void> result = space.space->protect(r.address(), r.size(), protection);
    u32 end = r.begin;
    while (end < r.end && space.pages[end].kind != Kind::kNone) ++end;
    if (result.is_error()) {
      expect(is_no_memory(result.error()), "mprotect failed");
      expect(end != r.end || !hog_.empty(), "mprotect failed without a hole");
      if (!hog_.empty()) {
        // How far it came is in the vmas.
        for (u32 i = r.begin; i < end; ++i) {
          VmaInfo info;
          expect(space.space->query(address_of(i), &info), "a vma is missing");
          expect(info.protection.linux_bits() == space.pages[i].protection ||
                     info.protection.linux_bits() == protection,
                 "wrong rights");
          space.pages[i].protection = static_cast<u8>(info.protection.linux_bits());
        }
        return;
      }
    } else {
      expect(end == r.end, "mprotect ignored a hole");
    }
    for (u32 i = r.begin; i < end; ++i) space.pages[i].protection = static_cast<u8>(protection);
  }
  void advise(ModelSpace& space) {
    const Range r = range();
    static constexpr int kAdvice[] = {MADV_DONTNEED,   MADV_DONTNEED, MADV_FREE,
                                      MADV_DONTFORK,   MADV_DOFORK,   MADV_WIPEONFORK,
                                      MADV_KEEPONFORK, MADV_HUGEPAGE, MADV_NOHUGEPAGE};
    const int advice = kAdvice[pick(std::size(kAdvice))];
    name(("madvise " + std::to_string(advice)).c_str(), r);
    const Result<void> result = space.space->advise(r.address(), r.size(), advice);
    bool has_hole = false;
    for (u32 i = r.begin; i < r.end; ++i) {
      Page& page = space.pages[i];
      if (page.kind == Kind::kNone) {
        has_hole = true;
        continue;
      }
      if ((advice == MADV_FREE || advice == MADV_WIPEONFORK) && page.kind != Kind::kAnonymous) {
        return expect(result.is_error() && (result.error() == Error(EINVAL) || !hog_.empty()),
                      "madvise took a file");
      }
      if (result.is_error() && !hog_.empty()) {
        VmaInfo info;
        expect(space.space->query(address_of(i), &info), "a vma is missing");
        page.flags = static_cast<u8>((info.flags.has(VmaFlag::kDontFork) ? kDontFork : 0) |
                                     (info.flags.has(VmaFlag::kWipeOnFork) ? kWipe : 0) |
                                     (info.flags.has(VmaFlag::kHugePage) ? kHuge : 0) |
                                     (info.flags.has(VmaFlag::kNoHugePage) ? kNoHuge : 0));
        if (advice == MADV_DONTNEED || advice == MADV_FREE) page.is_uncertain = true;
        continue;
      }
      switch (advice) {
        case MADV_DONTNEED:
        case MADV_FREE:
          discard(page);
          break;
        case MADV_DONTFORK:
          page.flags |= kDontFork;
          break;
        case MADV_DOFORK:
          page.flags &= static_cast<u8>(~kDontFork);
          break;
        case MADV_WIPEONFORK:
          page.flags |= kWipe;
          break;
        case MADV_KEEPONFORK:
          page.flags &= static_cast<u8>(~kWipe);
          break;
        case MADV_HUGEPAGE:
          page.flags = static_cast<u8>((page.flags | kHuge) & ~kNoHuge);
          break;
        case MADV_NOHUGEPAGE:
          page.flags = static_cast<u8>((page.flags | kNoHuge) & ~kHuge);
          break;
      }
    }
    if (!hog_.empty()) return;
    expect(result.is_error() == has_hole, "madvise and holes");
    if (has_hole) expect(is_no_memory(result.error()), "madvise's errno");
  }
  void remap(ModelSpace& space) {
    Range from = range();
    if (chance(50)) from.begin = mapped_page(space);
    if (from.begin >= from.end) from.end = from.begin + 9;
    from.end = std::min(from.end, area_end(from.begin));
    const u32 length = from.end - from.begin;
    const bool keep_old = chance(15);
    const u32 new_length = keep_old || chance(50) ? length : static_cast<u32>(1 + pick(600));
    Range to{static_cast<u32>(pick(kPages)), 0};
    if (chance(50)) to.begin = (to.begin & ~511u) | (from.begin & 511);
    to.end = to.begin + new_length;
    if (to.end > area_end(to.begin)) return;
    name("mremap", from);
    where += " to " + std::to_string(to.begin) + ".." + std::to_string(to.end);
    const bool in_place = chance(20) && !keep_old;
    if (in_place && from.begin + new_length > area_end(from.begin)) return;
    const int flags =
        in_place ? 0 : MREMAP_MAYMOVE | MREMAP_FIXED | (keep_old ? MREMAP_DONTUNMAP : 0);
    const Result<VirtualAddress> result = space.space->remap(
        from.address(), from.size(), new_length * kPageSize, flags, to.address());
    if (result.is_error() && is_no_memory(result.error()) && !hog_.empty()) {
      // The target, and what was to be cut off, may be gone.
      if (!in_place) resync_unmapped(space, to);
      return resync_unmapped(space, from);
    }
    const auto fails = [&](int code) {
      expect(result.is_error() && result.error() == Error(code),
             "mremap: expected errno " + std::to_string(code) + ", got " +
                 std::to_string(result.is_error() ? result.error().code() : 0));
    };
    if (space.pages[from.begin].kind == Kind::kNone) return fails(EFAULT);
    const u32 kept = std::min(length, new_length);
    const auto too_short = [&](u32 old_length) {
      const Page& page = space.pages[from.begin];
      return old_length < new_length && page.kind != Kind::kAnonymous &&
             objects_[page.object].pages - page.object_page < new_length;
    };
    if (in_place) {
      if (length >= new_length) {
        expect(result.is_ok(), "mremap did not shrink");
        return clear(space, from.begin + new_length, from.end);
      }
      const u32 vma = run(space, from.begin);
      if (length > vma) return fails(EFAULT);
      if (too_short(length)) return fails(AddressSpace::kWindowTooShort);
      bool is_free = length == vma;
      for (u32 i = from.end; i < from.begin + new_length; ++i) {
        is_free = is_free && space.pages[i].kind == Kind::kNone;
      }
      if (!is_free) return fails(ENOMEM);
      expect(result.is_ok(), "mremap did not grow");
      return extend(space, from.begin, length, new_length);
    }
    if (from.begin < to.end && to.begin < from.end) return fails(EINVAL);
    if (kept <= run(space, from.begin) && too_short(kept)) {
      return fails(AddressSpace::kWindowTooShort);
    }
    clear(space, to.begin, to.end);
    if (length > new_length) clear(space, from.begin + new_length, from.end);
    if (kept > run(space, from.begin)) return fails(EFAULT);
    expect(result.is_ok(), "mremap failed with errno " +
                               std::to_string(result.is_ok() ? 0 : result.error().code()));
    for (u32 i = 0; i < kept; ++i) {
      Page& source = space.pages[from.begin + i];
      space.pages[to.begin + i] = source;
      if (keep_old)
        discard(source);
      else
        source = Page{};
    }
    extend(space, to.begin, kept, new_length);
  }
  void extend(ModelSpace& space, u32 begin, u32 old_length, u32 new_length) {
    for (u32 i = old_length; i < new_length; ++i) {
      Page page = space.pages[begin];
      page.object_page += i;
      discard(page);
      space.pages[begin + i] = page;
    }
  }
  // After a failure halfway: what the vmas say is unmapped is.
  void resync_unmapped(ModelSpace& space, Range range) {
    for (u32 i = range.begin; i < range.end; ++i) {
      VmaInfo info;
      if (!space.space->query(address_of(i), &info)) space.pages[i] = Page{};
    }
  }

  // ---- Snapshots ----
  void new_space() {
    spaces_.push_back(std::make_unique<ModelSpace>());
    spaces_.back()->space = &machine_.new_space();
  }
  void snapshot(ModelSpace& space) {
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
  void end(ModelSpace& space) {
    if (spaces_.size() == 1) return;
    name("an end", {0, kPages});
    for (u32 vcpu = 0; vcpu < kVcpus; ++vcpu) {
      if (calls_[vcpu].space == &space) end_call(vcpu);
      if (homes_[vcpu] == &space) homes_[vcpu] = nullptr;
    }
    machine_.destroy(*space.space);
    std::erase_if(spaces_, [&](const auto& each) { return each.get() == &space; });
  }

  // ---- Host calls ----
  void begin_call(ModelSpace& space) {
    HostCall& call = calls_[vcpu_];
    call.access = chance(70) ? Access::kWrite : Access::kRead;
    const u32 buffers = static_cast<u32>(1 + pick(chance(90) ? 3 : 20));
    for (u32 i = 0; i < buffers; ++i) begin_buffer(space, call);
    if (call.pages.empty()) return;
    call.space = &space;
    machine_.enter(vcpu_, nullptr);
  }
  void begin_buffer(ModelSpace& space, HostCall& call) {
    const u32 begin = mapped_page(space);
    const u32 length = static_cast<u32>(1 + pick(chance(90) ? 8 : 600));
    const Range r{begin, std::min(begin + length, area_end(begin))};
    name("a host call", r);
    HostSegment segments[64];
    const ResolveOutcome outcome = space.space->resolve_for_host(
        r.address(), r.size(), call.access, segments, std::size(segments), Pin::kYes);
    expect(is_aligned(outcome.bytes, kPageSize), "a piece of a page was resolved");
    const u32 good = static_cast<u32>(outcome.bytes / kPageSize);
    u32 expected = 0;
    while (r.begin + expected < r.end) {
      const Page& page = space.pages[r.begin + expected];
      if (page.kind == Kind::kNone || page.protection == 0 ||
          (call.access == Access::kWrite && (page.protection & kWrite) == 0)) {
        break;
      }
      ++expected;
    }
    if (outcome.kind == FaultKind::kResolved) {
      expect(good == r.end - r.begin || outcome.segment_count == std::size(segments) ||
                 pin_slot(vcpu_).window_count == kPinnedWindowsMax,
             "less than the whole buffer");
      expect(good <= expected, "more than may be accessed");
    } else if (outcome.kind == FaultKind::kOutOfMemory) {
      expect(!hog_.empty() && good <= expected, "no memory");
    } else {
      expect(good == expected, "too few bytes before the fault");
    }
    u64 bytes = 0;
    for (u32 i = 0; i < outcome.segment_count; ++i) {
      expect(i == 0 || segments[i - 1].address + segments[i - 1].length != segments[i].address,
             "neighbours are not one segment");
      for (u64 at = 0; at < segments[i].length; at += kPageSize, bytes += kPageSize) {
        const u32 index = r.begin + static_cast<u32>(bytes / kPageSize);
        Page& page = space.pages[index];
        const PhysicalAddress physical = segments[i].address + at;
        if (page.is_uncertain) access_page_physical(page, physical);
        HostPage used{physical, index, page.incarnation, !is_arena(physical), 0, {}};
        if (used.is_window) {
          used.object = page.object;
          ++objects_[page.object].pins;
        } else if (call.access == Access::kWrite && page.kind == Kind::kPrivate && !page.is_own) {
          for (u32 j = 0; j < kWordsPerPage; ++j) page.words[j] = word(page, j);
          page.is_own = true;
        }
        for (u32 j = 0; j < kWordsPerPage; ++j) used.words[j] = word(page, j);
        call.pages.push_back(used);
        check_words(used, used.words);
      }
    }
    expect(bytes == outcome.bytes, "the segments are not as long as they should be");
  }
  void access_page_physical(Page& page, PhysicalAddress physical) {
    for (u32 j = 0; j < kWordsPerPage; ++j) {
      if (*pointer_to<u64>(physical + kWordOffsets[j]) != word(page, j)) {
        discard(page);
        break;
      }
    }
    page.is_uncertain = false;
  }
  void check_in_use(const HostPage& used) {
    machine_.check_in_use(used.physical);
    if (used.is_window) expect(host::is_window(used.physical), "a window in use is gone");
  }
  void check_words(const HostPage& used, const u64* words) {
    check_in_use(used);
    for (u32 j = 0; j < kWordsPerPage; ++j) {
      expect(*pointer_to<u64>(used.physical + kWordOffsets[j]) == words[j],
             "the host sees something else at page " + std::to_string(used.page));
    }
  }
  Page* find(ModelSpace& space, u64 incarnation) {
    for (Page& page : space.pages) {
      if (page.incarnation == incarnation && page.kind != Kind::kNone) return &page;
    }
    return nullptr;
  }
  // The host reads or writes a page of the buffer, whatever happened to it meanwhile.
  void host_works(u32 vcpu) {
    HostCall& call = calls_[vcpu];
    HostPage& used = call.pages[pick(call.pages.size())];
    where = "the host's access to page " + std::to_string(used.page);
    check_in_use(used);
    if (chance(30)) last_ = used.page;
    Page* page = find(*call.space, used.incarnation);
    if (call.access == Access::kRead) {
      if (used.is_window) return;
      // Never another page's contents: what it held, or what was written in place since.
      for (u32 j = 0; j < kWordsPerPage; ++j) {
        const u64 found = *pointer_to<u64>(used.physical + kWordOffsets[j]);
        expect(found == used.words[j] || (page != nullptr && found == page->words[j]) ||
                   page == nullptr || found < value_,
               "the host reads what is not the buffer's");
      }
      return;
    }
    const u32 i = static_cast<u32>(pick(kWordsPerPage));
    const u64 fresh = ++value_;
    *pointer_to<u64>(used.physical + kWordOffsets[i]) = fresh;
    if (!used.is_window && page != nullptr && !page->is_uncertain) page->words[i] = fresh;
    if (page != nullptr && page->is_uncertain) {
      // Whether the program still sees it is open; make both the same.
      *pointer_to<u64>(used.physical + kWordOffsets[i]) = word(*page, i);
    }
  }
  void end_call(u32 vcpu) {
    HostCall& call = calls_[vcpu];
    if (call.space == nullptr) return;
    for (const HostPage& used : call.pages) {
      check_in_use(used);
      if (used.is_window) --objects_[used.object].pins;
    }
    call.space->space->unpin(vcpu);
    call = HostCall{};
  }

  // ---- Scarcity ----
  void hog() {
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
  void release_hog() {
    for (PhysicalAddress frame : hog_) frame_allocator.free_kernel(frame, 0);
    hog_.clear();
  }

  Machine machine_;
  std::mt19937_64 random_;
  const bool is_scarce_;
  std::vector<std::unique_ptr<ModelSpace>> spaces_;
  std::vector<Object> objects_;
  HostCall calls_[kVcpus];
  ModelSpace* homes_[kVcpus] = {};
  std::vector<PhysicalAddress> hog_;
  u32 vcpu_ = 0;
  u32 last_ = 0;
  u64 value_ = 0;
  u64 incarnation_ = 0;
};

u64 from_environment(const char* name, u64 otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 0);
}

void run(u64 seed, u64 steps, u64 check_every, bool scarce) {
  std::cout << "model: MODEL_SEED=" << seed << " MODEL_STEPS=" << steps << std::endl;
  Model model(seed, scarce);
  host::throw_on_panic(true);
  u64 step = 0;
  try {
    for (; step < steps; ++step) {
      model.step();
      if (step % check_every == 0) model.check();
    }
    model.verify_everything();
  } catch (const std::exception& error) {
    std::cerr << "step " << step << " (" << model.where << "): " << error.what() << std::endl;
    std::abort();  // nothing can be cleaned up after an inconsistency
  }
  host::throw_on_panic(false);
}

}  // namespace

TEST_CASE("random operations agree with a plain model") {
  const u64 seed = from_environment("MODEL_SEED", std::random_device{}());
  run(seed, from_environment("MODEL_STEPS", 40000), from_environment("MODEL_CHECK", 200), false);
}

TEST_CASE("random operations agree with a plain model when memory runs out") {
  const u64 seed = from_environment("MODEL_SEED", std::random_device{}());
  run(seed, from_environment("MODEL_STEPS", 20000), from_environment("MODEL_CHECK", 200), true);
}

}  // namespace dbos::test
