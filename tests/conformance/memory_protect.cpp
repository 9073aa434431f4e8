// What can be done to mapped memory: mprotect, madvise, mincore, msync, the mlock family, brk;
// their errors for holes and bad arguments; their effect within and across 2 MiB pages.
#include <sys/resource.h>

#include "support.h"

#ifndef MADV_COLD
#define MADV_COLD 20
#endif
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#define MADV_POPULATE_WRITE 23
#endif

CASE(mprotect_takes_and_gives_access) {
  void* at = map_anonymous(4 * kPage);
  fill(at, 4 * kPage, 1);
  void* second = offset(at, kPage);
  CHECK_EQ(mprotect(second, kPage, PROT_READ), 0);
  CHECK(is(fault_of([=] { *bytes(second) = 1; }), SIGSEGV, SEGV_ACCERR, second));
  CHECK_EQ(mprotect(second, kPage, PROT_NONE), 0);
  CHECK(is(fault_of([=] { static_cast<void>(*bytes(second)); }), SIGSEGV, SEGV_ACCERR, second));
  CHECK(writable(at) && writable(offset(at, 2 * kPage)));
  CHECK_EQ(mprotect(second, kPage, PROT_READ | PROT_WRITE), 0);
  CHECK(filled(at, 4 * kPage, 1));  // the contents lived through PROT_NONE
  CHECK(writable(second));
  munmap(at, 4 * kPage);
}

CASE(mprotect_inside_a_large_page) {
  void* at = map_aligned(2 * kLarge);
  fill(at, 2 * kLarge, 2);
  void* page = offset(at, 300 * kPage);
  CHECK_EQ(mprotect(page, kPage, PROT_READ), 0);
  CHECK(!writable(page));
  CHECK(writable(offset(page, kPage)) && writable(offset(page, -kPage)));
  CHECK_EQ(mprotect(offset(at, kLarge - kPage), 2 * kPage, PROT_NONE), 0);  // across the boundary
  CHECK(!readable(offset(at, kLarge - 1)) && !readable(offset(at, kLarge)));
  CHECK(readable(offset(at, kLarge - kPage - 1)) && readable(offset(at, kLarge + kPage)));
  CHECK_EQ(mprotect(at, 2 * kLarge, PROT_READ | PROT_WRITE), 0);
  CHECK(filled(at, 2 * kLarge, 2));
  fill(at, 2 * kLarge, 3);
  CHECK(filled(at, 2 * kLarge, 3));
  munmap(at, 2 * kLarge);
}

CASE(mprotect_back_and_forth_is_seen_at_once) {
  void* at = map_anonymous(kPage);
  *bytes(at) = 1;
  for (int i = 0; i < 200; ++i) {
    REQUIRE(mprotect(at, kPage, PROT_READ) == 0);
    REQUIRE(!writable(at));
    REQUIRE(mprotect(at, kPage, PROT_READ | PROT_WRITE) == 0);
    *bytes(at) = static_cast<unsigned char>(i);
  }
  munmap(at, kPage);
}

CASE(mprotect_refuses_bad_arguments) {
  void* at = map_anonymous(3 * kPage);
  munmap(offset(at, kPage), kPage);
  CHECK_ERRNO(mprotect(offset(at, 1), kPage, PROT_READ), EINVAL);
  CHECK_ERRNO(mprotect(at, 3 * kPage, PROT_READ), ENOMEM);
  CHECK(layout_is(at, 3 * kPage, "r--p:1 hole:1 rw-p:1"));  // what lay before the hole was done
  CHECK_ERRNO(mprotect(offset(at, kPage), kPage, PROT_READ), ENOMEM);
  CHECK_ERRNO(mprotect(at, ~size_t{0} & ~(kPage - 1), PROT_READ), ENOMEM);
  CHECK_EQ(mprotect(at, 0, PROT_READ), 0);
  CHECK_EQ(mprotect(offset(at, kPage), 0, PROT_READ), 0);
  CHECK_ERRNO(mprotect(at, kPage, PROT_GROWSDOWN | PROT_GROWSUP | PROT_READ), EINVAL);
  CHECK_ERRNO(mprotect(at, kPage, PROT_GROWSUP | PROT_READ), EINVAL);
  CHECK_ERRNO(mprotect(at, kPage, 0x40000000), EINVAL);
  munmap(at, 3 * kPage);
}

