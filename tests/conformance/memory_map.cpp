// mmap and munmap of anonymous memory: placement, hints, MAP_FIXED over parts, holes, bad
// arguments, reservations, first touch, patterns across 2 MiB boundaries, how ranges split and
// join.
#include <sys/resource.h>

#include "support.h"

CASE(new_memory_is_zero_and_writable) {
  for (size_t length : {kPage, 3 * kPage, kLarge, kLarge + kPage, 9 * kMiB}) {
    void* at = map_anonymous(length);
    CHECK_EQ(reinterpret_cast<uintptr_t>(at) % kPage, 0);
    for (size_t i = 0; i < length; i += 512) REQUIRE(bytes(at)[i] == 0);
    CHECK_EQ(bytes(at)[length - 1], 0);
    fill(at, length, length);
    CHECK(filled(at, length, length));
    CHECK_EQ(munmap(at, length), 0);
  }
}

CASE(reading_before_writing_gives_zero_and_then_the_value) {
  void* at = map_anonymous(64 * kPage);
  for (size_t i = 0; i < 64; ++i) REQUIRE(bytes(at, i * kPage)[5] == 0);
  fill(at, 64 * kPage, 3);
  CHECK(filled(at, 64 * kPage, 3));
  for (size_t i = 0; i < 64; ++i) REQUIRE(bytes(at, i * kPage)[9] == 0);
  munmap(at, 64 * kPage);
}

CASE(memory_mapped_again_after_munmap_is_zero) {
  for (int round = 0; round < 20; ++round) {
    size_t length = static_cast<size_t>(1 + round * 37) * kPage;
    void* at = map_anonymous(length);
    for (size_t i = 0; i < length; i += kPage)
      REQUIRE(bytes(at)[i] == 0 && bytes(at)[i + 4095] == 0);
    memset(at, 0xa5, length);
    munmap(at, length);
  }
}

CASE(length_is_rounded_up_to_pages) {
  void* at = map_anonymous(1);
  memset(at, 1, kPage);
  CHECK_EQ(munmap(at, 1), 0);
  CHECK(is(fault_of([at] { *bytes(at, 4095) = 1; }), SIGSEGV, SEGV_MAPERR, offset(at, 4095)));
}

CASE(mmap_refuses_bad_arguments) {
  auto map = [](void* at, size_t length, int protection, int flags, int fd, off_t position) {
    void* got = mmap(at, length, protection, flags, fd, position);
    if (got == MAP_FAILED) return -1;
    munmap(got, length);
    return 0;
  };
  const int rw = PROT_READ | PROT_WRITE, anonymous = MAP_PRIVATE | MAP_ANONYMOUS;
  CHECK_ERRNO(map(nullptr, 0, rw, anonymous, -1, 0), EINVAL);
  CHECK_ERRNO(map(nullptr, kPage, rw, MAP_ANONYMOUS, -1, 0), EINVAL);  // neither shared nor private
  CHECK_ERRNO(map(nullptr, kPage, rw, MAP_SHARED_VALIDATE | MAP_ANONYMOUS, -1, 0), EINVAL);
  CHECK_ERRNO(map(nullptr, kPage, rw, MAP_PRIVATE, -1, 0), EBADF);
  CHECK_ERRNO(map(nullptr, kPage, rw, MAP_PRIVATE, 99999, 0), EBADF);
  CHECK_ERRNO(map(nullptr, ~size_t{0}, rw, anonymous, -1, 0), ENOMEM);
  CHECK_ERRNO(map(nullptr, ~size_t{0} - kPage + 1, rw, anonymous, -1, 0), ENOMEM);
  CHECK_ERRNO(map(nullptr, size_t{1} << 47, PROT_NONE, anonymous | MAP_NORESERVE, -1, 0), ENOMEM);
  CHECK_ERRNO(map(reinterpret_cast<void*>(0x123456789), kPage, rw, anonymous | MAP_FIXED, -1, 0),
              EINVAL);
  CHECK_ERRNO(
      map(reinterpret_cast<void*>(uintptr_t{1} << 47), kPage, rw, anonymous | MAP_FIXED, -1, 0),
      ENOMEM);
  CHECK_ERRNO(
      map(reinterpret_cast<void*>(~uintptr_t{0} << 47), kPage, rw, anonymous | MAP_FIXED, -1, 0),
      ENOMEM);
  CHECK_ERRNO(map(reinterpret_cast<void*>((uintptr_t{1} << 47) - kPage), kPage, rw,
                  anonymous | MAP_FIXED, -1, 0),
              ENOMEM);
  CHECK_ERRNO(syscall(SYS_mmap, nullptr, kPage, rw, anonymous, -1, 5), EINVAL);  // unaligned offset
}

