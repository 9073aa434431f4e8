// mremap: growing in place, moving, shrinking, MREMAP_FIXED, MREMAP_DONTUNMAP, duplicating shared
// memory with an old size of 0, part of a range, across 2 MiB pages, the errors; files and shared
// memory that grow again and again.
#include "support.h"

namespace {
void* remap(void* at, size_t old_size, size_t new_size, int flags, void* target = nullptr) {
  return mremap(at, old_size, new_size, flags, target);
}
long failing(void* at, size_t old_size, size_t new_size, int flags, void* target = nullptr) {
  return remap(at, old_size, new_size, flags, target) == MAP_FAILED ? -1 : 0;
}

// A file that grows; fill() would have written the same to it.
class GrowingFile {
 public:
  explicit GrowingFile(size_t pages) { grow(pages); }
  ~GrowingFile() { close(file_); }
  GrowingFile(const GrowingFile&) = delete;
  GrowingFile& operator=(const GrowingFile&) = delete;

  void grow(size_t pages) {
    for (; pages_ < pages; ++pages_) {
      const uint64_t word = mix(kSeed, pages_ * kPage);
      const auto position = static_cast<off_t>(pages_ * kPage);
      REQUIRE(ftruncate(file_, position + static_cast<off_t>(kPage)) == 0);
      REQUIRE(pwrite(file_, &word, sizeof word, position) == sizeof word);
    }
  }
  void* map(size_t pages, int flags, void* wanted = nullptr) const {
    void* at = mmap(wanted, pages * kPage, PROT_READ | PROT_WRITE, flags, file_, 0);
    REQUIRE(at != MAP_FAILED);
    return at;
  }
  bool is_at(void* at, size_t pages) const { return filled(at, pages * kPage, kSeed); }
  // A word that fill() leaves alone.
  uint64_t second_word(size_t page) const {
    uint64_t word = 0;
    CHECK(pread(file_, &word, sizeof word, static_cast<off_t>(page * kPage + 8)) == sizeof word);
    return word;
  }

 private:
  static constexpr uint64_t kSeed = 20;
  int file_ = memfd_create("growing", MFD_CLOEXEC);
  size_t pages_ = 0;
};
volatile uint64_t& second_word(void* at, size_t page) {
  return *reinterpret_cast<volatile uint64_t*>(offset(at, page * kPage + 8));
}
}  // namespace

CASE(shrinking_unmaps_the_tail) {
  void* at = map_anonymous(8 * kPage);
  fill(at, 8 * kPage, 1);
  CHECK(remap(at, 8 * kPage, 3 * kPage, 0) == at);
  CHECK(filled(at, 3 * kPage, 1));
  CHECK(layout_is(at, 8 * kPage, "rw-p:3 hole:5"));
  CHECK(remap(at, 3 * kPage, 1, 0) == at);
  CHECK(layout_is(at, 8 * kPage, "rw-p:1 hole:7"));
  munmap(at, kPage);
}

CASE(growing_in_place_when_there_is_room) {
  void* at = map_anonymous(16 * kPage);
  fill(at, 16 * kPage, 2);
  munmap(offset(at, 4 * kPage), 12 * kPage);
  CHECK(remap(at, 4 * kPage, 16 * kPage, 0) == at);
  CHECK(filled(at, 4 * kPage, 2));
  CHECK(all_are(offset(at, 4 * kPage), 12 * kPage, 0));
  CHECK(layout_is(at, 16 * kPage, "rw-p:16"));
  munmap(at, 16 * kPage);
}

CASE(growing_against_a_neighbour_fails_or_moves) {
  void* at = map_anonymous(8 * kPage);
  fill(at, 8 * kPage, 3);
  mprotect(offset(at, 4 * kPage), 4 * kPage, PROT_READ);
  CHECK_ERRNO(failing(at, 4 * kPage, 8 * kPage, 0), ENOMEM);
  CHECK(layout_is(at, 8 * kPage, "rw-p:4 r--p:4"));
  void* moved = remap(at, 4 * kPage, 8 * kPage, MREMAP_MAYMOVE);
  REQUIRE(moved != MAP_FAILED);
  CHECK(moved != at);
  CHECK(filled(moved, 4 * kPage, 3));
  CHECK(all_are(offset(moved, 4 * kPage), 4 * kPage, 0));
  CHECK(layout_is(at, 8 * kPage, "hole:4 r--p:4"));
  CHECK(layout_is(moved, 8 * kPage, "rw-p:8"));
  fill(moved, 8 * kPage, 4);
  CHECK(filled(moved, 8 * kPage, 4));
  munmap(at, 8 * kPage);
  munmap(moved, 8 * kPage);
}

