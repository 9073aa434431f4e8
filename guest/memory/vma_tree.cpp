#include "guest/memory/vma_tree.h"

namespace dbos {

VirtualAddress VmaTree::guarded_begin(const Vma& vma) {
  const u64 begin = vma.range.begin.value();
  if (!vma.has(VmaFlag::kGrowsDown)) return VirtualAddress(begin);
  return VirtualAddress(begin < kStackGuardGap ? 0 : begin - kStackGuardGap);
}

// ---- Lookup ----

Vma* VmaTree::find_ending_after(VirtualAddress address) const {
  if (cached_ != nullptr && cached_->range.contains(address)) return cached_;
  Vma* best = nullptr;
  for (Vma* vma = root_; vma != nullptr;) {
    if (address < vma->range.end) {
      best = vma;
      if (vma->range.begin <= address) break;
      vma = vma->left;
    } else {
      vma = vma->right;
    }
  }
  if (best != nullptr) cached_ = best;
  return best;
}

Vma* VmaTree::find_beginning_before(VirtualAddress address) const {
  Vma* best = nullptr;
  for (Vma* vma = root_; vma != nullptr;) {
    if (vma->range.begin < address) {
      best = vma;
      vma = vma->right;
    } else {
      vma = vma->left;
    }
  }
  return best;
}

// ---- The tree ----

u64 VmaTree::gap_before(const Vma& vma) {
  const u64 begin = guarded_begin(vma).value();
  const u64 previous_end = vma.previous == nullptr ? 0 : vma.previous->range.end.value();
  return begin > previous_end ? begin - previous_end : 0;
}

void VmaTree::refresh(Vma* vma) {
  const u32 left = height(vma->left);
  const u32 right = height(vma->right);
  vma->height = 1 + (left > right ? left : right);
  u64 gap = gap_before(*vma);
  if (vma->left != nullptr && vma->left->largest_gap > gap) gap = vma->left->largest_gap;
  if (vma->right != nullptr && vma->right->largest_gap > gap) gap = vma->right->largest_gap;
  vma->largest_gap = gap;
}

Vma* VmaTree::rotate_left(Vma* vma) {
  Vma* top = vma->right;
  vma->right = top->left;
  top->left = vma;
  refresh(vma);
  refresh(top);
  return top;
}

Vma* VmaTree::rotate_right(Vma* vma) {
  Vma* top = vma->left;
  vma->left = top->right;
  top->right = vma;
  refresh(vma);
  refresh(top);
  return top;
}

Vma* VmaTree::balance(Vma* vma) {
  refresh(vma);
  if (height(vma->left) > height(vma->right) + 1) {
    if (height(vma->left->right) > height(vma->left->left)) vma->left = rotate_left(vma->left);
    return rotate_right(vma);
  }
  if (height(vma->right) > height(vma->left) + 1) {
    if (height(vma->right->left) > height(vma->right->right)) vma->right = rotate_right(vma->right);
    return rotate_left(vma);
  }
  return vma;
}

Vma* VmaTree::insert_below(Vma* root, Vma* vma) {
  if (root == nullptr) return vma;
  if (vma->range.begin < root->range.begin) {
    root->left = insert_below(root->left, vma);
  } else {
    root->right = insert_below(root->right, vma);
  }
  return balance(root);
}

Vma* VmaTree::detach_first(Vma* root, Vma** first) {
  if (root->left == nullptr) {
    *first = root;
    return root->right;
  }
  root->left = detach_first(root->left, first);
  return balance(root);
}

Vma* VmaTree::remove_below(Vma* root, Vma* vma) {
  DBOS_ASSERT(root != nullptr);
  if (root == vma) {
    if (vma->left == nullptr) return vma->right;
    if (vma->right == nullptr) return vma->left;
    Vma* successor = nullptr;
    Vma* right = detach_first(vma->right, &successor);
    successor->left = vma->left;
    successor->right = right;
    return balance(successor);
  }
  if (vma->range.begin < root->range.begin) {
    root->left = remove_below(root->left, vma);
  } else {
    root->right = remove_below(root->right, vma);
  }
  return balance(root);
}

void VmaTree::refresh_path_below(Vma* root, const Vma* vma) {
  DBOS_ASSERT(root != nullptr);
  if (root != vma) {
    refresh_path_below(vma->range.begin < root->range.begin ? root->left : root->right, vma);
  }
  refresh(root);
}

void VmaTree::refresh_path(const Vma* vma) {
  if (vma != nullptr) refresh_path_below(root_, vma);
}

// ---- Changing ----

void VmaTree::add_bytes(const Vma& vma) {
  bytes_ += vma.size();
  if (vma.has(VmaFlag::kLocked)) locked_bytes_ += vma.size();
}

void VmaTree::subtract_bytes(const Vma& vma) {
  bytes_ -= vma.size();
  if (vma.has(VmaFlag::kLocked)) locked_bytes_ -= vma.size();
}

void VmaTree::insert(Vma* vma) {
  Vma* previous = find_beginning_before(vma->range.begin);
  Vma* next = previous == nullptr ? first_ : previous->next;
  DBOS_ASSERT(vma->range.begin < vma->range.end);
  DBOS_ASSERT(previous == nullptr || previous->range.end <= vma->range.begin);
  DBOS_ASSERT(next == nullptr || vma->range.end <= next->range.begin);
  vma->previous = previous;
  vma->next = next;
  (previous == nullptr ? first_ : previous->next) = vma;
  (next == nullptr ? last_ : next->previous) = vma;
  vma->left = vma->right = nullptr;
  refresh(vma);
  root_ = insert_below(root_, vma);
  refresh_path(next);
  ++count_;
  add_bytes(*vma);
}

void VmaTree::fill(Vma* first, u32 count) {
  DBOS_ASSERT(root_ == nullptr);
  Vma* previous = nullptr;
  for (Vma* vma = first; vma != nullptr; vma = vma->next) {
    vma->previous = previous;
    previous = vma;
    add_bytes(*vma);
  }
  first_ = first;
  last_ = previous;
  count_ = count;
  Vma* next = first;
  root_ = build(&next, count);
  DBOS_ASSERT(next == nullptr);
}

// A balanced tree of the next `count` vmas of the list.
Vma* VmaTree::build(Vma** next, u32 count) {
  if (count == 0) return nullptr;
  Vma* left = build(next, count / 2);
  Vma* root = *next;
  *next = root->next;
  root->left = left;
  root->right = build(next, count - count / 2 - 1);
  refresh(root);
  return root;
}

void VmaTree::remove(Vma* vma) {
  root_ = remove_below(root_, vma);
  (vma->previous == nullptr ? first_ : vma->previous->next) = vma->next;
  (vma->next == nullptr ? last_ : vma->next->previous) = vma->previous;
  refresh_path(vma->next);
  if (cached_ == vma) cached_ = nullptr;
  --count_;
  subtract_bytes(*vma);
}

void VmaTree::set_range(Vma* vma, VirtualRange range) {
  DBOS_ASSERT(range.begin < range.end);
  DBOS_ASSERT(vma->previous == nullptr || vma->previous->range.end <= range.begin);
  DBOS_ASSERT(vma->next == nullptr || range.end <= vma->next->range.begin);
  subtract_bytes(*vma);
  vma->range = range;
  add_bytes(*vma);
  refresh_path(vma);
  refresh_path(vma->next);
}

void VmaTree::set_flags(Vma* vma, VmaFlags flags) {
  subtract_bytes(*vma);
  vma->flags = flags;
  add_bytes(*vma);
}

// ---- Gaps ----

// Clipping to [low, high) may make a large gap too small, but only along the two edges of the tree.
bool VmaTree::top_down(const Vma* root, u64 length, u64 low, u64 high, u64* found) {
  if (root == nullptr || root->largest_gap < length) return false;
  const u64 previous_end = root->previous == nullptr ? 0 : root->previous->range.end.value();
  if (root->range.end.value() < high && top_down(root->right, length, low, high, found))
    return true;
  u64 begin = previous_end > low ? previous_end : low;
  u64 end = guarded_begin(*root).value();
  if (end > high) end = high;
  if (end >= begin && end - begin >= length) {
    *found = end - length;
    return true;
  }
  return previous_end > low && top_down(root->left, length, low, high, found);
}

bool VmaTree::bottom_up(const Vma* root, u64 length, u64 low, u64 high, u64* found) {
  if (root == nullptr || root->largest_gap < length) return false;
  const u64 previous_end = root->previous == nullptr ? 0 : root->previous->range.end.value();
  if (previous_end > low && bottom_up(root->left, length, low, high, found)) return true;
  u64 begin = previous_end > low ? previous_end : low;
  u64 end = guarded_begin(*root).value();
  if (end > high) end = high;
  if (end >= begin && end - begin >= length) {
    *found = begin;
    return true;
  }
  return root->range.end.value() < high && bottom_up(root->right, length, low, high, found);
}

Result<VirtualAddress> VmaTree::find_gap_top_down(u64 length, VirtualAddress low,
                                                  VirtualAddress high) const {
  if (length > high - VirtualAddress(0) || high < low) return Error(ENOMEM);
  u64 begin = last_ == nullptr ? 0 : last_->range.end.value();
  if (begin < low.value()) begin = low.value();
  if (high.value() >= begin && high.value() - begin >= length) {
    return VirtualAddress(high.value() - length);
  }
  u64 found = 0;
  if (top_down(root_, length, low.value(), high.value(), &found)) return VirtualAddress(found);
  return Error(ENOMEM);
}

Result<VirtualAddress> VmaTree::find_gap_bottom_up(u64 length, VirtualAddress low,
                                                   VirtualAddress high) const {
  u64 found = 0;
  if (bottom_up(root_, length, low.value(), high.value(), &found)) return VirtualAddress(found);
  u64 begin = last_ == nullptr ? 0 : last_->range.end.value();
  if (begin < low.value()) begin = low.value();
  if (high.value() >= begin && high.value() - begin >= length) return VirtualAddress(begin);
  return Error(ENOMEM);
}

// ---- Checking ----

u32 VmaTree::check_below(const Vma* root) {
  if (root == nullptr) return 0;
  const u32 left = check_below(root->left);
  const u32 right = check_below(root->right);
  DBOS_ASSERT(root->left == nullptr || root->left->range.begin < root->range.begin);
  DBOS_ASSERT(root->right == nullptr || root->range.begin < root->right->range.begin);
  const u32 left_height = height(root->left);
  const u32 right_height = height(root->right);
  DBOS_ASSERT(left_height <= right_height + 1 && right_height <= left_height + 1);
  Vma copy = *root;
  refresh(&copy);
  DBOS_ASSERT(copy.height == root->height && copy.largest_gap == root->largest_gap);
  return left + right + 1;
}

void VmaTree::check_invariants() const {
  DBOS_ASSERT(check_below(root_) == count_);
  u32 count = 0;
  u64 bytes = 0;
  u64 locked_bytes = 0;
  const Vma* previous = nullptr;
  for (const Vma* vma = first_; vma != nullptr; previous = vma, vma = vma->next) {
    ++count;
    bytes += vma->size();
    if (vma->has(VmaFlag::kLocked)) locked_bytes += vma->size();
    DBOS_ASSERT(vma->previous == previous);
    DBOS_ASSERT(vma->range.begin < vma->range.end);
    DBOS_ASSERT(previous == nullptr || previous->range.end <= vma->range.begin);
    DBOS_ASSERT(is_aligned(vma->range.begin.value() | vma->range.end.value(), kPageSize));
    DBOS_ASSERT((vma->window != nullptr) == (vma->kind != VmaKind::kAnonymous));
  }
  DBOS_ASSERT(last_ == previous);
  DBOS_ASSERT(count == count_);
  DBOS_ASSERT(bytes == bytes_ && locked_bytes == locked_bytes_);
}

}  // namespace dbos