CASE(dontneed_gives_zero_pages) {
  void* at = map_aligned(2 * kLarge);
  fill(at, 2 * kLarge, 4);
  CHECK_EQ(madvise(offset(at, 10 * kPage), 20 * kPage, MADV_DONTNEED), 0);
  CHECK(all_are(offset(at, 10 * kPage), 20 * kPage, 0));
  CHECK(filled(at, 10 * kPage, 4));
  CHECK_EQ(*reinterpret_cast<uint64_t*>(offset(at, 30 * kPage)), mix(4, 30 * kPage));
  CHECK_EQ(madvise(at, 2 * kLarge, MADV_DONTNEED), 0);
  for (size_t i = 0; i < 2 * kLarge; i += 256) REQUIRE(bytes(at)[i] == 0);
  fill(at, 2 * kLarge, 5);
  CHECK(filled(at, 2 * kLarge, 5));
  munmap(at, 2 * kLarge);
}

CASE(dontneed_rounds_its_length_up) {
  void* at = map_anonymous(2 * kPage);
  memset(at, 7, 2 * kPage);
  CHECK_EQ(madvise(at, 1, MADV_DONTNEED), 0);
  CHECK(all_are(at, kPage, 0));
  CHECK_EQ(*bytes(at, kPage), 7);
  munmap(at, 2 * kPage);
}

CASE(free_keeps_a_value_that_is_written_after_it) {
  void* at = map_anonymous(16 * kPage);
  memset(at, 7, 16 * kPage);
  CHECK_EQ(madvise(at, 16 * kPage, MADV_FREE), 0);
  for (size_t i = 0; i < 16; ++i) {
    unsigned char now = *bytes(at, i * kPage + 1);
    CHECK(now == 7 || now == 0);
    *bytes(at, i * kPage) = 9;
  }
  for (size_t i = 0; i < 16; ++i) CHECK_EQ(*bytes(at, i * kPage), 9);
  munmap(at, 16 * kPage);
}

CASE(hints_change_nothing) {
  void* at = map_aligned(2 * kLarge);
  fill(at, 2 * kLarge, 6);
  for (int advice : {MADV_NORMAL, MADV_RANDOM, MADV_SEQUENTIAL, MADV_WILLNEED, MADV_DONTDUMP,
                     MADV_DODUMP, MADV_HUGEPAGE, MADV_NOHUGEPAGE, MADV_COLD, MADV_DONTFORK,
                     MADV_DOFORK, MADV_POPULATE_READ, MADV_POPULATE_WRITE}) {
    CHECK_EQ(madvise(at, 2 * kLarge, advice), 0);
    CHECK(filled(at, 2 * kLarge, 6));
  }
  munmap(at, 2 * kLarge);
}

CASE(madvise_refuses_bad_arguments) {
  void* at = map_anonymous(3 * kPage);
  memset(at, 7, 3 * kPage);
  munmap(offset(at, kPage), kPage);
  CHECK_ERRNO(madvise(offset(at, 1), kPage, MADV_DONTNEED), EINVAL);
  CHECK_ERRNO(madvise(at, kPage, 12345), EINVAL);
  CHECK_ERRNO(madvise(at, kPage, -1), EINVAL);
  CHECK_ERRNO(madvise(at, ~size_t{0} & ~(kPage - 1), MADV_DONTNEED), EINVAL);
  CHECK_EQ(madvise(at, 0, MADV_DONTNEED), 0);
  CHECK_EQ(*bytes(at), 7);
  CHECK_ERRNO(madvise(at, 3 * kPage, MADV_DONTNEED), ENOMEM);
  CHECK_EQ(*bytes(at), 0);  // both sides of the hole were done
  CHECK_EQ(*bytes(at, 2 * kPage), 0);
  CHECK_ERRNO(madvise(offset(at, kPage), kPage, MADV_DONTNEED), ENOMEM);
  CHECK_ERRNO(madvise(offset(at, kPage), kPage, MADV_WILLNEED), ENOMEM);
  CHECK_ERRNO(madvise(at, 3 * kPage, MADV_NORMAL), ENOMEM);
  munmap(at, 3 * kPage);
}

CASE(dontfork_is_not_in_the_child_and_wipeonfork_is_zero) {
  void* at = map_anonymous(3 * kPage);
  memset(at, 7, 3 * kPage);
  CHECK_EQ(madvise(at, kPage, MADV_DONTFORK), 0);
  CHECK_EQ(madvise(offset(at, kPage), kPage, MADV_WIPEONFORK), 0);
  CHECK(exited(run_child([=] {
    CHECK(is(fault_of([=] { static_cast<void>(*bytes(at)); }), SIGSEGV, SEGV_MAPERR, at));
    CHECK(all_are(offset(at, kPage), kPage, 0));
    CHECK(all_are(offset(at, 2 * kPage), kPage, 7));
  })));
  CHECK(all_are(at, 3 * kPage, 7));
  munmap(at, 3 * kPage);
}