CASE(same_size_changes_nothing) {
  void* at = map_anonymous(4 * kPage);
  fill(at, 4 * kPage, 5);
  CHECK(remap(at, 4 * kPage, 4 * kPage, 0) == at);
  CHECK(remap(at, 4 * kPage, 4 * kPage - 5, MREMAP_MAYMOVE) == at);
  CHECK(filled(at, 4 * kPage, 5));
  munmap(at, 4 * kPage);
}

CASE(moving_to_a_fixed_place_replaces_what_was_there) {
  void* from = map_anonymous(4 * kPage);
  void* to = map_anonymous(8 * kPage);
  fill(from, 4 * kPage, 6);
  memset(to, 7, 8 * kPage);
  void* target = offset(to, 2 * kPage);
  CHECK(remap(from, 4 * kPage, 4 * kPage, MREMAP_MAYMOVE | MREMAP_FIXED, target) == target);
  CHECK(filled(target, 4 * kPage, 6));
  CHECK(all_are(to, 2 * kPage, 7) && all_are(offset(to, 6 * kPage), 2 * kPage, 7));
  CHECK(layout_is(from, 4 * kPage, "hole:4"));
  munmap(to, 8 * kPage);
}

CASE(moving_to_a_fixed_place_can_grow_and_shrink) {
  void* from = map_anonymous(4 * kPage);
  void* to = map_anonymous(8 * kPage);
  fill(from, 4 * kPage, 7);
  CHECK(remap(from, 4 * kPage, 6 * kPage, MREMAP_MAYMOVE | MREMAP_FIXED, to) == to);
  CHECK(filled(to, 4 * kPage, 7));
  CHECK(all_are(offset(to, 4 * kPage), 2 * kPage, 0));
  void* third = map_anonymous(8 * kPage);
  CHECK(remap(to, 6 * kPage, 2 * kPage, MREMAP_MAYMOVE | MREMAP_FIXED, third) == third);
  CHECK(filled(third, 2 * kPage, 7));
  CHECK(layout_is(to, 8 * kPage, "hole:6 rw-p:2"));
  munmap(to, 8 * kPage);
  munmap(third, 8 * kPage);
}

CASE(moving_keeps_untouched_pages_untouched) {
  const size_t length = 4 * kLarge;
  void* from = map_aligned(length);
  for (size_t i = 0; i < length; i += 7 * kPage)
    *reinterpret_cast<uint64_t*>(offset(from, i)) = mix(8, i);
  void* to = map_aligned(length, kLarge, PROT_NONE);
  CHECK(remap(from, length, length, MREMAP_MAYMOVE | MREMAP_FIXED, to) == to);
  for (size_t i = 0; i < length; i += kPage) {
    uint64_t expected = i % (7 * kPage) == 0 ? mix(8, i) : 0;
    REQUIRE(*reinterpret_cast<uint64_t*>(offset(to, i)) == expected);
  }
  CHECK(!readable(from));
  munmap(to, length);
}

CASE(moving_large_pages_to_an_odd_place) {
  const size_t length = 3 * kLarge;
  void* from = map_aligned(length);
  fill(from, length, 9);
  void* to = map_aligned(length + kLarge, kLarge, PROT_NONE);
  void* target = offset(to, 5 * kPage);  // no longer aligned to 2 MiB
  CHECK(remap(from, length, length, MREMAP_MAYMOVE | MREMAP_FIXED, target) == target);
  CHECK(filled(target, length, 9));
  fill(target, length, 10);
  CHECK(filled(target, length, 10));
  CHECK(!readable(to) && !readable(offset(target, length)));
  munmap(to, length + kLarge);
}

