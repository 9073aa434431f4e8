// Open files: offsets, appending, truncation, holes, allocation, copying, locks, flags, syncing,
// large offsets; what is read and written where.
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>

#include <thread>

#include "support.h"

namespace {
int create(const char* name, int flags = 0) {
  unlink(name);
  int file = open(name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | flags, 0600);
  REQUIRE(file != -1);
  return file;
}
void put(int file, const std::string& text) {
  REQUIRE(write(file, text.data(), text.size()) == static_cast<ssize_t>(text.size()));
}
off_t size_of(int file) {
  struct stat info = {};
  REQUIRE(fstat(file, &info) == 0);
  return info.st_size;
}
std::string content(int file) {
  std::string text(static_cast<size_t>(size_of(file)), 0);
  REQUIRE(pread(file, text.data(), text.size(), 0) == static_cast<ssize_t>(text.size()));
  return text;
}
}  // namespace

CASE(open_flags) {
  int file = create("file");
  put(file, "abc");
  close(file);
  CHECK_ERRNO(open("file", O_RDWR | O_CREAT | O_EXCL, 0600), EEXIST);
  CHECK_ERRNO(open("missing", O_RDWR), ENOENT);
  CHECK_ERRNO(open("file/x", O_RDWR), ENOTDIR);
  CHECK_ERRNO(open("file", O_RDONLY | O_DIRECTORY), ENOTDIR);
  CHECK_ERRNO(open(".", O_RDWR), EISDIR);
  CHECK_ERRNO(open("", O_RDONLY), ENOENT);
  file = open("file", O_RDONLY | O_CLOEXEC);
  CHECK_ERRNO(write(file, "x", 1), EBADF);
  close(file);
  file = open("file", O_WRONLY | O_TRUNC | O_CLOEXEC);
  char byte = 0;
  CHECK_ERRNO(read(file, &byte, 1), EBADF);
  CHECK_EQ(size_of(file), 0);
  close(file);
  REQUIRE(symlink("file", "link") == 0);
  CHECK_ERRNO(open("link", O_RDONLY | O_NOFOLLOW), ELOOP);
  int path = open("file", O_PATH | O_CLOEXEC);
  CHECK(path >= 0);
  CHECK_ERRNO(read(path, &byte, 1), EBADF);
  CHECK_EQ(size_of(path), 0);
  close(path);
  unlink("link");
  unlink("file");
}

CASE(offsets_and_seeks) {
  int file = create("file");
  put(file, "0123456789");
  CHECK_EQ(lseek(file, 0, SEEK_CUR), 10);
  CHECK_EQ(lseek(file, -3, SEEK_END), 7);
  char text[10] = "";
  CHECK_EQ(read(file, text, 10), 3);
  CHECK_EQ(read(file, text, 10), 0);
  CHECK_EQ(lseek(file, 100, SEEK_SET), 100);
  CHECK_EQ(read(file, text, 1), 0);
  CHECK_EQ(size_of(file), 10);
  CHECK_ERRNO(lseek(file, -1, SEEK_SET), EINVAL);
  CHECK_ERRNO(lseek(file, 0, 99), EINVAL);
  CHECK_ERRNO(lseek(-1, 0, SEEK_SET), EBADF);
  CHECK_EQ(pread(file, text, 10, 5), 5);
  CHECK_EQ(pread(file, text, 10, 10), 0);
  CHECK_EQ(pread(file, text, 10, 1000000), 0);
  CHECK_ERRNO(pread(file, text, 1, -1), EINVAL);
  CHECK_EQ(pwrite(file, "X", 1, 2), 1);
  CHECK_EQ(lseek(file, 0, SEEK_CUR), 100);
  CHECK(content(file) == "01X3456789");
  close(file);
  unlink("file");
}

CASE(append_always_goes_to_the_end) {
  int first = create("file", O_APPEND), second = open("file", O_WRONLY | O_APPEND | O_CLOEXEC);
  put(first, "one");
  put(second, "two");
  lseek(first, 0, SEEK_SET);
  put(first, "three");
  CHECK_EQ(pwrite(first, "four", 4, 0), 4);  // Linux appends even so
  CHECK(content(first) == "onetwothreefour");
  std::vector<std::thread> threads;
  REQUIRE(ftruncate(first, 0) == 0);
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([=] {
      for (int i = 0; i < 50; ++i)
        put(t % 2 == 0 ? first : second, std::string(10, static_cast<char>('a' + t)));
    });
  }
  for (auto& thread : threads) thread.join();
  std::string text = content(first);
  CHECK_EQ(text.size(), 2000);
  for (size_t i = 0; i < text.size(); i += 10)
    CHECK(text.substr(i, 10) == std::string(10, text[i]));
  close(first);
  close(second);
  unlink("file");
}

