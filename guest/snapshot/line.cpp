#include "guest/snapshot/line.h"

#include "guest/memory/heap.h"

namespace dbos {
namespace {

// Protects everything of every line but newest_departure_'s readers, and orders epochs.
constinit Spinlock lines_lock;
constinit std::atomic<Epoch> epoch{1};
constinit u64 snapshots_taken = 0;
constinit Line* all_lines = nullptr;

// How many items are moved for one taking of the lines' lock, so that nobody waits long for it.
constexpr u32 kDrainBatch = 64;
constexpr Epoch kEndOfTime = ~Epoch{0};

void set_owner(PhysicalAddress item, LineId owner) {
  const u64 frames = frames_of(frame_info(item).kind());
  for (u64 i = 0; i < frames; ++i) frame_info(item + i * kPageSize).set_owner(owner);
}

LineId id_of(const Line* line) {
  static_assert(kArenaSizeMax / alignof(Line) < u64{1} << 32, "a line's id fits 32 bits");
  const u64 offset = platform::physical_of(line).value() - kArenaBase;
  DBOS_ASSERT(is_aligned(offset, alignof(Line)));
  return static_cast<LineId>(offset / alignof(Line));
}

}  // namespace

Epoch current_epoch() {
  return epoch.load(std::memory_order_relaxed);
}

u64 Line::kept_frames(const Line* owner) const {
  LockGuard guard(lines_lock);
  u64 frames = 0;
  const Line* line = this;
  do {
    const bool counts = owner == nullptr || line->parent_ == owner;
    if (counts) frames += line->retired_pages() + line->retired_nodes();
    line = line->parent_;
  } while (line != nullptr && !line->has_space_);
  return frames;
}

Line* first_line() {
  return all_lines;
}

Result<Line*> line_create() {
  Line* line = heap_new<Line>();
  if (line == nullptr) return Error(ENOMEM);
  line->id_ = id_of(line);
  LockGuard guard(lines_lock);
  line->next_ = all_lines;
  if (all_lines != nullptr) all_lines->previous_ = line;
  all_lines = line;
  return line;
}

void line_depart(Line& line, Line& parent, Tables tables, u64 parent_copied_pages) {
  LockGuard guard(lines_lock);
  DBOS_ASSERT(line.parent_ == nullptr && line.newest_child_ == nullptr);
  line.parent_ = &parent;
  line.tables_ = tables;
  const Epoch departure = current_epoch();
  line.departure_.store(departure, std::memory_order_relaxed);
  line.taken_ticks_ = __builtin_ia32_rdtsc();
  line.parent_copied_pages_ = parent_copied_pages;
  ++snapshots_taken;
  line.older_ = parent.newest_child_;
  if (line.older_ != nullptr) line.older_->newer_ = &line;
  parent.newest_child_ = &line;
  ++parent.children_;
  parent.note_newest_child();
  epoch.store(departure + 1, std::memory_order_relaxed);
}

void Line::dispose(PhysicalAddress item) {
  FrameInfo& info = frame_info(item);
  DBOS_ASSERT(info.state() == FrameState::kUnlinked);
  DBOS_ASSERT(owns(info));
  DBOS_ASSERT(info.birth() <= current_epoch());
  const bool is_node = info.kind() == FrameKind::kNode;
  if (is_node ? is_private_node(info) : is_exclusive(info)) {
    frame_allocator.free(item);
    return;
  }
  bool is_retired = false;
  {
    LockGuard guard(lines_lock);
    Line* heir = newest_child_before(kEndOfTime, is_node);
    if (heir != nullptr && heir->departure() >= info.birth()) {
      heir->retire(FrameNumber::of(item));
      is_retired = true;
    }
  }
  if (!is_retired) frame_allocator.free(item);
}

void Line::retire(FrameNumber item) {
  FrameInfo& info = frame_info(item);
  const FrameKind kind = info.kind();
  info.change(FrameState::kUnlinked, FrameState::kRetired);
  deadlist_.push(item);
  (kind == FrameKind::kNode ? retired_nodes_ : retired_pages_)
      .fetch_add(frames_of(kind), std::memory_order_relaxed);
  parent_->left_frames_.fetch_add(frames_of(kind), std::memory_order_relaxed);
  frame_allocator.count_retired(kind, 1);
}

// `sees_nodes`: of those that share page tables.
Line* Line::newest_child_before(Epoch before, bool sees_nodes) const {
  Line* child = newest_child_;
  while (child != nullptr &&
         (child->departure() >= before || (sees_nodes && child->tables_ == Tables::kOwn))) {
    child = child->older_;
  }
  return child;
}

void Line::delist() {
  (previous_ == nullptr ? all_lines : previous_->next_) = next_;
  if (next_ != nullptr) next_->previous_ = previous_;
}

void Line::leave_parent() {
  (newer_ == nullptr ? parent_->newest_child_ : newer_->older_) = older_;
  if (older_ != nullptr) older_->newer_ = newer_;
  parent_->note_newest_child();
}

void Line::note_newest_child() {
  const auto departure_of = [](const Line* child) {
    return child == nullptr ? 0 : child->departure();
  };
  newest_departure_.store(departure_of(newest_child_), std::memory_order_release);
  newest_sharer_.store(departure_of(newest_child_before(kEndOfTime, true)),
                       std::memory_order_release);
}

// Passes a dead line's deadlist on: each item to the next older live sibling that sees it, the
// others to the frame allocator. Until then the items are nobody's but this drain's.
void Line::drain() {
  while (!deadlist_.is_empty()) {
    FrameList free;
    {
      LockGuard guard(lines_lock);
      Line* page_heir = parent_->newest_child_before(departure(), false);
      Line* node_heir = parent_->newest_child_before(departure(), true);
      for (u32 i = 0; i < kDrainBatch && !deadlist_.is_empty(); ++i) {
        const FrameNumber item = deadlist_.pop();
        FrameInfo& info = frame_info(item);
        info.change(FrameState::kRetired, FrameState::kUnlinked);
        parent_->left_frames_.fetch_sub(frames_of(info.kind()), std::memory_order_relaxed);
        frame_allocator.count_retired(info.kind(), -1);
        Line* heir = info.kind() == FrameKind::kNode ? node_heir : page_heir;
        if (heir != nullptr && heir->departure() >= info.birth()) {
          heir->retire(item);
        } else {
          free.push(item);
        }
      }
    }
    while (!free.is_empty()) frame_allocator.free(free.pop().address());
  }
}

void line_end(Line* line) {
  {
    LockGuard guard(lines_lock);
    line->has_space_ = false;
    if (line->children_ != 0) {  // a tombstone: the last of its children ends it, or takes it over
      line->tell_sole_heir();
      return;
    }
  }
  while (line != nullptr) {
    Line* parent = line->parent_;
    if (parent != nullptr) {
      {
        LockGuard guard(lines_lock);
        line->leave_parent();
      }
      line->drain();
    }
    DBOS_ASSERT(line->deadlist_.is_empty());
    DBOS_ASSERT(line->left_frames() == 0);
    Line* next = nullptr;
    {
      LockGuard guard(lines_lock);
      line->delist();
      if (parent != nullptr) {
        --parent->children_;
        if (!parent->has_space_ && parent->children_ == 0) next = parent;
        if (!parent->has_space_) parent->tell_sole_heir();
      }
    }
    heap_delete(line);
    line = next;
  }
}

// ---- Adoption ----

// With the lines' lock, when the line has no address space.
void Line::tell_sole_heir() {
  if (children_ == 1 && newest_child_ != nullptr) {
    newest_child_->may_adopt_.store(true, std::memory_order_release);
  }
}

// The parent is dead and has no other child, so nobody but this line touches the deadlist.
void Line::split_retired(PhysicalAddress large) {
  frame_allocator.split_large(large);
  for (u64 i = 1; i < kFramesPerBlock; ++i) {
    deadlist_.push(FrameNumber::of(large + i * kPageSize));
  }
}

FrameList Line::take_parents_place() {
  FrameList unlinked;
  FrameList left = deadlist_;
  deadlist_ = FrameList();
  frame_allocator.count_retired(FrameKind::kPage, -static_cast<i64>(retired_pages_.load()));
  frame_allocator.count_retired(FrameKind::kNode, -static_cast<i64>(retired_nodes_.load()));
  while (!left.is_empty()) {
    const PhysicalAddress item = left.pop().address();
    FrameInfo& info = frame_info(item);
    if (owns(info)) continue;  // adopted
    // Not in this line's tables, but a line that left it while it was may still see it.
    set_owner(item, id_);
    info.change(FrameState::kRetired, FrameState::kUnlinked);
    unlinked.push(FrameNumber::of(item));
  }

  Line* parent = parent_;
  {
    LockGuard guard(lines_lock);
    DBOS_ASSERT(!parent->has_space_ && parent->children_ == 1);
    parent_ = parent->parent_;
    departure_.store(parent->departure(), std::memory_order_relaxed);
    parent_copied_pages_ = parent->parent_copied_pages_;
    tables_ = parent->tables_;
    deadlist_ = parent->deadlist_;
    retired_pages_.store(parent->retired_pages_.load());
    retired_nodes_.store(parent->retired_nodes_.load());
    newer_ = parent->newer_;
    older_ = parent->older_;
    if (older_ != nullptr) older_->newer_ = this;
    if (newer_ != nullptr) {
      newer_->older_ = this;
    } else if (parent_ != nullptr) {
      parent_->newest_child_ = this;
    }
    parent->delist();
    may_adopt_.store(parent_ != nullptr && !parent_->has_space_ && parent_->children_ == 1,
                     std::memory_order_release);
  }
  heap_delete(parent);
  return unlinked;
}

// ---- For those who look from outside ----

void Line::publish(KernelView& view) {
  static_assert(sizeof id_ == sizeof(uint32_t));
  view.line.id = offsetof(Line, id_);
  view.line.parent = offsetof(Line, parent_);
  view.line.departure = offsetof(Line, departure_);
  view.line.taken_ticks = offsetof(Line, taken_ticks_);
  view.line.parent_copied_pages = offsetof(Line, parent_copied_pages_);
  view.line.retired_pages = offsetof(Line, retired_pages_);
  view.line.retired_nodes = offsetof(Line, retired_nodes_);
}

void publish_lines(KernelView& view) {
  Line::publish(view);
  view.gauge(GaugeName::kEpoch) = {reinterpret_cast<u64>(&epoch), 0, 1};
  view.gauge(GaugeName::kSnapshotsTaken) = {reinterpret_cast<u64>(&snapshots_taken), 0, 1};
}

}  // namespace dbos
