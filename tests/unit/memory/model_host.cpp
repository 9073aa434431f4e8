// The model: host calls in flight.

#include "tests/unit/memory/model.h"

namespace dbos::test {

// ---- Host calls ----

void Model::begin_call(ModelSpace& space) {
  HostCall& call = calls_[vcpu_];
  call.access = chance(70) ? Access::kWrite : Access::kRead;
  const u32 buffers = static_cast<u32>(1 + pick(chance(90) ? 3 : 20));
  for (u32 i = 0; i < buffers; ++i) begin_buffer(space, call);
  if (call.pages.empty()) return;
  call.space = &space;
  machine_.enter(vcpu_, nullptr);
}

void Model::begin_buffer(ModelSpace& space, HostCall& call) {
  const u32 begin = mapped_page(space);
  const u32 length = static_cast<u32>(1 + pick(chance(90) ? 8 : 512));
  const Range r{begin, std::min(begin + length, area_end(begin))};
  name("a host call", r);
  HostSegment segments[64];
  const ResolveOutcome outcome = space.space->resolve_for_host(r.address(), r.size(), call.access,
                                                               segments, std::size(segments));
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

void Model::access_page_physical(Page& page, PhysicalAddress physical) {
  for (u32 j = 0; j < kWordsPerPage; ++j) {
    if (*pointer_to<u64>(physical + kWordOffsets[j]) != word(page, j)) {
      discard(page);
      break;
    }
  }
  page.is_uncertain = false;
}

void Model::check_words(const HostPage& used, const u64* words) {
  check_in_use(used);
  for (u32 j = 0; j < kWordsPerPage; ++j) {
    expect(*pointer_to<u64>(used.physical + kWordOffsets[j]) == words[j],
           "the host sees something else at page " + std::to_string(used.page));
  }
}

void Model::host_works(u32 vcpu) {
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
      expect(found == used.words[j] || was_written_to(used, j, found),
             "the host reads what is not the buffer's");
    }
    return;
  }
  const u32 i = static_cast<u32>(pick(kWordsPerPage));
  const u64 fresh = fresh_value(used.incarnation, i);
  *pointer_to<u64>(used.physical + kWordOffsets[i]) = fresh;
  if (!used.is_window && page != nullptr && !page->is_uncertain) page->words[i] = fresh;
  if (page != nullptr && page->is_uncertain) {
    // Whether the program still sees it is open; make both the same.
    *pointer_to<u64>(used.physical + kWordOffsets[i]) = word(*page, i);
  }
}

void Model::end_call(u32 vcpu) {
  HostCall& call = calls_[vcpu];
  if (call.space == nullptr) return;
  for (const HostPage& used : call.pages) {
    check_in_use(used);
    if (used.is_window) --objects_[used.object].pins;
  }
  call.space->space->unpin(vcpu);
  call = HostCall{};
}

}  // namespace dbos::test