CASE(truncation_and_extension) {
  int file = create("file");
  put(file, "0123456789");
  CHECK_EQ(ftruncate(file, 4), 0);
  CHECK(content(file) == "0123");
  CHECK_EQ(ftruncate(file, 8), 0);
  CHECK(content(file) == std::string("0123\0\0\0\0", 8));
  CHECK_EQ(truncate("file", 2), 0);
  CHECK_EQ(size_of(file), 2);
  CHECK_ERRNO(ftruncate(file, -1), EINVAL);
  CHECK_ERRNO(truncate("missing", 1), ENOENT);
  int reader = open("file", O_RDONLY | O_CLOEXEC);
  CHECK_ERRNO(ftruncate(reader, 1), EINVAL);
  close(reader);
  close(file);
  unlink("file");
}

CASE(large_offsets) {
  int file = create("file");
  const off_t far = off_t{5} << 30;
  if (pwrite(file, "far", 3, far) != 3) SKIP("no large sparse files here");
  CHECK_EQ(size_of(file), far + 3);
  char text[4] = "";
  CHECK_EQ(pread(file, text, 4, far), 3);
  CHECK_EQ(lseek(file, -1, SEEK_END), far + 2);
  CHECK_EQ(pread(file, text, 4, far - 2), 4);
  CHECK(memcmp(text, "\0\0fa", 4) == 0);
  close(file);
  unlink("file");
}

CASE(holes_and_data_are_found) {
  int file = memfd_create("holes", MFD_CLOEXEC);
  REQUIRE(file != -1 && ftruncate(file, 16 * kPage) == 0);
  REQUIRE(pwrite(file, "x", 1, 4 * kPage) == 1);
  CHECK_EQ(lseek(file, 0, SEEK_DATA), 4 * kPage);
  CHECK_EQ(lseek(file, 0, SEEK_HOLE), 0);
  CHECK_EQ(lseek(file, 4 * kPage, SEEK_HOLE), 5 * kPage);
  CHECK_ERRNO(lseek(file, 5 * kPage, SEEK_DATA), ENXIO);
  CHECK_ERRNO(lseek(file, 17 * kPage, SEEK_HOLE), ENXIO);
  CHECK_EQ(fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 4 * kPage, kPage), 0);
  CHECK_ERRNO(lseek(file, 0, SEEK_DATA), ENXIO);
  close(file);
}

CASE(allocation) {
  int file = memfd_create("allocated", MFD_CLOEXEC);
  CHECK_EQ(fallocate(file, 0, 0, 3 * kPage), 0);
  CHECK_EQ(size_of(file), 3 * kPage);
  CHECK_EQ(fallocate(file, FALLOC_FL_KEEP_SIZE, 0, 8 * kPage), 0);
  CHECK_EQ(size_of(file), 3 * kPage);
  CHECK_EQ(posix_fallocate(file, 0, 4 * kPage), 0);
  CHECK_EQ(size_of(file), 4 * kPage);
  CHECK_ERRNO(fallocate(file, 0, -1, 10), EINVAL);
  CHECK_ERRNO(fallocate(file, 0, 0, 0), EINVAL);
  CHECK_EQ(posix_fadvise(file, 0, 0, POSIX_FADV_WILLNEED), 0);
  CHECK_EQ(posix_fadvise(file, 0, 0, 99), EINVAL);
  CHECK_EQ(readahead(file, 0, kPage), 0);
  close(file);
}

CASE(copying_inside_the_kernel) {
  int from = create("from"), to = create("to");
  std::string text(50000, 0);
  for (size_t i = 0; i < text.size(); ++i) text[i] = static_cast<char>(i % 127);
  put(from, text);
  off64_t in = 100, out = 50;
  ssize_t n = copy_file_range(from, &in, to, &out, 40000, 0);
  if (n == -1 && (errno == EXDEV || errno == EOPNOTSUPP || errno == ENOSYS)) {
    close(from);
    close(to);
    SKIP("copy_file_range is not supported here");
  }
  CHECK_EQ(n, 40000);
  CHECK(in == 40100 && out == 40050);
  CHECK(content(to) == std::string(50, 0) + text.substr(100, 40000));
  in = 60000;
  CHECK_EQ(copy_file_range(from, &in, to, &out, 10, 0), 0);
  CHECK_ERRNO(copy_file_range(from, &in, to, &out, 10, 1), EINVAL);
  close(from);
  close(to);
  unlink("from");
  unlink("to");
}