CASE(mincore_tells_touched_pages) {
  void* at = map_anonymous(8 * kPage);
  CHECK_EQ(madvise(at, 8 * kPage, MADV_NOHUGEPAGE), 0);
  unsigned char resident[8];
  memset(resident, 0xff, sizeof resident);
  CHECK_EQ(mincore(at, 8 * kPage, resident), 0);
  for (unsigned char one : resident) CHECK_EQ(one & 1, 0);
  for (size_t i = 0; i < 8; i += 2) *bytes(at, i * kPage) = 1;
  CHECK_EQ(mincore(at, 8 * kPage, resident), 0);
  for (size_t i = 0; i < 8; i += 2) CHECK_EQ(resident[i] & 1, 1);
  CHECK_EQ(madvise(at, 8 * kPage, MADV_DONTNEED), 0);
  CHECK_EQ(mincore(at, 8 * kPage, resident), 0);
  for (unsigned char one : resident) CHECK_EQ(one & 1, 0);
  CHECK_ERRNO(mincore(offset(at, 1), kPage, resident), EINVAL);
  CHECK_ERRNO(mincore(at, kPage, nullptr), EFAULT);
  munmap(offset(at, 4 * kPage), kPage);
  CHECK_ERRNO(mincore(at, 8 * kPage, resident), ENOMEM);
  munmap(at, 8 * kPage);
  CHECK_ERRNO(mincore(at, kPage, resident), ENOMEM);
}

CASE(msync_checks_its_arguments) {
  void* at = map_anonymous(3 * kPage);
  CHECK_EQ(msync(at, 3 * kPage, MS_SYNC), 0);
  CHECK_EQ(msync(at, 3 * kPage, MS_ASYNC), 0);
  CHECK_EQ(msync(at, 0, MS_ASYNC), 0);
  CHECK_ERRNO(msync(at, kPage, MS_SYNC | MS_ASYNC), EINVAL);
  CHECK_ERRNO(msync(at, kPage, 64), EINVAL);
  CHECK_ERRNO(msync(offset(at, 1), kPage, MS_SYNC), EINVAL);
  munmap(offset(at, kPage), kPage);
  CHECK_ERRNO(msync(at, 3 * kPage, MS_SYNC), ENOMEM);
  munmap(at, 3 * kPage);
}