CASE(moving_the_middle_of_a_mapping) {
  void* at = map_anonymous(8 * kPage);
  fill(at, 8 * kPage, 11);
  void* to = map_anonymous(4 * kPage, PROT_NONE);
  CHECK(remap(offset(at, 2 * kPage), 3 * kPage, 3 * kPage, MREMAP_MAYMOVE | MREMAP_FIXED, to) ==
        to);
  CHECK(layout_is(at, 8 * kPage, "rw-p:2 hole:3 rw-p:3"));
  CHECK(layout_is(to, 4 * kPage, "rw-p:3 ---p:1"));
  for (size_t i = 0; i < 3; ++i) {
    CHECK_EQ(*reinterpret_cast<uint64_t*>(offset(to, i * kPage)), mix(11, (i + 2) * kPage));
  }
  munmap(at, 8 * kPage);
  munmap(to, 4 * kPage);
}

CASE(protection_moves_with_the_pages) {
  void* at = map_anonymous(2 * kPage);
  fill(at, 2 * kPage, 12);
  mprotect(at, 2 * kPage, PROT_READ);
  void* to = map_anonymous(2 * kPage);
  CHECK(remap(at, 2 * kPage, 2 * kPage, MREMAP_MAYMOVE | MREMAP_FIXED, to) == to);
  CHECK(filled(to, 2 * kPage, 12));
  CHECK(is(fault_of([=] { *bytes(to) = 1; }), SIGSEGV, SEGV_ACCERR, to));
  munmap(to, 2 * kPage);
}

CASE(dontunmap_leaves_an_empty_mapping) {
  void* at = map_anonymous(4 * kPage);
  fill(at, 4 * kPage, 13);
  void* moved = remap(at, 4 * kPage, 4 * kPage, MREMAP_MAYMOVE | MREMAP_DONTUNMAP);
  REQUIRE(moved != MAP_FAILED && moved != at);
  CHECK(filled(moved, 4 * kPage, 13));
  CHECK(all_are(at, 4 * kPage, 0));
  fill(at, 4 * kPage, 14);
  CHECK(filled(moved, 4 * kPage, 13));
  CHECK(filled(at, 4 * kPage, 14));
  CHECK_ERRNO(failing(at, 4 * kPage, 2 * kPage, MREMAP_MAYMOVE | MREMAP_DONTUNMAP), EINVAL);
  CHECK_ERRNO(failing(at, 4 * kPage, 4 * kPage, MREMAP_DONTUNMAP), EINVAL);
  munmap(at, 4 * kPage);
  munmap(moved, 4 * kPage);
}