CASE(flock_belongs_to_the_open_file) {
  int first = create("lock"), second = open("lock", O_RDWR | O_CLOEXEC), copy = dup(first);
  CHECK_EQ(flock(first, LOCK_EX), 0);
  CHECK_ERRNO(flock(second, LOCK_EX | LOCK_NB), EWOULDBLOCK);
  CHECK_EQ(flock(copy, LOCK_EX | LOCK_NB), 0);
  CHECK(exited(
      run_child([=] { CHECK_EQ(flock(first, LOCK_EX | LOCK_NB), 0); })));  // shared through fork
  CHECK_EQ(flock(copy, LOCK_UN), 0);
  CHECK_EQ(flock(first, LOCK_SH), 0);
  CHECK_EQ(flock(second, LOCK_SH | LOCK_NB), 0);
  CHECK_ERRNO(flock(second, LOCK_EX | LOCK_NB), EWOULDBLOCK);
  CHECK_ERRNO(flock(first, 77), EINVAL);
  CHECK_ERRNO(flock(-1, LOCK_EX), EBADF);
  close(first);
  close(second);
  close(copy);
  unlink("lock");
}

CASE(record_locks_belong_to_the_process) {
  int file = create("lock");
  put(file, std::string(100, 'x'));
  auto lock = [=](int command, short type, off_t start, off_t length) {
    struct flock request = {};
    request.l_type = type;
    request.l_whence = SEEK_SET;
    request.l_start = start;
    request.l_len = length;
    int result = fcntl(file, command, &request);
    return result == -1         ? -errno
           : command == F_GETLK ? request.l_type * 1000 + static_cast<int>(request.l_start)
                                : 0;
  };
  CHECK_EQ(lock(F_SETLK, F_WRLCK, 10, 20), 0);
  CHECK_EQ(lock(F_SETLK, F_RDLCK, 50, 10), 0);
  CHECK_EQ(lock(F_GETLK, F_WRLCK, 0, 0) / 1000, F_UNLCK);
  pid_t self = getpid();
  CHECK(exited(run_child([=] {
    CHECK_EQ(lock(F_SETLK, F_WRLCK, 15, 1), -EAGAIN);
    CHECK_EQ(lock(F_SETLK, F_WRLCK, 55, 1), -EAGAIN);
    CHECK_EQ(lock(F_SETLK, F_RDLCK, 55, 1), 0);
    CHECK_EQ(lock(F_SETLK, F_WRLCK, 30, 20), 0);
    struct flock who = {};
    who.l_type = F_WRLCK;
    who.l_start = 0;
    who.l_len = 20;
    CHECK_EQ(fcntl(file, F_GETLK, &who), 0);
    CHECK_EQ(who.l_pid, self);
    CHECK_EQ(who.l_start, 10);
    CHECK_EQ(who.l_len, 20);
  })));
  CHECK_EQ(lock(F_SETLK, F_UNLCK, 0, 0), 0);
  CHECK(exited(run_child([=] { CHECK_EQ(lock(F_SETLK, F_WRLCK, 0, 0), 0); })));
  CHECK_EQ(lock(F_SETLK, 99, 0, 0), -EINVAL);
  close(file);
  unlink("lock");
}

CASE(record_lock_wait_ends_when_the_owner_dies) {
  int file = create("lock");
  struct flock whole = {};
  whole.l_type = F_WRLCK;
  Pipe ready;
  pid_t child = start_child([&] {
    REQUIRE(fcntl(file, F_SETLK, &whole) == 0);
    ready.post();
    for (;;) pause();
  });
  ready.take();
  CHECK_ERRNO(fcntl(file, F_SETLK, &whole), EAGAIN);
  std::thread killer([=] {
    sleep_ms(2);
    kill(child, SIGKILL);
  });
  CHECK_EQ(fcntl(file, F_SETLKW, &whole), 0);
  killer.join();
  CHECK(killed(status_of(child), SIGKILL));
  close(file);
  unlink("lock");
}

CASE(open_file_description_locks) {
  int first = create("lock"), second = open("lock", O_RDWR | O_CLOEXEC);
  struct flock whole = {};
  whole.l_type = F_WRLCK;
  CHECK_EQ(fcntl(first, F_OFD_SETLK, &whole), 0);
  CHECK_ERRNO(fcntl(second, F_OFD_SETLK, &whole), EAGAIN);
  close(first);
  CHECK_EQ(fcntl(second, F_OFD_SETLK, &whole), 0);
  close(second);
  unlink("lock");
}

