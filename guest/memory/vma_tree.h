// An address space's vmas: a balanced (AVL) tree by address, whose nodes know the largest gap in
// their subtree, and a sorted list. Lookup, insertion, removal and the search for a free range take
// O(log n). It counts their bytes, so a vma's range and flags change only through it. The address
// space's lock protects it.
#pragma once

#include "guest/lib/result.h"
#include "guest/memory/vma.h"
#include "hypercall/observe.h"

namespace dbos {

// The pages that stay free below a stack that grows.
inline constexpr u64 kStackGuardGap = 256 * kPageSize;

class VmaTree {
 public:
  constexpr VmaTree() = default;
  VmaTree(const VmaTree&) = delete;
  VmaTree& operator=(const VmaTree&) = delete;

  u32 count() const { return count_; }
  u64 bytes() const { return bytes_; }
  u64 locked_bytes() const { return locked_bytes_; }  // of those with VmaFlag::kLocked
  Vma* first() const { return first_; }
  // The vma that contains the address; nullptr: none.
  Vma* find(VirtualAddress address) const {
    Vma* vma = find_ending_after(address);
    return vma != nullptr && vma->range.contains(address) ? vma : nullptr;
  }
  // The first vma that ends after the address, whether or not it contains it (Linux's find_vma).
  Vma* find_ending_after(VirtualAddress address) const;
  // The last vma that begins before the address.
  Vma* find_beginning_before(VirtualAddress address) const;
  bool is_free(VirtualRange range) const {
    const Vma* vma = find_ending_after(range.begin);
    return vma == nullptr || vma->range.begin >= range.end;
  }

  // The vma must not overlap another.
  void insert(Vma* vma);
  void remove(Vma* vma);
  // Fills an empty tree with vmas that are linked by `next`, in order: O(n), for snapshots.
  void fill(Vma* first, u32 count);
  // Changes where a vma begins or ends; it must stay between its neighbours.
  void set_range(Vma* vma, VirtualRange range);
  void set_flags(Vma* vma, VmaFlags flags);

  // The highest, or lowest, free range of `length` bytes in [low, high), which keeps the guard gap
  // below stacks. ENOMEM: there is none.
  Result<VirtualAddress> find_gap_top_down(u64 length, VirtualAddress low,
                                           VirtualAddress high) const;
  Result<VirtualAddress> find_gap_bottom_up(u64 length, VirtualAddress low,
                                            VirtualAddress high) const;
  // The guard gap of a vma (0 unless it grows down) ends at its begin.
  static VirtualAddress guarded_begin(const Vma& vma);

  // Empties the tree and calls `dispose(Vma*)` for each.
  template <typename Dispose>
  void clear(Dispose dispose) {
    Vma* vma = first_;
    root_ = first_ = last_ = nullptr;
    cached_ = nullptr;
    count_ = 0;
    bytes_ = locked_bytes_ = 0;
    while (vma != nullptr) {
      Vma* next = vma->next;
      dispose(vma);
      vma = next;
    }
  }

  void check_invariants() const;

  static void publish(KernelView& view, u32 offset);  // of the tree in the address space

 private:
  static u64 gap_before(const Vma& vma);
  static u32 height(const Vma* vma) { return vma == nullptr ? 0 : vma->height; }
  static void refresh(Vma* vma);
  static Vma* rotate_left(Vma* vma);
  static Vma* rotate_right(Vma* vma);
  static Vma* balance(Vma* vma);
  static Vma* insert_below(Vma* root, Vma* vma);
  static Vma* build(Vma** next, u32 count);
  static Vma* remove_below(Vma* root, Vma* vma);
  static Vma* detach_first(Vma* root, Vma** first);
  void refresh_path(const Vma* vma);
  static void refresh_path_below(Vma* root, const Vma* vma);
  static bool top_down(const Vma* root, u64 length, u64 low, u64 high, u64* found);
  static bool bottom_up(const Vma* root, u64 length, u64 low, u64 high, u64* found);
  static u32 check_below(const Vma* root);
  void add_bytes(const Vma& vma);
  void subtract_bytes(const Vma& vma);

  Vma* root_ = nullptr;
  Vma* first_ = nullptr;
  Vma* last_ = nullptr;
  mutable Vma* cached_ = nullptr;  // the last one found
  u32 count_ = 0;
  u64 bytes_ = 0;
  u64 locked_bytes_ = 0;
};

}  // namespace dbos
