// A simulated machine: vCPUs with TLBs that forget only what they are told to, above the real page
// tables of the real address spaces.
#pragma once

#include <linux/mman.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <set>
#include <stdexcept>
#include <unordered_map>
#include <vector>

#include "guest/memory/address_space.h"
#include "guest/memory/frame_allocator.h"
#include "tests/unit/host_platform.h"

namespace dbos::test {

// The lines that exist, tombstones included. With nothing else running.
inline u64 line_count() {
  u64 count = 0;
  for_each_line([&](const Line&) { ++count; });
  return count;
}

// One vCPU's memory of the page tables: leaves by 4 KiB page, and page tables by 2 MiB (what real
// processors call paging-structure caches).
class Tlb {
 public:
  struct Leaf {
    PhysicalAddress frame;
    bool writable;
    bool executable;
  };
  // The translation for an access, or nullopt-like false: page fault.
  bool translate(PhysicalAddress root, VirtualAddress address, Access access,
                 PhysicalAddress* result) {
    const u64 page = address.value() / kPageSize;
    const auto cached = leaves_.find(page);
    if (cached != leaves_.end() && suits(cached->second, access)) {
      *result = cached->second.frame + address.value() % kPageSize;
      return true;
    }
    // A fault forgets the page's own entry, as processors do.
    leaves_.erase(page);
    Leaf leaf;
    if (!walk(root, address, access, &leaf)) {
      tables_.erase(address.value() / kLargePageSize);
      return false;
    }
    leaves_[page] = leaf;
    *result = leaf.frame + address.value() % kPageSize;
    return true;
  }
  void forget(VirtualRange range) {
    tables_.clear();
    if (range.size() / kPageSize > leaves_.size()) {
      for (auto at = leaves_.begin(); at != leaves_.end();) {
        at = range.contains(VirtualAddress(at->first * kPageSize)) ? leaves_.erase(at) : ++at;
      }
      return;
    }
    for (u64 at = align_down(range.begin.value(), kPageSize); at < range.end.value();
         at += kPageSize) {
      leaves_.erase(at / kPageSize);
    }
  }
  void forget_all() {
    leaves_.clear();
    tables_.clear();
  }
  // Whoever has no translation in the range yet must not be let write to another page than the one
  // that this vCPU still reads there.
  void check_before_forgetting(PhysicalAddress root, VirtualRange range) const {
    for (const auto& [page, leaf] : leaves_) {
      const VirtualAddress address(page * kPageSize);
      if (!range.contains(address)) continue;
      PhysicalAddress written;
      if (finds(root, address, &written) && written != leaf.frame) {
        throw std::runtime_error("a page can be written while a processor reads another for it");
      }
    }
  }

 private:
  struct Table {
    PhysicalAddress node;
    bool writable;
  };
  // Where a write would go, without setting a bit.
  static bool finds(PhysicalAddress root, VirtualAddress address, PhysicalAddress* frame) {
    PhysicalAddress at = root;
    for (Level level = Level::kRoot;; level = below(level)) {
      const Pte entry = node_at(at).entry(address, level).load();
      if (!entry.is_present() || !entry.is_writable()) return false;
      at = entry.address();
      if (!entry.is_leaf(level)) continue;
      *frame = at + align_down(address.value() & (span(level) - 1), kPageSize);
      return true;
    }
  }
  static bool suits(const Leaf& leaf, Access access) {
    return access == Access::kRead || (access == Access::kWrite ? leaf.writable : leaf.executable);
  }
  // As processors do: where the entry has changed since it was read, nothing is set.
  static bool mark(PteSlot& slot, Pte entry, u64 flags) {
    static_assert(std::is_standard_layout_v<PteSlot>);
    u64 expected = entry.bits();
    return reinterpret_cast<std::atomic<u64>&>(slot).compare_exchange_strong(expected,
                                                                             expected | flags);
  }
  bool walk(PhysicalAddress root, VirtualAddress address, Access access, Leaf* leaf) {
    PhysicalAddress at = root;
    bool writable = true;
    Level level = Level::kRoot;
    const auto table = tables_.find(address.value() / kLargePageSize);
    if (table != tables_.end()) {
      at = table->second.node;
      writable = table->second.writable;
      level = Level::kPage;
    }
    for (;; level = below(level)) {
      const FrameState state = frame_info(at).state();
      if (frame_info(at).kind() != FrameKind::kNode ||
          (state != FrameState::kLinked && state != FrameState::kUnlinked &&
           state != FrameState::kRetired)) {
        throw std::runtime_error("a processor walks a page table that is free");
      }
      PteSlot& slot = node_at(at).entry(address, level);
      const Pte entry = slot.load();
      if (!entry.is_present()) return false;
      writable = writable && entry.is_writable();
      if (entry.is_leaf(level)) {
        *leaf = {entry.address() + align_down(address.value() & (span(level) - 1), kPageSize),
                 writable, entry.is_executable()};
        if (!suits(*leaf, access)) return false;
        return mark(slot, entry,
                    access == Access::kWrite ? Pte::kAccessed | Pte::kDirty : Pte::kAccessed);
      }
      if (!mark(slot, entry, Pte::kAccessed)) return false;
      at = entry.address();
      if (level == Level::kDirectory) {
        tables_[address.value() / kLargePageSize] = {at, writable};
      }
    }
  }

