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
  const PhysicalAddress at = host::make_window(pages * kPageSize, pages * kPageSize);
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

void Model::unmap(ModelSpace& space) {
  const Range r = range();
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

void Model::remap(ModelSpace& space) {
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
  const Result<VirtualAddress> result =
      space.space->remap(from.address(), from.size(), new_length * kPageSize, flags, to.address());
  if (result.is_error() && is_no_memory(result.error()) && !hog_.empty()) {
    // The target, and what was to be cut off, may be gone. What was to be moved is not.
    if (!in_place) resync_unmapped(space, to);
    if (new_length < length) resync_unmapped(space, {from.begin + new_length, from.end});
    return;
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
  expect(result.is_ok(),
         "mremap failed with errno " + std::to_string(result.is_ok() ? 0 : result.error().code()));
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

void Model::extend(ModelSpace& space, u32 begin, u32 old_length, u32 new_length) {
  for (u32 i = old_length; i < new_length; ++i) {
    Page page = space.pages[begin];
    page.object_page += i;
    discard(page);
    space.pages[begin + i] = page;
  }
}

}  // namespace dbos::test