CASE(munmap_refuses_bad_arguments) {
  void* at = map_anonymous(2 * kPage);
  CHECK_ERRNO(munmap(offset(at, 1), kPage), EINVAL);
  CHECK_ERRNO(munmap(at, 0), EINVAL);
  CHECK_ERRNO(munmap(at, ~size_t{0}), EINVAL);
  CHECK_ERRNO(munmap(at, size_t{1} << 48), EINVAL);
  CHECK_ERRNO(munmap(reinterpret_cast<void*>(uintptr_t{1} << 63), kPage), EINVAL);
  CHECK(writable(at));
  CHECK_EQ(munmap(at, 2 * kPage), 0);
  CHECK_EQ(munmap(at, 2 * kPage), 0);  // a hole is fine
}

CASE(munmap_of_parts_leaves_the_rest) {
  void* at = map_anonymous(10 * kPage);
  fill(at, 10 * kPage, 4);
  CHECK_EQ(munmap(offset(at, 3 * kPage), kPage), 0);
  CHECK_EQ(munmap(offset(at, 6 * kPage), 2 * kPage), 0);
  CHECK(layout_is(at, 10 * kPage, "rw-p:3 hole:1 rw-p:2 hole:2 rw-p:2"));
  for (size_t i = 0; i < 10; ++i) {
    bool hole = i == 3 || i == 6 || i == 7;
    CHECK_EQ(readable(offset(at, i * kPage)), !hole);
    if (!hole) CHECK_EQ(*reinterpret_cast<uint64_t*>(offset(at, i * kPage)), mix(4, i * kPage));
  }
  CHECK_EQ(munmap(at, 10 * kPage), 0);  // over the holes
  CHECK(layout_is(at, 10 * kPage, "hole:10"));
}

CASE(fixed_mapping_replaces_parts) {
  void* at = map_anonymous(8 * kPage);
  fill(at, 8 * kPage, 5);
  void* middle = offset(at, 2 * kPage);
  CHECK(mmap(middle, 3 * kPage, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) ==
        middle);
  CHECK(layout_is(at, 8 * kPage, "rw-p:2 r--p:3 rw-p:3"));
  CHECK(all_are(middle, 3 * kPage, 0));
  CHECK(filled(at, 2 * kPage, 5));
  CHECK_EQ(*reinterpret_cast<uint64_t*>(offset(at, 5 * kPage)), mix(5, 5 * kPage));
  CHECK(mmap(at, 8 * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
             0) == at);
  CHECK(all_are(at, 8 * kPage, 0));
  CHECK(layout_is(at, 8 * kPage, "rw-p:8"));
  munmap(at, 8 * kPage);
}

CASE(fixed_mapping_inside_a_large_page_keeps_its_neighbours) {
  void* at = map_aligned(3 * kLarge);
  fill(at, 3 * kLarge, 6);
  void* page = offset(at, kLarge + 100 * kPage);
  CHECK(mmap(page, kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) ==
        page);
  CHECK(all_are(page, kPage, 0));
  *reinterpret_cast<uint64_t*>(page) = mix(6, kLarge + 100 * kPage);
  CHECK(filled(at, 3 * kLarge, 6));
  CHECK_EQ(munmap(page, kPage), 0);
  CHECK(!readable(page));
  CHECK(readable(offset(page, kPage)) && readable(offset(page, -kPage)));
  munmap(at, 3 * kLarge);
}

CASE(fixed_noreplace_refuses_what_is_mapped) {
  void* at = map_anonymous(4 * kPage);
  fill(at, 4 * kPage, 7);
  munmap(offset(at, 3 * kPage), kPage);
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE;
  errno = 0;
  CHECK(mmap(at, kPage, PROT_READ, flags, -1, 0) == MAP_FAILED && errno == EEXIST);
  errno = 0;
  CHECK(mmap(offset(at, 2 * kPage), 2 * kPage, PROT_READ, flags, -1, 0) == MAP_FAILED &&
        errno == EEXIST);
  CHECK(mmap(offset(at, 3 * kPage), kPage, PROT_READ, flags, -1, 0) == offset(at, 3 * kPage));
  CHECK(filled(at, 3 * kPage, 7));
  munmap(at, 4 * kPage);
}