  std::unordered_map<u64, Leaf> leaves_;
  std::unordered_map<u64, Table> tables_;
};

// SNAPSHOT_STRATEGY=ready runs the same tests with ready copies of all tables.
inline bool uses_ready_tables() {
  const char* text = std::getenv("SNAPSHOT_STRATEGY");
  return text != nullptr && std::strcmp(text, "ready") == 0;
}

inline u64 arena_bytes_for_tests = 3 * kGiB;

inline PhysicalAddress kernel_root_for_tests() {
  static const PhysicalAddress root = [] {
    host::start(arena_bytes_for_tests);
    if (memory_initialize().is_error()) throw std::runtime_error("no memory");
    const PhysicalAddress made = frame_allocator.allocate_kernel(0).value();
    clear_memory(made, kPageSize);
    for (u32 i = kProgramRootEntries; i < kEntriesPerNode; ++i) {
      node_at(made).entries[i].store(Pte(0xdead000 | Pte::kPresent));
    }
    return made;
  }();
  return root;
}

// All frames that are left, until it goes.
class Hog {
 public:
  Hog() {
    while (true) {
      const Result<PhysicalAddress> frame = frame_allocator.allocate_page(Clear::kNo, Ownership{});
      if (frame.is_error()) break;
      frames_.push_back(frame.value());
    }
  }
  ~Hog() {
    while (!frames_.empty()) give_back(1);
  }
  Hog(const Hog&) = delete;
  Hog& operator=(const Hog&) = delete;

  // Gives back frames with an even number, and keeps their neighbours. Returns the first of them.
  PhysicalAddress scatter(size_t count) {
    PhysicalAddress first;
    std::vector<PhysicalAddress> kept;
    for (size_t i = 0; i < frames_.size(); ++i) {
      const bool is_even = FrameNumber::of(frames_[i]).value() % 2 == 0;
      const bool has_pair = i + 1 < frames_.size() && frames_[i + 1] == frames_[i] + kPageSize;
      if (count == 0 || !is_even || !has_pair) {
        kept.push_back(frames_[i]);
        continue;
      }
      if (first.is_null()) first = frames_[i];
      frame_allocator.free(frames_[i]);
      --count;
    }
    frames_ = kept;
    return first;
  }
  void give_back(PhysicalAddress frame) {
    frames_.erase(std::find(frames_.begin(), frames_.end(), frame));
    frame_allocator.free(frame);
  }
  // The frames that it took last.
  void give_back(size_t count) {
    for (; count != 0 && !frames_.empty(); --count, frames_.pop_back()) {
      frame_allocator.free(frames_.back());
    }
  }

 private:
  std::vector<PhysicalAddress> frames_;
};

// Every test makes one; it checks at its end that everything was given back.
class Machine {
 public:
  explicit Machine(u32 vcpu_count = 1) : tlbs_(vcpu_count), in_(vcpu_count, nullptr) {
    kernel_root_for_tests();
    host::set_vcpu(0);
    frame_allocator.drain_caches();
    before_ = frame_allocator.counts();
    host::on_shootdown = [this](AddressSpace& space, VirtualRange range) {
      for (u32 i = 0; i < tlbs_.size(); ++i) {
        if (in_[i] != &space) continue;
        tlbs_[i].check_before_forgetting(space.root(), range);
        tlbs_[i].forget(range);
      }
      ++shootdowns_;
    };
    host::on_flush_local = [this](VirtualAddress address) {
      const VirtualAddress page(align_down(address.value(), kPageSize));
      tlbs_[platform::current_vcpu()].forget({page, page + kPageSize});
    };
  }
  ~Machine() noexcept(false) {
    while (!spaces_.empty()) destroy(**spaces_.begin());
    host::on_shootdown = nullptr;
    host::on_flush_local = nullptr;
    check_memory_invariants();
    const FrameCounts after = frame_allocator.counts();
    if (std::uncaught_exceptions() == 0 &&
        (after.pages != before_.pages || after.nodes != before_.nodes || after.retired_pages != 0 ||
         after.retired_nodes != 0 || line_count() != 0)) {
      throw std::runtime_error("frames or lines were lost");
    }
  }