CASE(status_flags_can_be_changed) {
  int file = create("file");
  CHECK_EQ(fcntl(file, F_GETFL) & (O_ACCMODE | O_APPEND | O_NONBLOCK), O_RDWR);
  CHECK_EQ(fcntl(file, F_SETFL, O_APPEND | O_NONBLOCK), 0);
  CHECK_EQ(fcntl(file, F_GETFL) & (O_ACCMODE | O_APPEND | O_NONBLOCK),
           O_RDWR | O_APPEND | O_NONBLOCK);
  CHECK_EQ(fcntl(file, F_GETFD), FD_CLOEXEC);
  CHECK_EQ(fcntl(file, F_SETFD, 0), 0);
  CHECK_EQ(fcntl(file, F_GETFD), 0);
  CHECK_ERRNO(fcntl(-1, F_GETFL), EBADF);
  close(file);
  unlink("file");
}

CASE(seals_protect_a_memory_file) {
  int file = memfd_create("sealed", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  REQUIRE(ftruncate(file, kPage) == 0);
  CHECK_EQ(fcntl(file, F_GET_SEALS), 0);
  CHECK_EQ(fcntl(file, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW), 0);
  CHECK_ERRNO(ftruncate(file, 0), EPERM);
  CHECK_ERRNO(ftruncate(file, 2 * kPage), EPERM);
  CHECK_EQ(pwrite(file, "x", 1, 0), 1);
  CHECK_EQ(fcntl(file, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SEAL), 0);
  CHECK_ERRNO(pwrite(file, "x", 1, 0), EPERM);
  CHECK_ERRNO(fcntl(file, F_ADD_SEALS, F_SEAL_WRITE), EPERM);
  CHECK(mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0) == MAP_FAILED);
  CHECK_EQ(errno, EPERM);
  close(file);
}

CASE(syncing) {
  int file = create("file");
  put(file, "to be kept");
  CHECK_EQ(fsync(file), 0);
  CHECK_EQ(fdatasync(file), 0);
  CHECK_EQ(sync_file_range(file, 0, 0, SYNC_FILE_RANGE_WRITE), 0);
  CHECK_ERRNO(sync_file_range(file, 0, 0, 99), EINVAL);
  CHECK_ERRNO(fsync(-1), EBADF);
  Pipe pipe;
  CHECK_ERRNO(fsync(pipe.in()), EINVAL);
  close(file);
  unlink("file");
}

CASE(file_system_information) {
  struct statfs one = {};
  struct statvfs two = {};
  CHECK_EQ(statfs(".", &one), 0);
  CHECK(one.f_bsize > 0 && one.f_namelen >= 200);
  CHECK_EQ(statvfs(".", &two), 0);
  CHECK_EQ(two.f_namemax, one.f_namelen);
  CHECK_ERRNO(statfs("missing", &one), ENOENT);
}

CASE(nameless_and_unlinked_files) {
  int file = create("file");
  put(file, "still here");
  unlink("file");
  CHECK(content(file) == "still here");
  struct stat info = {};
  CHECK_EQ(fstat(file, &info), 0);
  CHECK_EQ(info.st_nlink, 0);
  close(file);
  file = open(".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
  if (file == -1) SKIP("no O_TMPFILE here");
  put(file, "nameless");
  char path[64];
  snprintf(path, sizeof path, "/proc/self/fd/%d", file);
  CHECK_EQ(linkat(AT_FDCWD, path, AT_FDCWD, "named", AT_SYMLINK_FOLLOW), 0);
  CHECK(read_all("named") == "nameless");
  close(file);
  unlink("named");
}

CASE(standard_streams_of_the_library) {
  FILE* file = fopen("stream", "w+");
  REQUIRE(file != nullptr);
  for (int i = 0; i < 5000; ++i) fprintf(file, "line %d\n", i);
  CHECK_EQ(fseek(file, 0, SEEK_SET), 0);
  char line[32];
  int right = 0;
  for (int i = 0; fgets(line, sizeof line, file) != nullptr; ++i) right += atoi(line + 5) == i;
  CHECK_EQ(right, 5000);
  fclose(file);
  unlink("stream");
  fprintf(stderr, "standard error is compared too\n");
}

CHECK_MAIN
