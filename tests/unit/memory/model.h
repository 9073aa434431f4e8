// The model test: random memory calls, accesses, host calls, snapshots and ends, of several address
// spaces on several vCPUs, against a plain model that copies everything.
//
// MODEL_SEED and MODEL_STEPS reproduce a run (model_test.cpp).
#pragma once

#include <linux/mman.h>

#include <optional>
#include <random>

#include "tests/unit/memory/machine.h"

namespace dbos::test {

inline constexpr u32 kVcpus = 4;
inline constexpr size_t kSpacesMax = 7;
inline constexpr int kRead = PROT_READ;
inline constexpr int kWrite = PROT_WRITE;

// Two areas, each across the border of a higher-level page table.
struct Area {
  u64 begin;
  u32 pages;
};
inline constexpr Area kAreas[] = {{kGiB - 12 * kMiB, 6144}, {512 * kGiB - 4 * kMiB, 2048}};
inline constexpr u32 kPages = kAreas[0].pages + kAreas[1].pages;

inline VirtualAddress address_of(u32 page) {
  if (page < kAreas[0].pages) return VirtualAddress(kAreas[0].begin + page * kPageSize);
  return VirtualAddress(kAreas[1].begin + (page - kAreas[0].pages) * kPageSize);
}
// The end of the area that the page is in.
inline u32 area_end(u32 page) {
  return page < kAreas[0].pages ? kAreas[0].pages : kPages;
}
inline u32 area_begin(u32 page) {
  return page < kAreas[0].pages ? 0 : kAreas[0].pages;
}

// How large the files behind windows are: no mapping grows beyond their end.
inline constexpr u64 kFileSize = 4 * kGiB;

inline constexpr u32 kWordsPerPage = 3;
inline constexpr u64 kWordOffsets[kWordsPerPage] = {0, 2048, 4088};

enum class Kind : u8 { kNone, kAnonymous, kPrivate, kShared };

inline constexpr u8 kDontFork = 1, kWipe = 2, kHuge = 4, kNoHuge = 8;

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

  void step();

  void verify_everything();
  void check();
  void check_nothing_is_left();
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
  Range range();
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
  // The first page of the vma that the page is in.
  u32 vma_begin(const ModelSpace& space, u32 page) const {
    while (page > area_begin(page) && continues(space.pages[page - 1], space.pages[page])) --page;
    return page;
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
  void close_objects();
  static bool is_no_memory(Error error) { return error == Error(ENOMEM); }
  bool may_fail(Error error) const { return is_no_memory(error) && !hog_.empty(); }

  // Each value is written once, so what is found tells where it came from.
  struct Origin {
    u64 incarnation;
    u32 word;
  };
  u64 fresh_value(u64 incarnation, u32 word) {
    origins_.push_back({incarnation, word});
    return origins_.size();
  }
  bool was_written_to(const HostPage& used, u32 word, u64 value) const {
    if (value == 0 || value > origins_.size()) return false;
    const Origin& origin = origins_[value - 1];
    return origin.incarnation == used.incarnation && origin.word == word;
  }

  // ---- Accesses ----
  void access(ModelSpace& space, bool write) {
    const u32 index = mapped_page(space);
    name(write ? "a write" : "a read", {index, index + 1});
    access_page(space, index, write, static_cast<u32>(pick(kWordsPerPage)));
  }
  // Mostly one that is mapped.
  u32 mapped_page(const ModelSpace& space);
  // One of a file or of shared memory, if there are many.
  u32 window_page(const ModelSpace& space);
  void access_page(ModelSpace& space, u32 index, bool write, u32 i);
  void verify(ModelSpace& space);
  void sweep(ModelSpace& space);

  // ---- Calls ----
  void map(ModelSpace& space);
  void map_window(ModelSpace& space);
  int random_protection() {
    const u64 kind = pick(10);
    return kind < 7 ? kRead | kWrite : kind < 9 ? kRead : 0;
  }
  void unmap(ModelSpace& space, Range range);
  void protect(ModelSpace& space);
  void advise(ModelSpace& space);
  void remap(ModelSpace& space);
  struct Remap;
  void call_remap(ModelSpace& space, Remap& call);
  void remap_with_longer_window(ModelSpace& space, Remap& call);
  bool is_too_short(const ModelSpace& space, const Remap& call, u32 old_length);
  void expect_errno(const Remap& call, int code);
  void finish_in_place(ModelSpace& space, const Remap& call);
  void finish_move(ModelSpace& space, const Remap& call);
  void show_longer_window(ModelSpace& space, Range range, u32 vma_page);
  void extend(ModelSpace& space, u32 begin, u32 old_length, u32 new_length);
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
  void snapshot(ModelSpace& space);
  void end(ModelSpace& space);
  void work_ahead(ModelSpace& space);

  // ---- Host calls ----
  void begin_call(ModelSpace& space);
  void begin_buffer(ModelSpace& space, HostCall& call);
  void access_page_physical(Page& page, PhysicalAddress physical);
  void check_in_use(const HostPage& used) {
    machine_.check_in_use(used.physical);
    if (used.is_window) expect(host::is_window(used.physical), "a window in use is gone");
  }
  void check_words(const HostPage& used, const u64* words);
  Page* find(ModelSpace& space, u64 incarnation) {
    for (Page& page : space.pages) {
      if (page.incarnation == incarnation && page.kind != Kind::kNone) return &page;
    }
    return nullptr;
  }
  // The host reads or writes a page of the buffer, whatever happened to it meanwhile.
  void host_works(u32 vcpu);
  void end_call(u32 vcpu);

  // ---- Scarcity ----
  void hog();
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
  std::vector<Origin> origins_;  // of the values 1, 2, ...
  u64 incarnation_ = 0;
};

}  // namespace dbos::test