  AddressSpace& new_space() {
    AddressSpace& space = adopt(AddressSpace::create(kernel_root_for_tests()));
    if (uses_ready_tables()) prepare(space);
    return space;
  }
  AddressSpace& take_snapshot(AddressSpace& of) {
    if (uses_ready_tables()) prepare(of);
    return adopt(of.snapshot());
  }
  // Ready copies, complete.
  static void prepare(AddressSpace& space) {
    if (space.keep_ready(1).is_error()) throw std::runtime_error("no ready copies");
    while (space.refill(2)) {
    }
  }
  void destroy(AddressSpace& space) {
    for (u32 i = 0; i < in_.size(); ++i) {
      if (in_[i] == &space) enter(i, nullptr);
    }
    spaces_.erase(&space);
    AddressSpace::destroy(&space);
  }
  const std::set<AddressSpace*>& spaces() const { return spaces_; }

  // The vCPU loads another root, which forgets everything.
  void enter(u32 vcpu, AddressSpace* space) {
    if (in_[vcpu] == space) return;
    if (in_[vcpu] != nullptr) in_[vcpu]->vcpus().remove(vcpu);
    in_[vcpu] = space;
    if (space != nullptr) space->vcpus().add(vcpu);
    tlbs_[vcpu].forget_all();
  }

  VirtualAddress map(AddressSpace& space, u64 length, int protection = PROT_READ | PROT_WRITE,
                     int flags = 0, VirtualAddress hint = VirtualAddress(0)) {
    return space.map_anonymous(hint, length, protection, MAP_PRIVATE | MAP_ANONYMOUS | flags)
        .value();
  }

  // An access by a vCPU (the current one), with as many faults as it takes.
  FaultKind access(AddressSpace& space, VirtualAddress address, Access how,
                   PhysicalAddress* physical) {
    const u32 vcpu = platform::current_vcpu();
    enter(vcpu, &space);
    for (int tries = 0; tries < 8; ++tries) {
      if (tlbs_[vcpu].translate(space.root(), address, how, physical)) {
        check_in_use(*physical);
        return FaultKind::kResolved;
      }
      ++faults_;
      const FaultKind kind = space.handle_fault(address, how);
      if (kind != FaultKind::kResolved) return kind;
    }
    throw std::runtime_error("a fault does not end");
  }
  // What a processor or the host reaches is nobody else's, and not free.
  static void check_in_use(PhysicalAddress physical) {
    if (!is_arena(physical)) return;
    const FrameInfo& info = frame_info(physical);
    const FrameState state = info.state();
    const bool is_used = state == FrameState::kLinked || state == FrameState::kRetired ||
                         state == FrameState::kUnlinked || state == FrameState::kZero;
    if (!is_used || info.kind() == FrameKind::kNode)
      throw std::runtime_error("a frame in use is free");
  }
  u64 read(AddressSpace& space, VirtualAddress address) {
    PhysicalAddress physical;
    if (access(space, address, Access::kRead, &physical) != FaultKind::kResolved) {
      throw std::runtime_error("a read failed");
    }
    return *pointer_to<u64>(physical);
  }
  void write(AddressSpace& space, VirtualAddress address, u64 value) {
    PhysicalAddress physical;
    if (access(space, address, Access::kWrite, &physical) != FaultKind::kResolved) {
      throw std::runtime_error("a write failed");
    }
    *pointer_to<u64>(physical) = value;
  }
  AddressSpace& adopt(Result<AddressSpace*> made) {
    if (made.is_error()) throw std::runtime_error("no address space");
    spaces_.insert(made.value());
    return *made.value();
  }

  u64 shootdowns() const { return shootdowns_; }
  u64 faults() const { return faults_; }

 private:
  std::vector<Tlb> tlbs_;
  std::vector<AddressSpace*> in_;
  std::set<AddressSpace*> spaces_;
  FrameCounts before_{};
  u64 shootdowns_ = 0;
  u64 faults_ = 0;
};

}  // namespace dbos::test