CASE(free_hint_is_taken_and_used_one_is_not) {
  void* at = map_anonymous(16 * kPage);
  munmap(at, 16 * kPage);
  void* hint = offset(at, 4 * kPage);
  void* got = mmap(hint, 4 * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  CHECK(got == hint);
  void* other = mmap(hint, 4 * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  CHECK(other != MAP_FAILED && other != hint);
  void* unaligned =
      mmap(offset(at, 9 * kPage + 5), kPage, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  CHECK(unaligned != MAP_FAILED && reinterpret_cast<uintptr_t>(unaligned) % kPage == 0);
  void* beyond = mmap(reinterpret_cast<void*>(uintptr_t{1} << 60), kPage, PROT_READ,
                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  CHECK(beyond != MAP_FAILED);
  munmap(got, 4 * kPage);
  munmap(other, 4 * kPage);
  munmap(unaligned, kPage);
  munmap(beyond, kPage);
}

CASE(low_hint_and_32_bit_flag) {
  void* at = mmap(nullptr, 8 * kPage, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
  REQUIRE(at != MAP_FAILED);
  CHECK(reinterpret_cast<uintptr_t>(at) + 8 * kPage <= uintptr_t{1} << 31);
  fill(at, 8 * kPage, 8);
  CHECK(filled(at, 8 * kPage, 8));
  munmap(at, 8 * kPage);
  void* far = mmap(reinterpret_cast<void*>(0x600000000000), kPage, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
  CHECK(reinterpret_cast<uintptr_t>(far) + kPage <= uintptr_t{1} << 31);
  munmap(far, kPage);
  void* low = reinterpret_cast<void*>(0x10000000);
  void* got = mmap(low, kPage, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
  REQUIRE(got == low || errno == EEXIST);
  if (got == low) {
    CHECK(writable(low));
    munmap(low, kPage);
  }
}

CASE(top_of_the_user_half_can_be_mapped) {
  void* top = reinterpret_cast<void*>((uintptr_t{1} << 47) - 2 * kPage);
  void* got = mmap(top, kPage, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
  CHECK(got == top);
  if (got != top) return;
  *bytes(top, kPage - 1) = 3;
  CHECK_EQ(*bytes(top, kPage - 1), 3);
  CHECK(is(fault_of([top] { *bytes(top, kPage) = 1; }), SIGSEGV, SEGV_MAPERR, offset(top, kPage)));
  munmap(top, kPage);
}

CASE(other_flags_are_accepted) {
  for (int flags : {MAP_NORESERVE, MAP_POPULATE, MAP_STACK, MAP_NORESERVE | MAP_POPULATE,
                    MAP_LOCKED, MAP_NONBLOCK}) {
    void* at = mmap(nullptr, 4 * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | flags,
                    -1, 0);
    CHECK(at != MAP_FAILED);
    CHECK(all_are(at, 4 * kPage, 0));
    fill(at, 4 * kPage, 9);
    CHECK(filled(at, 4 * kPage, 9));
    munmap(at, 4 * kPage);
  }
  // A descriptor and an offset mean nothing for anonymous memory.
  void* at = mmap(nullptr, kPage, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, 77, kPage);
  CHECK(at != MAP_FAILED);
  munmap(at, kPage);
}

CASE(protections_act_as_on_x86) {
  void* write_only = map_anonymous(kPage, PROT_WRITE);
  CHECK(writable(write_only) && readable(write_only));
  void* none = map_anonymous(kPage, PROT_NONE);
  CHECK(is(fault_of([none] { static_cast<void>(*bytes(none)); }), SIGSEGV, SEGV_ACCERR, none));
  void* read_only = map_anonymous(kPage, PROT_READ);
  CHECK(readable(read_only));
  CHECK(is(fault_of([read_only] { *bytes(read_only) = 1; }), SIGSEGV, SEGV_ACCERR, read_only));
  CHECK(layout_is(write_only, kPage, "-w-p:1"));
  CHECK(layout_is(none, kPage, "---p:1"));
  CHECK(layout_is(read_only, kPage, "r--p:1"));
  munmap(write_only, kPage);
  munmap(none, kPage);
  munmap(read_only, kPage);
}

CASE(one_terabyte_reservation_costs_what_is_touched) {
  const size_t length = 1024 * kGiB;
  void* at = mmap(nullptr, length, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  REQUIRE(at != MAP_FAILED);
  for (size_t i = 0; i < 64; ++i) {
    size_t position = i * (length / 64) + i * kPage;
    REQUIRE(bytes(at)[position] == 0);
    *reinterpret_cast<uint64_t*>(offset(at, position)) = mix(10, i);
  }
  *bytes(at, length - 1) = 1;
  for (size_t i = 0; i < 64; ++i) {
    CHECK_EQ(*reinterpret_cast<uint64_t*>(offset(at, i * (length / 64) + i * kPage)), mix(10, i));
  }
  CHECK_EQ(munmap(offset(at, length / 2), length / 2), 0);
  CHECK(readable(offset(at, length / 4)));
  CHECK(!readable(offset(at, length / 2)));
  CHECK_EQ(munmap(at, length), 0);
}

CASE(reservation_is_opened_piece_by_piece) {
  const size_t length = 64 * kMiB;  // what an allocator's arena does
  void* at = map_aligned(length, length, PROT_NONE);
  CHECK(!readable(at));
  size_t open = 0;
  for (size_t piece = kPage; open + piece <= 4 * kMiB;
       piece = piece * 3 / 2 / kPage * kPage + kPage) {
    REQUIRE(mprotect(offset(at, open), piece, PROT_READ | PROT_WRITE) == 0);
    REQUIRE(all_are(offset(at, open), piece < 8 * kPage ? piece : 8 * kPage, 0));
    fill(offset(at, open), piece, open);
    open += piece;
    REQUIRE(!readable(offset(at, open)));
  }
  std::string expected =
      "rw-p:" + std::to_string(open / kPage) + " ---p:" + std::to_string((length - open) / kPage);
  CHECK(layout_is(at, length, expected.c_str()));
  size_t again = 0;
  for (size_t piece = kPage; again + piece <= 4 * kMiB;
       piece = piece * 3 / 2 / kPage * kPage + kPage) {
    CHECK(filled(offset(at, again), piece, again));
    again += piece;
  }
  munmap(at, length);
}

CASE(patterns_survive_across_large_page_boundaries) {
  void* at = map_aligned(4 * kLarge);
  for (size_t boundary = kLarge; boundary < 4 * kLarge; boundary += kLarge) {
    for (size_t i = 0; i < 64; ++i)
      *bytes(at, boundary - 32 + i) = static_cast<unsigned char>(i + 1);
    memmove(offset(at, boundary - 30), offset(at, boundary - 32), 60);
    for (size_t i = 0; i < 60; ++i) REQUIRE(*bytes(at, boundary - 30 + i) == i + 1);
    // One unaligned word over the boundary, read and written.
    uint64_t word = 0x0123456789abcdef;
    memcpy(offset(at, boundary - 3), &word, sizeof word);
    uint64_t back = 0;
    memcpy(&back, offset(at, boundary - 3), sizeof back);
    CHECK(back == word);
  }
  munmap(at, 4 * kLarge);
  at = map_anonymous(5 * kMiB + kPage);
  fill(at, 5 * kMiB + kPage, 11, 64);
  CHECK(filled(at, 5 * kMiB + kPage, 11, 64));
  munmap(at, 5 * kMiB + kPage);
}

CASE(pages_touched_in_any_order_keep_their_places) {
  const size_t pages = 2048;
  void* at = map_aligned(pages * kPage);
  for (size_t i = 0, page = 0; i < pages; ++i, page = (page + 977) % pages) {
    *reinterpret_cast<uint64_t*>(offset(at, page * kPage)) = mix(12, page * kPage);
  }
  CHECK(filled(at, pages * kPage, 12));
  munmap(at, pages * kPage);
}

CASE(neighbours_join_and_split_in_maps) {
  void* reserved = map_anonymous(8 * kPage, PROT_NONE);  // a page on either side keeps others away
  void* at = offset(reserved, kPage);
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
  for (size_t i : {0, 2, 1, 4, 3, 5}) {
    void* page = offset(at, i * kPage);
    REQUIRE(mmap(page, kPage, PROT_READ | PROT_WRITE, flags, -1, 0) == page);
  }
  CHECK(layout_is(at, 6 * kPage, "rw-p:6"));
  CHECK_EQ(map_lines(at, 6 * kPage), 1);
  CHECK_EQ(mprotect(offset(at, 2 * kPage), kPage, PROT_READ), 0);
  CHECK_EQ(map_lines(at, 6 * kPage), 3);
  CHECK(layout_is(at, 6 * kPage, "rw-p:2 r--p:1 rw-p:3"));
  CHECK_EQ(mprotect(offset(at, 2 * kPage), kPage, PROT_READ | PROT_WRITE), 0);
  CHECK(layout_is(at, 6 * kPage, "rw-p:6"));
  munmap(reserved, 8 * kPage);
}

CASE(many_small_mappings_stay_apart) {
  const size_t count = 1000;
  void* at = map_anonymous(2 * count * kPage, PROT_NONE);
  for (size_t i = 0; i < count; ++i) {
    REQUIRE(mprotect(offset(at, 2 * i * kPage), kPage, PROT_READ | PROT_WRITE) == 0);
    *reinterpret_cast<uint64_t*>(offset(at, 2 * i * kPage)) = mix(13, i);
  }
  for (size_t i = 0; i < count; ++i) {
    REQUIRE(*reinterpret_cast<uint64_t*>(offset(at, 2 * i * kPage)) == mix(13, i));
  }
  CHECK(!readable(offset(at, kPage)) && !readable(offset(at, (2 * count - 1) * kPage)));
  for (size_t i = 0; i < count; i += 2) REQUIRE(munmap(offset(at, 2 * i * kPage), kPage) == 0);
  CHECK(!readable(at));
  CHECK_EQ(*reinterpret_cast<uint64_t*>(offset(at, 2 * kPage)), mix(13, 1));
  CHECK_EQ(munmap(at, 2 * count * kPage), 0);
}

CASE(map_and_unmap_in_a_loop_gives_memory_back) {
  for (int i = 0; i < 100; ++i) {  // 6.4 GiB altogether, 3.2 MiB of it touched a round
    void* at = map_anonymous(64 * kMiB);
    for (size_t j = 0; j < 64 * kMiB; j += 8 * kMiB) *bytes(at, j) = 1;
    REQUIRE(munmap(at, 64 * kMiB) == 0);
  }
}

CASE(address_space_limit_is_kept) {
  CHECK(exited(run_child([] {
    rlimit limit = {};
    REQUIRE(getrlimit(RLIMIT_AS, &limit) == 0);
    limit.rlim_cur = 1024 * kGiB;
    REQUIRE(setrlimit(RLIMIT_AS, &limit) == 0);
    CHECK(mmap(nullptr, 2048 * kGiB, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
               0) == MAP_FAILED);
    CHECK_EQ(errno, ENOMEM);
    CHECK(mmap(nullptr, kMiB, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED);
  })));
}

CASE(growing_mapping_extends_downwards) {
  // A reservation below, so that nothing else lies there; the kernel keeps a 1 MiB gap.
  const size_t length = 16 * kMiB;
  void* at = map_anonymous(length, PROT_NONE);
  munmap(at, length);
  void* top = offset(at, length - 4 * kPage);
  void* got = mmap(top, 4 * kPage, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE | MAP_GROWSDOWN, -1, 0);
  REQUIRE(got == top);
  for (size_t i = 1; i <= 32; ++i) {
    CHECK(fault_of([=] {
            *bytes(offset(top, -(i * kPage))) = static_cast<unsigned char>(i);
          }).signal == 0);
  }
  for (size_t i = 1; i <= 32; ++i) CHECK_EQ(*bytes(offset(top, -(i * kPage))), i);
  munmap(offset(top, -(32 * kPage)), 36 * kPage);
}

[[gnu::noinline]] static size_t descend(size_t depth) {
  volatile unsigned char frame[16 * kKiB];
  frame[0] = static_cast<unsigned char>(depth);
  frame[sizeof frame - 1] = 1;
  return depth == 0 ? frame[0] : descend(depth - 1) + frame[sizeof frame - 1];
}
CASE(main_stack_grows_on_demand) {
  CHECK_EQ(descend(256), 256);
}

CHECK_MAIN
