// Files in memory: private and shared mappings, their ends, what each side sees, permissions,
// offsets, what outlives close and unlink; shared anonymous memory, /dev/zero and /dev/shm.
#include <sys/mount.h>
#include <sys/stat.h>

#include <atomic>
#include <thread>

#include "support.h"

namespace {
// A file of the given number of pages; page i holds the letter 'a' + i.
int lettered(const char* name, size_t pages, size_t extra = 0) {
  unlink(name);
  int file = open(name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  REQUIRE(file != -1);
  for (size_t i = 0; i <= pages; ++i) {
    size_t size = i < pages ? kPage : extra;
    std::string text(size, static_cast<char>('a' + i % 26));
    REQUIRE(write(file, text.data(), size) == static_cast<ssize_t>(size));
  }
  return file;
}
void* map(int file, size_t length, int protection, int flags, off_t position = 0) {
  void* at = mmap(nullptr, length, protection, flags, file, position);
  REQUIRE(at != MAP_FAILED);
  return at;
}
long failing(int file, size_t length, int protection, int flags, off_t position = 0) {
  return mmap(nullptr, length, protection, flags, file, position) == MAP_FAILED ? -1 : 0;
}
const int kReadWrite = PROT_READ | PROT_WRITE;
}  // namespace

CASE(private_mapping_shows_the_file_and_keeps_writes) {
  int file = lettered("file", 4);
  void* at = map(file, 4 * kPage, kReadWrite, MAP_PRIVATE);
  for (size_t i = 0; i < 4; ++i)
    CHECK(all_are(offset(at, i * kPage), kPage, static_cast<unsigned char>('a' + i)));
  memset(offset(at, kPage), 'X', kPage);
  char byte = 0;
  CHECK_EQ(pread(file, &byte, 1, kPage), 1);
  CHECK_EQ(byte, 'b');
  CHECK_EQ(*bytes(at, kPage), 'X');
  void* second = map(file, 4 * kPage, PROT_READ, MAP_PRIVATE);
  CHECK_EQ(*bytes(second, kPage), 'b');
  munmap(at, 4 * kPage);
  munmap(second, 4 * kPage);
  close(file);
  unlink("file");
}

CASE(shared_mapping_writes_to_the_file) {
  int file = lettered("file", 4);
  void* at = map(file, 4 * kPage, kReadWrite, MAP_SHARED);
  void* second = map(file, 4 * kPage, kReadWrite, MAP_SHARED);
  memcpy(offset(at, kPage + 10), "written", 7);
  char text[8] = "";
  CHECK_EQ(pread(file, text, 7, kPage + 10), 7);
  CHECK(strcmp(text, "written") == 0);
  CHECK(memcmp(offset(second, kPage + 10), "written", 7) == 0);
  CHECK_EQ(pwrite(file, "by write", 8, 2 * kPage), 8);
  CHECK(memcmp(offset(at, 2 * kPage), "by write", 8) == 0);
  CHECK_EQ(msync(at, 4 * kPage, MS_SYNC), 0);
  munmap(at, 4 * kPage);
  CHECK(memcmp(offset(second, 2 * kPage), "by write", 8) == 0);
  munmap(second, 4 * kPage);
  close(file);
  unlink("file");
}

CASE(end_of_the_file_inside_a_page_is_zero_and_beyond_is_sigbus) {
  int file = lettered("file", 1, 100);
  for (int flags : {MAP_PRIVATE, MAP_SHARED}) {
    void* at = map(file, 4 * kPage, kReadWrite, flags);
    CHECK(all_are(offset(at, kPage), 100, 'b'));
    CHECK(all_are(offset(at, kPage + 100), kPage - 100, 0));
    void* beyond = offset(at, 2 * kPage + 77);
    CHECK(is(fault_of([=] { static_cast<void>(*bytes(beyond)); }), SIGBUS, BUS_ADRERR, beyond));
    CHECK(is(fault_of([=] { *bytes(beyond, kPage) = 1; }), SIGBUS, BUS_ADRERR,
             offset(beyond, kPage)));
    munmap(at, 4 * kPage);
  }
  CHECK(failing(file, kPage, PROT_READ, MAP_PRIVATE, 16 * kPage) ==
        0);  // mapping beyond the end is allowed
  close(file);
  unlink("file");
}

CASE(system_call_on_memory_beyond_the_end_is_efault) {
  int file = lettered("file", 1);
  void* at = map(file, 2 * kPage, kReadWrite, MAP_SHARED);
  Pipe pipe;
  CHECK_ERRNO(write(pipe.out(), offset(at, kPage), 10), EFAULT);
  pipe.post();
  CHECK_ERRNO(read(pipe.in(), offset(at, kPage), 1), EFAULT);
  munmap(at, 2 * kPage);
  close(file);
  unlink("file");
}

CASE(file_that_shrinks_and_grows_under_its_mapping) {
  int file = lettered("file", 4);
  void* at = map(file, 4 * kPage, kReadWrite, MAP_SHARED);
  void* own = map(file, 4 * kPage, kReadWrite, MAP_PRIVATE);
  CHECK_EQ(*bytes(at, 3 * kPage), 'd');
  *bytes(own, 3 * kPage) = 'Y';
  REQUIRE(ftruncate(file, kPage + 50) == 0);
  CHECK_EQ(*bytes(at, kPage + 49), 'b');
  CHECK_EQ(*bytes(at, kPage + 50), 0);
  void* gone = offset(at, 3 * kPage);
  CHECK(is(fault_of([=] { static_cast<void>(*bytes(gone)); }), SIGBUS, BUS_ADRERR, gone));
  void* copied = offset(own, 3 * kPage);  // even a private copy goes with the file's end
  CHECK(is(fault_of([=] { static_cast<void>(*bytes(copied)); }), SIGBUS, BUS_ADRERR, copied));
  REQUIRE(ftruncate(file, 4 * kPage) == 0);
  CHECK_EQ(*bytes(gone), 0);
  *bytes(gone) = 'Z';
  char byte = 0;
  CHECK_EQ(pread(file, &byte, 1, 3 * kPage), 1);
  CHECK_EQ(byte, 'Z');
  munmap(at, 4 * kPage);
  munmap(own, 4 * kPage);
  close(file);
  unlink("file");
}

CASE(first_write_to_a_private_page_behind_a_cut_is_sigbus) {
  int file = lettered("file", 4);
  void* own = map(file, 4 * kPage, kReadWrite, MAP_PRIVATE);
  CHECK_EQ(*bytes(own, 3 * kPage), 'd');
  REQUIRE(ftruncate(file, kPage) == 0);
  void* gone = offset(own, 3 * kPage);
  CHECK(is(fault_of([=] { *bytes(gone) = 'X'; }), SIGBUS, BUS_ADRERR, gone));
  *bytes(own) = 'Y';
  CHECK_EQ(*bytes(own), 'Y');
  munmap(own, 4 * kPage);
  close(file);
  unlink("file");
}

CASE(a_mapping_that_is_replaced_is_there_all_the_time) {
  int file = lettered("file", 4);
  void* at = map(file, 4 * kPage, PROT_READ, MAP_SHARED);
  std::atomic<bool> done{false};
  std::thread reader([&] {
    while (!done) {
      for (size_t i = 0; i < 4; ++i) REQUIRE(*bytes(at, i * kPage) != 0);
    }
  });
  for (int i = 0; i < 300; ++i) {
    REQUIRE(mmap(at, 4 * kPage, PROT_READ, (i % 2 == 0 ? MAP_PRIVATE : MAP_SHARED) | MAP_FIXED,
                 file, 0) == at);
  }
  done = true;
  reader.join();
  munmap(at, 4 * kPage);
  close(file);
  unlink("file");
}

CASE(offsets_choose_the_page) {
  int file = lettered("file", 8);
  void* at = map(file, 2 * kPage, PROT_READ, MAP_SHARED, 3 * kPage);
  CHECK(*bytes(at) == 'd' && *bytes(at, kPage) == 'e');
  CHECK_ERRNO(failing(file, kPage, PROT_READ, MAP_SHARED, 100), EINVAL);
  munmap(at, 2 * kPage);
  // Parts of one file side by side, in another order: a file's rewiring.
  void* base = map_anonymous(8 * kPage, PROT_NONE);
  for (size_t i = 0; i < 8; ++i) {
    void* page = offset(base, i * kPage);
    REQUIRE(mmap(page, kPage, kReadWrite, MAP_SHARED | MAP_FIXED, file,
                 static_cast<off_t>((7 - i) * kPage)) == page);
  }
  for (size_t i = 0; i < 8; ++i) CHECK_EQ(*bytes(base, i * kPage), 'a' + (7 - i));
  *bytes(base, 7 * kPage) = '!';
  char byte = 0;
  CHECK_EQ(pread(file, &byte, 1, 0), 1);
  CHECK_EQ(byte, '!');
  munmap(base, 8 * kPage);
  close(file);
  unlink("file");
}

CASE(access_mode_of_the_descriptor_decides) {
  close(lettered("file", 1));
  int reader = open("file", O_RDONLY | O_CLOEXEC), writer = open("file", O_WRONLY | O_CLOEXEC);
  CHECK_ERRNO(failing(reader, kPage, kReadWrite, MAP_SHARED), EACCES);
  CHECK_ERRNO(failing(reader, kPage, PROT_WRITE, MAP_SHARED), EACCES);
  CHECK_ERRNO(failing(writer, kPage, PROT_READ, MAP_PRIVATE), EACCES);
  CHECK_ERRNO(failing(writer, kPage, PROT_WRITE, MAP_SHARED), EACCES);
  void* at = map(reader, kPage, kReadWrite, MAP_PRIVATE);
  *bytes(at) = 'p';
  munmap(at, kPage);
  at = map(reader, kPage, PROT_READ, MAP_SHARED);
  CHECK_ERRNO(mprotect(at, kPage, kReadWrite), EACCES);
  CHECK(is(fault_of([=] { *bytes(at) = 1; }), SIGSEGV, SEGV_ACCERR, at));
  munmap(at, kPage);
  Pipe pipe;
  CHECK_ERRNO(failing(pipe.in(), kPage, PROT_READ, MAP_PRIVATE), ENODEV);
  int directory = open(".", O_RDONLY | O_CLOEXEC);
  CHECK_ERRNO(failing(directory, kPage, PROT_READ, MAP_PRIVATE), ENODEV);
  CHECK_ERRNO(failing(reader, 0, PROT_READ, MAP_PRIVATE), EINVAL);
  CHECK_ERRNO(failing(reader, kPage, PROT_READ, MAP_SHARED_VALIDATE | MAP_SYNC), EOPNOTSUPP);
  for (int unknown : {MAP_FIXED_NOREPLACE, 1 << 21})
    CHECK_ERRNO(failing(reader, kPage, PROT_READ, MAP_SHARED_VALIDATE | unknown), EOPNOTSUPP);
  for (int kind : {MAP_SHARED, MAP_PRIVATE}) {
    CHECK_ERRNO(failing(reader, kPage, PROT_READ, kind | MAP_HUGETLB), EINVAL);
    CHECK_ERRNO(failing(reader, kPage, PROT_READ, kind | MAP_GROWSDOWN), EINVAL);
  }
  CHECK_ERRNO(failing(-1, kPage, PROT_READ, MAP_SHARED | MAP_ANONYMOUS | MAP_GROWSDOWN), EINVAL);
  CHECK_ERRNO(failing(reader, kPage, PROT_READ, 0), EINVAL);
  close(directory);
  close(reader);
  close(writer);
  unlink("file");
}

CASE(memory_sealed_against_later_writes_is_mapped_for_reading) {
  int file = memfd_create("sealed", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  REQUIRE(file != -1 && ftruncate(file, kPage) == 0);
  void* before = map(file, kPage, kReadWrite, MAP_SHARED);
  REQUIRE(fcntl(file, F_ADD_SEALS, F_SEAL_FUTURE_WRITE) == 0);
  CHECK_ERRNO(failing(file, kPage, kReadWrite, MAP_SHARED), EPERM);
  CHECK_ERRNO(failing(file, kPage, PROT_WRITE, MAP_SHARED), EPERM);
  void* at = map(file, kPage, PROT_READ, MAP_SHARED);
  *bytes(before) = 'w';
  CHECK_EQ(*bytes(at), 'w');
  CHECK_ERRNO(mprotect(at, kPage, kReadWrite), EACCES);
  munmap(at, kPage);
  munmap(before, kPage);
  close(file);
}

CASE(mincore_tells_what_is_cached_of_a_file) {
  int file = lettered("file", 4);
  REQUIRE(ftruncate(file, 8 * kPage) == 0);
  for (int flags : {MAP_SHARED, MAP_PRIVATE}) {
    void* at = map(file, 8 * kPage, kReadWrite, flags);
    unsigned char cached[8];
    CHECK_EQ(mincore(at, 8 * kPage, cached), 0);
    for (int i = 0; i < 8; ++i) CHECK_EQ(cached[i], i < 4 ? 1 : 0);
    CHECK_EQ(mincore(offset(at, 3 * kPage), 2 * kPage, cached), 0);
    CHECK(cached[0] == 1 && cached[1] == 0);
    munmap(at, 8 * kPage);
  }
  close(file);
  unlink("file");
}

CASE(mapping_of_a_terabyte_of_a_sparse_file) {
  int file = memfd_create("sparse", MFD_CLOEXEC);
  const size_t length = 1024 * kGiB;
  REQUIRE(ftruncate(file, length) == 0);
  void* at = mmap(nullptr, length, kReadWrite, MAP_SHARED, file, 0);
  close(file);
  if (at == MAP_FAILED) {
    CHECK_EQ(errno, ENOMEM);
    SKIP("no room for a terabyte");
  }
  *bytes(at, length - 1) = 1;
  munmap(at, length);
}

CASE(shared_memory_without_reservation_may_exceed_all_memory) {
  const size_t length = 40 * kGiB;
  void* at = map(-1, length, kReadWrite, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE);
  *bytes(at, length - 1) = 1;
  CHECK_EQ(*bytes(at), 0);
  munmap(at, length);
}

// Through a shared mapping for reading, Linux makes one since 6.7.
CASE(a_hole_is_made_only_through_a_mapping_that_may_be_written) {
  int file = lettered("file", 3);
  void* of_its_own = map(file, kPage, kReadWrite, MAP_PRIVATE);
  void* shared = map(file, kPage, kReadWrite, MAP_SHARED, 2 * kPage);
  CHECK_ERRNO(madvise(of_its_own, kPage, MADV_REMOVE), EACCES);
  char byte = 0;
  CHECK(pread(file, &byte, 1, 0) == 1 && byte == 'a');
  if (madvise(shared, kPage, MADV_REMOVE) == 0) CHECK(all_are(shared, kPage, 0));
  for (void* at : {of_its_own, shared}) munmap(at, kPage);
  close(file);
  unlink("file");
}

CASE(mapping_outlives_close_and_unlink) {
  int file = lettered("file", 2);
  void* at = map(file, 2 * kPage, kReadWrite, MAP_SHARED);
  close(file);
  unlink("file");
  CHECK(all_are(at, kPage, 'a'));
  memset(at, 'Z', 2 * kPage);
  CHECK(all_are(at, 2 * kPage, 'Z'));
  munmap(at, 2 * kPage);
}

CASE(code_is_executed_from_a_file) {
  int file = memfd_create("code", MFD_CLOEXEC);
  unsigned char code[] = {0x8d, 0x47, 0x07, 0xc3};  // lea eax, [rdi + 7]; ret
  REQUIRE(ftruncate(file, kPage) == 0 && pwrite(file, code, sizeof code, 0) == sizeof code);
  for (int flags : {MAP_PRIVATE, MAP_SHARED}) {
    void* at = map(file, kPage, PROT_READ | PROT_EXEC, flags);
    CHECK_EQ(reinterpret_cast<int (*)(int)>(at)(35), 42);
    munmap(at, kPage);
    at = map(file, kPage, PROT_READ, flags);
    CHECK(is(fault_of([=] { reinterpret_cast<int (*)(int)>(at)(1); }), SIGSEGV, SEGV_ACCERR, at));
    munmap(at, kPage);
  }
  close(file);
}

CASE(files_of_a_noexec_mount_are_not_executed) {
  REQUIRE(mkdir("mounted", 0700) == 0);
  if (mount("none", "mounted", "tmpfs", MS_NOEXEC, nullptr) != 0) {
    rmdir("mounted");
    SKIP("it takes root to mount");
  }
  int file = open("mounted/file", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  REQUIRE(file != -1 && ftruncate(file, kPage) == 0);
  for (int kind : {MAP_PRIVATE, MAP_SHARED}) {
    CHECK_ERRNO(failing(file, kPage, PROT_READ | PROT_EXEC, kind), EPERM);
    void* at = map(file, kPage, kReadWrite, kind);
    CHECK_ERRNO(mprotect(at, kPage, PROT_READ | PROT_EXEC), EACCES);
    CHECK_EQ(mprotect(at, kPage, PROT_READ), 0);
    CHECK_EQ(*bytes(at), 0);
    munmap(at, kPage);
  }
  close(file);
  CHECK_EQ(umount("mounted"), 0);
  rmdir("mounted");
}

CASE(code_of_the_program_itself_can_be_mapped_again) {
  int file = open(check::self.c_str(), O_RDONLY | O_CLOEXEC);
  REQUIRE(file != -1);
  void* at = map(file, kPage, PROT_READ | PROT_EXEC, MAP_PRIVATE);
  CHECK(memcmp(at, "\177ELF", 4) == 0);
  munmap(at, kPage);
  close(file);
}

CASE(shared_file_mapping_is_shared_with_children) {
  int file = lettered("file", 4);
  void* at = map(file, 4 * kPage, kReadWrite, MAP_SHARED);
  void* own = map(file, 4 * kPage, kReadWrite, MAP_PRIVATE);
  *bytes(own) = '1';
  CHECK(exited(run_child([=] {
    memset(offset(at, kPage), 'C', kPage);
    CHECK_EQ(*bytes(own), '1');
    *bytes(own) = '2';
    *bytes(own, 2 * kPage) = '3';
  })));
  CHECK(all_are(offset(at, kPage), kPage, 'C'));
  CHECK_EQ(*bytes(own), '1');
  CHECK_EQ(*bytes(own, 2 * kPage), 'c');
  munmap(at, 4 * kPage);
  munmap(own, 4 * kPage);
  close(file);
  unlink("file");
}

CASE(private_file_pages_follow_the_file_until_they_are_written) {
  int file = memfd_create("private", MFD_CLOEXEC);
  REQUIRE(ftruncate(file, 2 * kPage) == 0);
  void* at = map(file, 2 * kPage, kReadWrite, MAP_PRIVATE);
  *bytes(at) = 'w';  // the first page is ours now
  REQUIRE(pwrite(file, "12", 2, 0) == 2);
  CHECK(*bytes(at) == 'w' && *bytes(at, 1) == 0);
  madvise(at, kPage, MADV_DONTNEED);
  CHECK(*bytes(at) == '1' && *bytes(at, 1) == '2');  // dropped: the file shines through again
  munmap(at, 2 * kPage);
  close(file);
}

CASE(parts_can_be_unmapped_protected_and_moved) {
  int file = lettered("file", 8);
  void* at = map(file, 8 * kPage, kReadWrite, MAP_SHARED);
  munmap(offset(at, 2 * kPage), 2 * kPage);
  mprotect(offset(at, 5 * kPage), kPage, PROT_READ);
  CHECK(layout_is(at, 8 * kPage, "rw-s:2 hole:2 rw-s:1 r--s:1 rw-s:2"));
  void* target = map_anonymous(kPage);
  CHECK(mremap(offset(at, 6 * kPage), kPage, kPage, MREMAP_MAYMOVE | MREMAP_FIXED, target) ==
        target);
  CHECK(all_are(target, kPage, 'g'));
  *bytes(target) = 'G';
  char byte = 0;
  CHECK_EQ(pread(file, &byte, 1, 6 * kPage), 1);
  CHECK_EQ(byte, 'G');
  CHECK_EQ(*bytes(at, 7 * kPage), 'h');
  munmap(at, 8 * kPage);
  munmap(target, kPage);
  close(file);
  unlink("file");
}

CASE(mapping_grows_with_mremap) {
  int file = lettered("file", 8);
  void* at = map(file, 2 * kPage, kReadWrite, MAP_SHARED);
  at = mremap(at, 2 * kPage, 8 * kPage, MREMAP_MAYMOVE);
  REQUIRE(at != MAP_FAILED);
  for (size_t i = 0; i < 8; ++i) CHECK_EQ(*bytes(at, i * kPage), 'a' + i);
  munmap(at, 8 * kPage);
  close(file);
  unlink("file");
}

CASE(large_file_mapping_of_four_megabytes) {
  int file = memfd_create("large", MFD_CLOEXEC);
  const size_t length = 4 * kMiB + 123;
  REQUIRE(ftruncate(file, length) == 0);
  void* at = map(file, length, kReadWrite, MAP_SHARED);
  fill(at, length, 1);
  for (size_t i = 0; i < length - 8; i += 100 * kPage) {
    uint64_t word = 0;
    REQUIRE(pread(file, &word, 8, static_cast<off_t>(i)) == 8 && word == mix(1, i));
  }
  munmap(at, length);
  at = map(file, length, PROT_READ, MAP_PRIVATE);
  CHECK(filled(at, length, 1));
  munmap(at, length);
  close(file);
}

CASE(zero_device) {
  int zero = open("/dev/zero", O_RDWR | O_CLOEXEC);
  REQUIRE(zero != -1);
  void* own = map(zero, 2 * kPage, kReadWrite, MAP_PRIVATE);
  CHECK(all_are(own, 2 * kPage, 0));
  *bytes(own) = 1;
  void* shared = map(zero, kPage, kReadWrite, MAP_SHARED);
  CHECK(exited(run_child([=] {
    *bytes(shared) = 7;
    *bytes(own) = 7;
  })));
  CHECK_EQ(*bytes(shared), 7);
  CHECK_EQ(*bytes(own), 1);
  munmap(own, 2 * kPage);
  munmap(shared, kPage);
  close(zero);
}

CASE(posix_shared_memory) {
  std::string name = "/conformance-" + std::to_string(getpid());
  int file = shm_open(name.c_str(), O_RDWR | O_CREAT | O_EXCL, 0600);
  if (file == -1) SKIP("no /dev/shm");
  REQUIRE(ftruncate(file, 2 * kPage) == 0);
  void* at = map(file, 2 * kPage, kReadWrite, MAP_SHARED);
  CHECK(exited(run_child([&] {
    int again = shm_open(name.c_str(), O_RDWR, 0);
    REQUIRE(again != -1);
    void* mine = map(again, 2 * kPage, kReadWrite, MAP_SHARED);
    strcpy(offset(mine, kPage), "from the child");
  })));
  CHECK(strcmp(offset(at, kPage), "from the child") == 0);
  CHECK_EQ(shm_unlink(name.c_str()), 0);
  munmap(at, 2 * kPage);
  close(file);
}

CASE(maps_name_the_file) {
  int file = lettered("named-file", 2);
  void* at = map(file, 2 * kPage, PROT_READ, MAP_SHARED, 0);
  bool found = false;
  for (const MapLine& line : read_maps()) {
    if (line.start != reinterpret_cast<uintptr_t>(at)) continue;
    found = line.permissions == "r--s" && line.end - line.start == 2 * kPage &&
            line.name.find("/named-file") != std::string::npos;
  }
  CHECK(found);
  munmap(at, 2 * kPage);
  close(file);
  unlink("named-file");
}

CASE(synchronous_write_back) {
  int file = lettered("file", 2);
  void* at = map(file, 2 * kPage, kReadWrite, MAP_SHARED);
  *bytes(at) = 'S';
  CHECK_EQ(msync(at, kPage, MS_SYNC), 0);
  CHECK_EQ(msync(at, kPage, MS_ASYNC | MS_INVALIDATE), 0);
  CHECK_EQ(madvise(at, 2 * kPage, MADV_DONTNEED), 0);
  CHECK_EQ(*bytes(at), 'S');  // shared memory loses nothing
  CHECK_EQ(madvise(at, 2 * kPage, MADV_WILLNEED), 0);
  CHECK_ERRNO(madvise(at, 2 * kPage, MADV_FREE), EINVAL);
  munmap(at, 2 * kPage);
  close(file);
  unlink("file");
}

CHECK_MAIN