CASE(old_size_zero_duplicates_shared_memory) {
  void* at = mmap(nullptr, 4 * kPage, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  REQUIRE(at != MAP_FAILED);
  fill(at, 4 * kPage, 15);
  void* twin = remap(at, 0, 4 * kPage, MREMAP_MAYMOVE);
  REQUIRE(twin != MAP_FAILED && twin != at);
  CHECK(filled(twin, 4 * kPage, 15));
  fill(twin, 4 * kPage, 16);
  CHECK(filled(at, 4 * kPage, 16));
  munmap(at, 4 * kPage);
  CHECK(filled(twin, 4 * kPage, 16));
  munmap(twin, 4 * kPage);
  void* alone = map_anonymous(kPage);
  CHECK_ERRNO(failing(alone, 0, kPage, MREMAP_MAYMOVE), EINVAL);
  munmap(alone, kPage);
}

CASE(shared_memory_keeps_its_contents_when_moved) {
  void* at = mmap(nullptr, 4 * kPage, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  REQUIRE(at != MAP_FAILED);
  fill(at, 4 * kPage, 17);
  void* to = map_anonymous(4 * kPage);
  CHECK(remap(offset(at, kPage), 2 * kPage, 2 * kPage, MREMAP_MAYMOVE | MREMAP_FIXED, to) == to);
  CHECK_EQ(*reinterpret_cast<uint64_t*>(to), mix(17, kPage));
  CHECK(exited(run_child([=] { *reinterpret_cast<uint64_t*>(to) = 99; })));
  CHECK_EQ(*reinterpret_cast<uint64_t*>(to), 99);
  munmap(at, 4 * kPage);
  munmap(to, 4 * kPage);
}

CASE(remap_refuses_bad_arguments) {
  void* at = map_anonymous(8 * kPage);
  fill(at, 8 * kPage, 18);
  CHECK_ERRNO(failing(offset(at, 1), kPage, 2 * kPage, 0), EINVAL);
  CHECK_ERRNO(failing(at, size_t{1} << 47, kPage, 0), EINVAL);
  CHECK_ERRNO(failing(at, ~size_t{0} - kPage, kPage, MREMAP_MAYMOVE), EINVAL);
  CHECK_ERRNO(failing(reinterpret_cast<void*>(size_t{1} << 47), kPage, 2 * kPage, 0), EFAULT);
  CHECK_ERRNO(failing(at, kPage, 0, 0), EINVAL);
  CHECK_ERRNO(failing(at, kPage, 2 * kPage, 0x80), EINVAL);
  CHECK_ERRNO(failing(at, kPage, kPage, MREMAP_FIXED, at), EINVAL);  // FIXED without MAYMOVE
  CHECK_ERRNO(
      failing(at, 4 * kPage, 4 * kPage, MREMAP_MAYMOVE | MREMAP_FIXED, offset(at, 2 * kPage)),
      EINVAL);
  CHECK_ERRNO(failing(at, 4 * kPage, 4 * kPage, MREMAP_MAYMOVE | MREMAP_FIXED, offset(at, 1)),
              EINVAL);
  // Older kernels say ENOMEM, newer ones EINVAL.
  CHECK_EQ(failing(at, kPage, size_t{1} << 47, MREMAP_MAYMOVE), -1);
  CHECK(errno == ENOMEM || errno == EINVAL);
  CHECK(filled(at, 8 * kPage, 18));
  munmap(offset(at, 4 * kPage), 4 * kPage);
  CHECK_ERRNO(failing(at, 8 * kPage, 16 * kPage, MREMAP_MAYMOVE), EFAULT);  // beyond its mapping
  CHECK_ERRNO(failing(offset(at, 5 * kPage), kPage, 2 * kPage, MREMAP_MAYMOVE), EFAULT);
  munmap(at, 4 * kPage);
}

CASE(realloc_style_growth_keeps_a_big_block) {
  size_t length = kMiB;
  void* at = map_anonymous(length);
  fill(at, length, 19);
  while (length < 64 * kMiB) {
    at = remap(at, length, 2 * length, MREMAP_MAYMOVE);
    REQUIRE(at != MAP_FAILED);
    CHECK(filled(at, kMiB, 19));
    CHECK_EQ(*bytes(at, length), 0);
    *bytes(at, 2 * length - 1) = 1;
    length *= 2;
  }
  munmap(at, length);
}

CASE(remapped_ring_shows_the_same_pages_twice) {
  // Memory rewiring: one shared object, seen at two neighbouring places.
  const size_t length = 16 * kPage;
  void* base = map_anonymous(2 * length, PROT_NONE);
  void* shared =
      mmap(base, length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
  REQUIRE(shared == base);
  void* second = offset(base, length);
  CHECK(remap(base, 0, length, MREMAP_MAYMOVE | MREMAP_FIXED, second) == second);
  const char text[] = "written over the seam";
  memcpy(offset(base, length - 10), text, sizeof text);
  CHECK(memcmp(base, text + 10, sizeof text - 10) == 0);
  CHECK(memcmp(offset(base, 2 * length - 10), text, 10) == 0);
  munmap(base, 2 * length);
}

CASE(file_mapping_grows_and_moves_again_and_again) {
  for (int flags : {MAP_SHARED, MAP_PRIVATE}) {
    size_t pages = 4;
    GrowingFile file(pages);
    void* at = file.map(pages, flags);
    second_word(at, 1) = 5;
    while (pages < 1500) {
      const size_t more = pages + pages / 3 + 1;
      file.grow(more);
      void* wall = mmap(offset(at, pages * kPage), kPage, PROT_NONE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
      void* moved = remap(at, pages * kPage, more * kPage, MREMAP_MAYMOVE);
      REQUIRE(moved != MAP_FAILED);
      CHECK(moved != at);
      if (wall != MAP_FAILED) munmap(wall, kPage);
      at = moved;
      CHECK_EQ(map_lines(at, more * kPage), 1);
      REQUIRE(file.is_at(at, more));
      CHECK_EQ(second_word(at, 1), 5);
      second_word(at, pages) = pages;
      CHECK_EQ(file.second_word(pages), flags == MAP_SHARED ? pages : 0);
      pages = more;
    }
    CHECK_EQ(file.second_word(1), flags == MAP_SHARED ? 5 : 0);
    munmap(at, pages * kPage);
  }
}

CASE(file_mapping_grows_in_its_place_page_by_page) {
  for (int flags : {MAP_SHARED, MAP_PRIVATE}) {
    const size_t most = 400;
    GrowingFile file(1);
    void* at = map_anonymous(most * kPage, PROT_NONE);
    munmap(at, most * kPage);
    REQUIRE(file.map(1, flags | MAP_FIXED, at) == at);
    for (size_t pages = 1; pages < most; ++pages) {
      file.grow(pages + 1);
      second_word(at, pages - 1) = pages;
      REQUIRE(remap(at, pages * kPage, (pages + 1) * kPage, 0) == at);
    }
    CHECK_EQ(map_lines(at, most * kPage), 1);
    CHECK(file.is_at(at, most));
    for (size_t page = 0; page + 1 < most; ++page) {
      REQUIRE(second_word(at, page) == page + 1);
      REQUIRE(file.second_word(page) == (flags == MAP_SHARED ? page + 1 : 0));
    }
    CHECK_EQ(msync(at, most * kPage, MS_SYNC), 0);
    munmap(at, most * kPage);
  }
}

CASE(file_mapping_shrinks_and_grows) {
  GrowingFile file(64);
  void* at = file.map(16, MAP_SHARED);
  for (const size_t pages : {2, 32, 1, 48, 16, 64}) {
    const size_t before = static_cast<size_t>(map_of(at).end - map_of(at).start);
    at = remap(at, before, pages * kPage, MREMAP_MAYMOVE);
    REQUIRE(at != MAP_FAILED);
    CHECK_EQ(map_of(at).end - map_of(at).start, pages * kPage);
    CHECK(file.is_at(at, pages));
  }
  munmap(at, 64 * kPage);
}

CASE(end_of_a_file_mapping_grows_with_all_of_it) {
  GrowingFile file(32);
  void* at = map_anonymous(40 * kPage, PROT_NONE);
  munmap(at, 40 * kPage);
  REQUIRE(file.map(8, MAP_SHARED | MAP_FIXED, at) == at);
  void* end = offset(at, 6 * kPage);
  CHECK(remap(end, 2 * kPage, 10 * kPage, 0) == end);
  CHECK_EQ(map_lines(at, 16 * kPage), 1);
  CHECK(remap(at, 16 * kPage, 32 * kPage, 0) == at);
  CHECK_EQ(map_lines(at, 32 * kPage), 1);
  CHECK(file.is_at(at, 32));
  munmap(at, 32 * kPage);
}

CASE(part_of_a_file_mapping_grows_elsewhere) {
  GrowingFile file(64);
  void* at = file.map(12, MAP_PRIVATE);
  second_word(at, 3) = 7;
  second_word(at, 5) = 8;
  void* moved = remap(offset(at, 4 * kPage), 4 * kPage, 40 * kPage, MREMAP_MAYMOVE);
  REQUIRE(moved != MAP_FAILED);
  CHECK(layout_is(at, 12 * kPage, "rw-p:4 hole:4 rw-p:4"));
  CHECK_EQ(map_lines(moved, 40 * kPage), 1);
  CHECK_EQ(second_word(at, 3), 7);
  CHECK_EQ(second_word(moved, 1), 8);
  for (size_t page = 0; page < 40; ++page) {
    uint64_t word = *reinterpret_cast<volatile uint64_t*>(offset(moved, page * kPage));
    REQUIRE(word == mix(20, (page + 4) * kPage));
  }
  moved = remap(moved, 40 * kPage, 60 * kPage, MREMAP_MAYMOVE);
  REQUIRE(moved != MAP_FAILED);
  CHECK_EQ(second_word(moved, 1), 8);
  munmap(at, 12 * kPage);
  munmap(moved, 60 * kPage);
}

CASE(file_mapping_grows_on_both_sides_of_a_fork) {
  for (int flags : {MAP_SHARED, MAP_PRIVATE}) {
    GrowingFile file(64);
    void* at = file.map(8, flags);
    CHECK(file.is_at(at, 8));
    second_word(at, 2) = 5;
    Pipe grown;
    pid_t child = start_child([&] {
      CHECK_EQ(grown.take(), 'x');
      CHECK_EQ(second_word(at, 2), 5);
      CHECK_EQ(second_word(at, 3), flags == MAP_SHARED ? 6 : 0);
      void* mine = remap(at, 8 * kPage, 48 * kPage, MREMAP_MAYMOVE);
      REQUIRE(mine != MAP_FAILED);
      CHECK(file.is_at(mine, 48));
      second_word(mine, 40) = 7;
    });
    void* mine = remap(at, 8 * kPage, 64 * kPage, MREMAP_MAYMOVE);
    REQUIRE(mine != MAP_FAILED);
    second_word(mine, 3) = 6;
    grown.post();
    CHECK(exited(status_of(child)));
    CHECK_EQ(second_word(mine, 2), 5);
    CHECK_EQ(second_word(mine, 40), flags == MAP_SHARED ? 7 : 0);
    CHECK(file.is_at(mine, 64));
    munmap(mine, 64 * kPage);
  }
}

CASE(system_calls_on_a_mapping_that_has_grown) {
  GrowingFile file(64);
  void* at = file.map(4, MAP_SHARED);
  at = remap(at, 4 * kPage, 32 * kPage, MREMAP_MAYMOVE);
  REQUIRE(at != MAP_FAILED);
  at = remap(at, 32 * kPage, 64 * kPage, MREMAP_MAYMOVE);
  REQUIRE(at != MAP_FAILED);
  Pipe pipe;
  CHECK_EQ(write(pipe.out(), offset(at, 63 * kPage), 8), 8);
  CHECK_EQ(read(pipe.in(), offset(at, kPage + 8), 8), 8);
  CHECK_EQ(file.second_word(1), mix(20, 63 * kPage));
  unsigned char present[64] = {};
  CHECK_EQ(mincore(at, 64 * kPage, present), 0);
  CHECK_EQ(present[0] & 1, 1);
  CHECK_EQ(present[63] & 1, 1);
  CHECK_EQ(madvise(offset(at, 2 * kPage), kPage, MADV_REMOVE), 0);
  CHECK(all_are(offset(at, 2 * kPage), kPage, 0));
  CHECK_EQ(msync(at, 64 * kPage, MS_SYNC), 0);
  munmap(at, 64 * kPage);
}

CASE(removal_passes_over_holes) {
  void* at = mmap(nullptr, 3 * kPage, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  REQUIRE(at != MAP_FAILED);
  fill(at, 3 * kPage, 22);
  REQUIRE(munmap(offset(at, kPage), kPage) == 0);
  CHECK_ERRNO(madvise(at, 3 * kPage, MADV_REMOVE), ENOMEM);
  CHECK(all_are(at, kPage, 0));
  CHECK(all_are(offset(at, 2 * kPage), kPage, 0));
  munmap(at, 3 * kPage);
}

CASE(removal_ends_at_what_it_is_refused_for) {
  void* at = mmap(nullptr, 3 * kPage, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  REQUIRE(at != MAP_FAILED);
  fill(at, 3 * kPage, 23);
  REQUIRE(mmap(offset(at, kPage), kPage, PROT_READ | PROT_WRITE,
               MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != MAP_FAILED);
  CHECK_ERRNO(madvise(at, 3 * kPage, MADV_REMOVE), EINVAL);
  CHECK(all_are(at, kPage, 0));
  CHECK(!all_are(offset(at, 2 * kPage), kPage, 0));
  munmap(at, 3 * kPage);
}

CASE(shared_memory_does_not_grow_with_its_mapping) {
  void* at = mmap(nullptr, 4 * kPage, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  REQUIRE(at != MAP_FAILED);
  fill(at, 4 * kPage, 21);
  for (const size_t pages : {8, 16}) {
    at = remap(at, pages / 2 * kPage, pages * kPage, MREMAP_MAYMOVE);
    REQUIRE(at != MAP_FAILED);
    CHECK_EQ(map_lines(at, pages * kPage), 1);
    CHECK(filled(at, 4 * kPage, 21));
    void* beyond = offset(at, 5 * kPage);
    CHECK(is(fault_of([=] { *bytes(beyond) = 1; }), SIGBUS, BUS_ADRERR, beyond));
  }
  munmap(at, 16 * kPage);
}

CHECK_MAIN