CASE(locked_memory_is_resident_and_stays_usable) {
  const size_t length = 16 * kPage;  // below the usual 64 KiB limit of an unprivileged user
  void* at = map_anonymous(length);
  CHECK_EQ(mlock(at, length), 0);
  unsigned char resident[16];
  CHECK_EQ(mincore(at, length, resident), 0);
  for (unsigned char one : resident) CHECK_EQ(one & 1, 1);
  fill(at, length, 7);
  CHECK(filled(at, length, 7));
  CHECK_ERRNO(madvise(at, length, MADV_DONTNEED), EINVAL);
  CHECK_EQ(munlock(at, length), 0);
  CHECK_EQ(madvise(at, length, MADV_DONTNEED), 0);
  CHECK_EQ(mlock2(at, length, MLOCK_ONFAULT), 0);
  CHECK_EQ(munlock(at, length), 0);
  CHECK_ERRNO(mlock2(at, length, 0x100), EINVAL);
  munmap(offset(at, kPage), kPage);
  CHECK_ERRNO(mlock(at, length), ENOMEM);
  CHECK_ERRNO(munlock(at, length), ENOMEM);
  munmap(at, length);
  CHECK_ERRNO(mlock(at, kPage), ENOMEM);
  at = mmap(nullptr, kPage, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  CHECK_ERRNO(mlock(at, kPage), ENOMEM);
  munmap(at, kPage);
  CHECK_ERRNO(mlockall(0), EINVAL);
  CHECK_ERRNO(mlockall(0x100), EINVAL);
  CHECK_ERRNO(mlockall(MCL_ONFAULT), EINVAL);
  CHECK_EQ(munlockall(), 0);
}

CASE(locking_past_the_end_of_a_file) {
  const int file = memfd_create("short", MFD_CLOEXEC);
  REQUIRE(ftruncate(file, kPage) == 0);
  void* at = mmap(nullptr, 2 * kPage, PROT_READ, MAP_SHARED, file, 0);
  REQUIRE(at != MAP_FAILED);
  CHECK_EQ(mlock(at, kPage), 0);
  CHECK_ERRNO(mlock(at, 2 * kPage), ENOMEM);
  munmap(at, 2 * kPage);
  close(file);
}

CASE(break_moves_up_and_down) {
  CHECK(exited(run_child([] {
    auto brk_to = [](uintptr_t to) { return static_cast<uintptr_t>(syscall(SYS_brk, to)); };
    uintptr_t start = brk_to(0);
    CHECK(start != 0);
    CHECK_EQ(brk_to(1), start);  // refused: the old break
    CHECK_EQ(brk_to(start + 5 * kMiB + 123), start + 5 * kMiB + 123);
    auto* at = reinterpret_cast<unsigned char*>(start);
    CHECK_EQ(at[0], 0);
    CHECK_EQ(at[5 * kMiB], 0);
    memset(at, 0x5a, 5 * kMiB + 123);
    CHECK_EQ(brk_to(start + kMiB), start + kMiB);
    void* above = at + kMiB + kPage;
    CHECK(is(fault_of([=] { *bytes(above) = 1; }), SIGSEGV, SEGV_MAPERR, above));
    CHECK_EQ(at[kMiB - 1], 0x5a);
    CHECK_EQ(brk_to(start + 3 * kMiB), start + 3 * kMiB);
    CHECK(all_are(at + kMiB + kPage, kPage, 0));  // what was given back comes back zero
    CHECK_EQ(brk_to(start), start);
    CHECK_EQ(brk_to(~uintptr_t{0} / 2), start);
  })));
}

CASE(sbrk_and_malloc_share_the_break) {
  CHECK(exited(run_child([] {
    char* before = static_cast<char*>(sbrk(0));
    CHECK(sbrk(10000) == before);
    CHECK(sbrk(0) == before + 10000);
    memset(before, 1, 10000);
    void* block = malloc(100000);
    memset(block, 2, 100000);
    CHECK(all_are(before, 10000, 1));
    free(block);
  })));
}

CASE(break_stops_at_a_mapping) {
  CHECK(exited(run_child([] {
    uintptr_t start = static_cast<uintptr_t>(syscall(SYS_brk, 0));
    uintptr_t page = (start + 2 * kMiB) & ~(kPage - 1);
    void* wall = mmap(reinterpret_cast<void*>(page), kPage, PROT_READ,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    REQUIRE(wall != MAP_FAILED);
    CHECK_EQ(syscall(SYS_brk, page + kMiB), start);
    CHECK_EQ(syscall(SYS_brk, start + kMiB), start + kMiB);
  })));
}

CASE(data_limit_stops_the_break) {
  CHECK(exited(run_child([] {
    rlimit limit = {};
    REQUIRE(getrlimit(RLIMIT_DATA, &limit) == 0);
    limit.rlim_cur = 64 * kMiB;
    REQUIRE(setrlimit(RLIMIT_DATA, &limit) == 0);
    uintptr_t start = static_cast<uintptr_t>(syscall(SYS_brk, 0));
    CHECK_EQ(syscall(SYS_brk, start + 512 * kMiB), start);
    CHECK(mmap(nullptr, 512 * kMiB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) ==
          MAP_FAILED);
    CHECK_EQ(errno, ENOMEM);
  })));
}

CASE(data_limit_counts_what_becomes_writable) {
  CHECK(exited(run_child([] {
    char* unwritten = static_cast<char*>(map_anonymous(512 * kMiB, PROT_READ));
    void* written = map_anonymous(kMiB);
    rlimit limit = {};
    REQUIRE(getrlimit(RLIMIT_DATA, &limit) == 0);
    limit.rlim_cur = 256 * kMiB;
    REQUIRE(setrlimit(RLIMIT_DATA, &limit) == 0);
    CHECK_ERRNO(mprotect(unwritten, 512 * kMiB, PROT_READ | PROT_WRITE), ENOMEM);
    CHECK(!writable(unwritten));
    CHECK_EQ(mprotect(unwritten, 8 * kMiB, PROT_READ | PROT_WRITE), 0);
    CHECK(writable(unwritten));
    limit.rlim_cur = kPage;
    REQUIRE(setrlimit(RLIMIT_DATA, &limit) == 0);
    CHECK_EQ(mprotect(written, kMiB, PROT_READ | PROT_WRITE | PROT_EXEC), 0);
    CHECK_ERRNO(mprotect(unwritten + 8 * kMiB, kPage, PROT_WRITE), ENOMEM);
  })));
}

CASE(locking_all_passes_over_what_a_file_does_not_have) {
  if (geteuid() != 0) SKIP("only root may lock so much");
  CHECK(exited(run_child([] {
    const int file = open("short", O_RDWR | O_CREAT | O_TRUNC, 0600);
    REQUIRE(file != -1 && ftruncate(file, kPage) == 0);
    char* at = static_cast<char*>(map_anonymous(8 * kPage));
    REQUIRE(mmap(at, 4 * kPage, PROT_READ, MAP_SHARED | MAP_FIXED, file, 0) == at);
    unsigned char present[4] = {};
    CHECK_EQ(mincore(at + 4 * kPage, 4 * kPage, present), 0);
    CHECK_EQ(present[0] & 1, 0);
    CHECK_EQ(mlockall(MCL_CURRENT), 0);
    CHECK_EQ(mincore(at + 4 * kPage, 4 * kPage, present), 0);
    CHECK_EQ(present[0] & 1, 1);
    unlink("short");
  })));
}

// As a user without CAP_IPC_LOCK, with RLIMIT_MEMLOCK.
template <typename Function>
void with_lock_limit(rlim_t bytes, Function&& function) {
  CHECK(exited(run_child([&] {
    const rlimit limit = {bytes, bytes};
    REQUIRE(setrlimit(RLIMIT_MEMLOCK, &limit) == 0);
    if (geteuid() == 0) REQUIRE(setresuid(65534, 65534, 65534) == 0);
    function();
  })));
}

CASE(lock_limit_stops_an_ordinary_user) {
  with_lock_limit(16 * kPage, [] {
    char* at = static_cast<char*>(map_anonymous(64 * kPage));
    CHECK_EQ(mlock(at, 16 * kPage), 0);
    CHECK_EQ(mlock(at, 16 * kPage), 0);
    CHECK_ERRNO(mlock(at + 16 * kPage, kPage), ENOMEM);
    CHECK_ERRNO(mlock(at + kPage, 16 * kPage), ENOMEM);
    CHECK_ERRNO(mlockall(MCL_CURRENT), ENOMEM);
    CHECK(mmap(nullptr, kPage, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_LOCKED, -1, 0) ==
          MAP_FAILED);
    CHECK_EQ(errno, EAGAIN);
    CHECK_EQ(munlock(at, kPage), 0);
    CHECK_EQ(mlock(at + 16 * kPage, kPage), 0);
    CHECK_EQ(munlockall(), 0);
    CHECK_EQ(mlockall(MCL_FUTURE), 0);
    CHECK(mmap(nullptr, 17 * kPage, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED);
    CHECK_EQ(errno, EAGAIN);
  });
}

CASE(no_lock_limit_refuses_an_ordinary_user) {
  with_lock_limit(0, [] {
    void* at = map_anonymous(kPage);
    CHECK_ERRNO(mlock(at, kPage), EPERM);
    CHECK_ERRNO(mlockall(MCL_CURRENT), EPERM);
    CHECK_ERRNO(mlockall(0), EINVAL);
    CHECK(mmap(nullptr, kPage, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_LOCKED, -1, 0) ==
          MAP_FAILED);
    CHECK_EQ(errno, EPERM);
  });
}

CASE(malloc_of_all_sizes_keeps_its_contents) {
  std::vector<std::pair<char*, size_t>> blocks;
  for (size_t size = 1; size < 40 * kMiB; size = size * 5 / 3 + 1) {
    char* block = static_cast<char*>(malloc(size));
    REQUIRE(block != nullptr);
    memset(block, static_cast<int>(size % 251), size);
    blocks.emplace_back(block, size);
  }
  for (auto& [block, size] : blocks) {
    CHECK_EQ(static_cast<unsigned char>(block[size - 1]), size % 251);
    block = static_cast<char*>(realloc(block, size * 2));
    REQUIRE(block != nullptr);
    CHECK_EQ(static_cast<unsigned char>(block[0]), size % 251);
    CHECK_EQ(static_cast<unsigned char>(block[size - 1]), size % 251);
  }
  for (auto& [block, size] : blocks) free(block);
}

CASE(default_protection_key_is_plain_mprotect) {
  void* at = map_anonymous(kPage);
  CHECK_EQ(syscall(SYS_pkey_mprotect, at, kPage, PROT_READ, -1), 0);
  CHECK(!writable(at));
  munmap(at, kPage);
}

CHECK_MAIN
