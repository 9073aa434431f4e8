// Reads the guest kernel's own lists and counts from outside, by the offsets that it published at
// boot (hypercall/observe.h). The guest is not stopped: a list may change while it is read, so
// every pointer is checked, every list bounded, and what was read twice the same is taken.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "hypercall/observe.h"
#include "vmm/proxy/guest_memory.h"

namespace dbos::vmm {

// An address space. Counts are of 4 KiB pages unless they say otherwise.
struct SpaceView {
  uint64_t root;           // guest-physical address of its page table: its name in commands
  uint64_t line;           // its line's id, unique among the living
  uint64_t parent_line;    // 0: it is no snapshot
  uint64_t departure;      // the epoch that the snapshot ended
  uint64_t taken_ticks;    // TSC
  uint64_t retired_pages;  // of the parent's, which only this snapshot keeps
  uint64_t retired_nodes;
  uint64_t pages;                // that it maps
  uint64_t nodes;                // page tables of its own
  uint64_t copied_pages;         // copied on write by this address space
  uint64_t parent_copied_pages;  // by the parent, before this snapshot was taken
  uint64_t first_vma;

  bool operator==(const SpaceView&) const = default;
};

struct VmaView {
  uint64_t begin;
  uint64_t end;
  uint8_t protection;  // PROT_*
  VmaKind kind;
  std::string name;  // a file's path, [heap], [stack] ...
  uint64_t file_offset;

  bool operator==(const VmaView&) const = default;
};

class KernelReader {
 public:
  explicit KernelReader(const GuestMemory& memory, uint64_t view_address = kKernelViewAddress)
      : memory_(memory), view_address_(view_address) {}

  // 0, and nothing: the guest kernel has not booted yet, or publishes nothing.
  int64_t gauge(GaugeName name) const;
  // In the order of the guest's list: the newest first.
  std::vector<SpaceView> spaces() const;
  std::vector<VmaView> vmas(const SpaceView& space) const;

 private:
  template <typename T>
  bool load(uint64_t pointer, T& value) const;
  template <typename T>
  T field(uint64_t object, uint32_t offset) const;
  std::optional<KernelView> view() const;
  std::vector<SpaceView> read_spaces(const KernelView& view) const;
  std::vector<VmaView> read_vmas(const KernelView& view, const SpaceView& space) const;
  VmaView read_vma(const KernelView& view, uint64_t at) const;

  const GuestMemory& memory_;
  uint64_t view_address_;
};

// The address space with this root; with 0 that of the program's first process, which is the
// oldest. nullptr: there is none.
const SpaceView* find_space(const std::vector<SpaceView>& spaces, uint64_t root);

}  // namespace dbos::vmm
