// The model: memory calls.

#include "tests/unit/memory/model.h"

namespace dbos::test {

// ---- Calls ----

void Model::map(ModelSpace& space) {
  const Range r = range();
  name("mmap", r);
  const int protection = random_protection();
  const bool no_huge = chance(30);
  const Result<VirtualAddress> result = space.space->map_anonymous(
      r.address(), r.size(), protection,
      MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | (no_huge ? MAP_STACK : 0));
  if (result.is_error()) return expect(may_fail(result.error()), "mmap failed");
  clear(space, r.begin, r.end);
  for (u32 i = r.begin; i < r.end; ++i) {
    Page& page = space.pages[i];
    page.kind = Kind::kAnonymous;
    page.protection = static_cast<u8>(protection);
    page.flags = no_huge ? kNoHuge : 0;
    page.incarnation = ++incarnation_;
  }
}

void Model::map_window(ModelSpace& space) {
  Range r = range();
  if (r.end - r.begin > 100) r.end = r.begin + 100;
  name("mmap of a window", r);
  const u32 before = static_cast<u32>(pick(3));
  const u32 pages = r.end - r.begin + before + static_cast<u32>(pick(20));
  const bool is_shared = chance(50);
  const PhysicalAddress at = host::make_window(pages * kPageSize, kFileSize);
  std::memset(pointer_to<char>(at), 0, pages * kPageSize);
  const Result<WindowObject*> window = window_create(
      at, pages * kPageSize, chance(50) ? WindowKind::kFile : WindowKind::kSharedAnonymous, {});
  if (window.is_error()) return platform::window_unmap(at, pages * kPageSize);
  for (u32 page = 0; page < pages; ++page) {
    for (u64 offset : kWordOffsets)
      *pointer_to<u64>(at + page * kPageSize + offset) = fresh_value(0, 0);
  }
  const int protection = random_protection();
  const Result<VirtualAddress> result =
      space.space->map_window(r.address(), r.size(), protection, MAP_FIXED,
                              {window.value(), before * kPageSize, is_shared, true});
  window_release(window.value());
  if (result.is_error()) return expect(may_fail(result.error()), "mmap failed");
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

void Model::unmap(ModelSpace& space, Range r) {
  name("munmap", r);
  const Result<void> result = space.space->unmap(r.address(), r.size());
  if (result.is_error()) return expect(may_fail(result.error()), "munmap failed");
  clear(space, r.begin, r.end);
}

void Model::protect(ModelSpace& space) {
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

void Model::advise(ModelSpace& space) {
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

struct Model::Remap {
  Range from;
  Range to;
  bool in_place;
  bool keep_old;
  Result<VirtualAddress> result = Error(1);
  bool was_too_short = false;  // its window
  bool is_tried_again = false;

  u32 length() const { return from.end - from.begin; }
  u32 new_length() const { return to.end - to.begin; }
  u64 new_size() const { return new_length() * kPageSize; }
  int flags() const {
    if (in_place) return 0;
    return MREMAP_MAYMOVE | MREMAP_FIXED | (keep_old ? MREMAP_DONTUNMAP : 0);
  }
  bool failed(int code) const { return result.is_error() && result.error() == Error(code); }
};

void Model::remap(ModelSpace& space) {
  Range from = range();
  if (chance(50)) from.begin = chance(30) ? mapped_page(space) : window_page(space);
  if (from.begin >= from.end) from.end = from.begin + 9;
  from.end = std::min(from.end, area_end(from.begin));
  const u32 length = from.end - from.begin;
  const bool keep_old = chance(15);
  const u32 new_length = keep_old || chance(50) ? length : static_cast<u32>(1 + pick(600));
  Range to{static_cast<u32>(pick(kPages)), 0};
  if (chance(50)) to.begin = (to.begin & ~511u) | (from.begin & 511);
  to.end = to.begin + new_length;
  if (to.end > area_end(to.begin)) return;
  const bool in_place = chance(40) && !keep_old;
  if (in_place) {
    const u32 new_end = from.begin + new_length;
    if (new_end > area_end(from.begin)) return;
    if (from.end < new_end && chance(70)) unmap(space, {from.end, new_end});
  }
  name("mremap", from);
  where += " to " + std::to_string(to.begin) + ".." + std::to_string(to.end);
  Remap call{.from = from, .to = to, .in_place = in_place, .keep_old = keep_old};
  call_remap(space, call);
  if (call.failed(ENOMEM) && !hog_.empty()) {
    // The target, and what was to be cut off, may be gone. What was to be moved is not.
    if (!in_place) resync_unmapped(space, to);
    if (new_length < length) resync_unmapped(space, {from.begin + new_length, from.end});
    return;
  }
  if (space.pages[from.begin].kind == Kind::kNone) return expect_errno(call, EFAULT);
  if (in_place) return finish_in_place(space, call);
  finish_move(space, call);
}

void Model::call_remap(ModelSpace& space, Remap& call) {
  call.result = space.space->remap(call.from.address(), call.from.size(), call.new_size(),
                                   call.flags(), call.to.address());
  call.was_too_short = call.failed(AddressSpace::kWindowTooShort);
  call.is_tried_again = call.was_too_short && chance(80);
  if (call.is_tried_again) remap_with_longer_window(space, call);
}

// As the system call does it (guest/syscalls/memory_calls.cpp). The longer window is the last of
// the objects, as far as anybody shows it.
void Model::remap_with_longer_window(ModelSpace& space, Remap& call) {
  WindowPlace place;
  expect(space.space->find_window(call.from.address(), &place), "a vma is missing");
  const Page& first = space.pages[vma_begin(space, call.from.begin)];
  expect(place.vma_offset == first.object_page * kPageSize, "a vma begins elsewhere");
  const u64 size = place.offset - place.vma_offset + call.new_size() + pick(200) * kPageSize;
  const PhysicalAddress at =
      host::duplicate_window(place.window.get()->address() + place.vma_offset, size);
  const Result<WindowObject*> window = window_create(at, size, place.window.get()->kind(), {});
  if (window.is_error()) {
    platform::window_unmap(at, size);
    call.result = window.error();
    return;
  }
  objects_.push_back({window.value(), at, static_cast<u32>(size / kPageSize)});
  const LongerWindow longer{window.value(), place.window.get(), place.vma_offset};
  call.result = space.space->remap(call.from.address(), call.from.size(), call.new_size(),
                                   call.flags(), call.to.address(), &longer);
  window_release(window.value());
}

// Whether growth from this length needs a longer window, as the call should have found.
bool Model::is_too_short(const ModelSpace& space, const Remap& call, u32 old_length) {
  const Page& page = space.pages[call.from.begin];
  const bool expected = old_length < call.new_length() && page.kind != Kind::kAnonymous &&
                        objects_[page.object].pages - page.object_page < call.new_length();
  expect(call.was_too_short == expected, "mremap and the end of a window");
  return expected;
}

void Model::finish_in_place(ModelSpace& space, const Remap& call) {
  const Range from = call.from;
  const u32 new_end = from.begin + call.new_length();
  if (from.end >= new_end) {
    expect(call.result.is_ok(), "mremap did not shrink");
    return clear(space, new_end, from.end);
  }
  const u32 vma = run(space, from.begin);
  if (call.length() > vma) return expect_errno(call, EFAULT);
  const bool shows_longer = is_too_short(space, call, call.length());
  if (shows_longer && !call.is_tried_again) return;
  bool is_free = call.length() == vma;
  for (u32 i = from.end; i < new_end; ++i) {
    is_free = is_free && space.pages[i].kind == Kind::kNone;
  }
  if (!is_free) return expect_errno(call, ENOMEM);
  expect(call.result.is_ok(), "mremap did not grow");
  const u32 vma_first = vma_begin(space, from.begin);
  if (shows_longer) {
    show_longer_window(space, {vma_first, from.end}, space.pages[vma_first].object_page);
  }
  extend(space, from.begin, call.length(), call.new_length());
}

void Model::finish_move(ModelSpace& space, const Remap& call) {
  const Range from = call.from;
  const Range to = call.to;
  if (from.begin < to.end && to.begin < from.end) return expect_errno(call, EINVAL);
  const u32 kept = std::min(call.length(), call.new_length());
  const bool is_one_vma = kept <= run(space, from.begin);
  const bool shows_longer = is_one_vma && is_too_short(space, call, kept);
  if (shows_longer && !call.is_tried_again) return;
  const u32 vma_page = space.pages[vma_begin(space, from.begin)].object_page;
  clear(space, to.begin, to.end);
  if (from.begin + kept < from.end) clear(space, from.begin + kept, from.end);
  if (!is_one_vma) return expect_errno(call, EFAULT);
  expect(call.result.is_ok(), "mremap failed");
  for (u32 i = 0; i < kept; ++i) {
    Page& source = space.pages[from.begin + i];
    space.pages[to.begin + i] = source;
    if (call.keep_old)
      discard(source);
    else
      source = Page{};
  }
  if (shows_longer) show_longer_window(space, {to.begin, to.begin + kept}, vma_page);
  extend(space, to.begin, kept, call.new_length());
}

// What remap_with_longer_window() made, from the page `vma_page` of the window before.
void Model::show_longer_window(ModelSpace& space, Range range, u32 vma_page) {
  for (u32 i = range.begin; i < range.end; ++i) {
    space.pages[i].object = static_cast<u32>(objects_.size() - 1);
    space.pages[i].object_page -= vma_page;
  }
}

void Model::expect_errno(const Remap& call, int code) {
  expect(call.failed(code),
         "mremap: expected errno " + std::to_string(code) + ", got " +
             std::to_string(call.result.is_error() ? call.result.error().code() : 0));
}

void Model::extend(ModelSpace& space, u32 begin, u32 old_length, u32 new_length) {
  for (u32 i = old_length; i < new_length; ++i) {
    Page page = space.pages[begin];
    page.object_page += i;
    discard(page);
    space.pages[begin + i] = page;
  }
}

}  // namespace dbos::test
