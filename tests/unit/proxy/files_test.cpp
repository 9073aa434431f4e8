// Files, pipes and names, by real system calls.
#include <dirent.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <catch2/catch.hpp>

#include "tests/unit/proxy/fake_program.h"

using namespace dbos;
using namespace dbos::test;

namespace {

// A file without a name, open for the duration of a test.
struct TemporaryFile {
  TemporaryFile() : descriptor(open("/tmp", O_TMPFILE | O_RDWR, 0600)) {}
  ~TemporaryFile() { close(descriptor); }
  int descriptor;
};

std::string pattern(size_t size) {
  std::string text(size, '\0');
  for (size_t i = 0; i < size; i++) text[i] = static_cast<char>('a' + (i * 7 + i / 4096) % 26);
  return text;
}

// A buffer of the program with this text in it.
uint64_t buffer_of(const std::string& text, Layout layout = Layout::kScattered) {
  const uint64_t address = program().map(text.size() / kPageSize + 2, layout) + 100;
  program().write(address, text.data(), text.size());
  return address;
}

}  // namespace

TEST_CASE("data moves in one piece, whatever its frames") {
  const size_t size = GENERATE(1, 511, 513, 4096, 5000, 20000, 100000, 3000000);
  const Layout layout = GENERATE(Layout::kContiguous, Layout::kScattered);
  TemporaryFile file;
  const auto fd = static_cast<uint64_t>(file.descriptor);
  const std::string text = pattern(size);
  const auto length = static_cast<int64_t>(size);
  CHECK(call(SYS_write, fd, buffer_of(text, layout), size) == length);
  CHECK(call(SYS_lseek, fd, 0, SEEK_SET) == 0);
  const uint64_t buffer = program().map(size / kPageSize + 2, layout) + 77;
  CHECK(call(SYS_read, fd, buffer, size) == length);
  CHECK(program().text(buffer, size) == text);
  CHECK(program().get<uint8_t>(buffer + size) == 0xee);
  CHECK(call(SYS_pwrite64, fd, buffer_of(text, layout), size, 10) == length);
  const uint64_t again = program().map(size / kPageSize + 2, layout) + 77;
  CHECK(call(SYS_pread64, fd, again, size + 5, 10) == length);
  CHECK(program().text(again, size) == text);
}

TEST_CASE("a contiguous buffer goes to Linux as it is") {
  TemporaryFile file;
  const uint64_t buffer = buffer_of(pattern(8192), Layout::kContiguous);
  CHECK(call(SYS_write, static_cast<uint64_t>(file.descriptor), buffer, 8192) == 8192);
  CHECK(program().host_calls == std::vector<uint32_t>{SYS_write});
}

TEST_CASE("a transfer with more pieces than Linux takes iovecs is not cut short on a file") {
  const size_t size = 6 * kMiB;
  TemporaryFile file;
  const auto fd = static_cast<uint64_t>(file.descriptor);
  const std::string text = pattern(size);
  CHECK(call(SYS_write, fd, buffer_of(text), size) == static_cast<int64_t>(size));
  CHECK(program().host_calls.size() == 4);  // two parts, and two looks at the descriptor
  const uint64_t buffer = program().map(size / kPageSize + 2);
  CHECK(call(SYS_pread64, fd, buffer, size, 0) == static_cast<int64_t>(size));
  CHECK(program().text(buffer, size) == text);
}

TEST_CASE("a large buffer for little data is not made present as a whole") {
  int ends[2];
  REQUIRE(pipe(ends) == 0);
  REQUIRE(write(ends[1], "abc", 3) == 3);
  const uint64_t buffer = program().map(3000, Layout::kContiguous);
  program().resolved_bytes = 0;
  CHECK(call(SYS_read, static_cast<uint64_t>(ends[0]), buffer, 3000 * kPageSize) == 3);
  CHECK(program().resolved_bytes <= 2 * kMiB);
  CHECK(program().text(buffer, 3) == "abc");
  close(ends[0]);
  close(ends[1]);
  const auto zero = static_cast<uint64_t>(open("/dev/zero", O_RDONLY));
  CHECK(call(SYS_read, zero, buffer, 3000 * kPageSize) == 3000 * int64_t{kPageSize});
  CHECK(program().get<uint8_t>(buffer + 3000 * kPageSize - 1) == 0);
  close(static_cast<int>(zero));
}

TEST_CASE("threads that read at one position of a file get bytes that follow each other") {
  const size_t size = 8 * kMiB;
  TemporaryFile file;
  const auto fd = static_cast<uint64_t>(file.descriptor);
  REQUIRE(ftruncate(file.descriptor, static_cast<off_t>(size)) == 0);
  const uint64_t buffer = program().map(size / kPageSize + 1, Layout::kContiguous);
  CHECK(call(SYS_read, fd, buffer, size) == static_cast<int64_t>(size));
  CHECK(program().host_calls == std::vector<uint32_t>{SYS_fstat, SYS_lseek, SYS_read});
  CHECK(call(SYS_pread64, fd, buffer, size, 4096) == static_cast<int64_t>(size - 4096));
  CHECK(program().host_calls == std::vector<uint32_t>{SYS_fstat, SYS_pread64});
}

TEST_CASE("of a large buffer is made present what the file still has") {
  TemporaryFile file;
  const auto fd = static_cast<uint64_t>(file.descriptor);
  REQUIRE(ftruncate(file.descriptor, 5 * kMiB + 77) == 0);
  const uint64_t buffer = program().map(3000, Layout::kContiguous);
  program().resolved_bytes = 0;
  CHECK(call(SYS_pread64, fd, buffer, 3000 * kPageSize, 4 * kMiB) == kMiB + 77);
  CHECK(program().resolved_bytes == 2 * kMiB);
  program().resolved_bytes = 0;
  CHECK(call(SYS_pread64, fd, buffer, 3000 * kPageSize, 6 * kMiB) == 0);
  CHECK(program().resolved_bytes == 2 * kMiB);
  CHECK(call(SYS_pread64, fd, buffer, 3000 * kPageSize, 5) == 5 * kMiB + 72);
}

TEST_CASE("who reads when memory has run out is killed once there is more data than memory") {
  int ends[2];
  REQUIRE(pipe(ends) == 0);
  REQUIRE(write(ends[1], "abc", 3) == 3);
  const auto zero = static_cast<uint64_t>(open("/dev/zero", O_RDONLY));
  const uint64_t buffer = program().map(100);
  const auto is_killed = [](uint64_t pages_left, long number, uint64_t fd, uint64_t address) {
    program().kills_for_memory = 0;
    program().resolved_bytes = 0;
    program().resolved_bytes_max = pages_left * kPageSize;
    (void)call(number, fd, address, 100 * kPageSize);
    program().resolved_bytes_max = UINT64_MAX;
    return program().kills_for_memory != 0;  // here it comes back, and may come again
  };
  CHECK_FALSE(is_killed(4, SYS_read, static_cast<uint64_t>(ends[0]), buffer));
  CHECK(program().text(buffer, 3) == "abc");
  CHECK(is_killed(4, SYS_read, zero, buffer));
  CHECK(is_killed(0, SYS_read, zero, buffer));
  CHECK(is_killed(4, SYS_write, static_cast<uint64_t>(ends[1]), buffer));
  CHECK_FALSE(is_killed(200, SYS_read, zero, buffer));
  close(ends[0]);
  close(ends[1]);
  close(static_cast<int>(zero));
}

TEST_CASE("a buffer that is aligned for O_DIRECT stays so") {
  const uint64_t size = GENERATE(512, 4096, 8192);
  TemporaryFile file;
  const uint64_t buffer = program().map(4);
  program().resolved_bytes = 0;
  CHECK(call(SYS_write, static_cast<uint64_t>(file.descriptor), buffer, size) ==
        static_cast<int64_t>(size));
  CHECK(program().resolved_bytes == size);
}

TEST_CASE("iovecs whose buffers are scattered") {
  TemporaryFile file;
  const auto fd = static_cast<uint64_t>(file.descriptor);
  const std::string parts[] = {"abc", pattern(40000), "", pattern(600)};
  struct {
    iovec vectors[4];
  } array;
  for (int i = 0; i < 4; i++) {
    array.vectors[i] = {reinterpret_cast<void*>(buffer_of(parts[i])), parts[i].size()};
  }
  CHECK(call(SYS_writev, fd, program().put(array), 4) == 40603);
  for (int i = 0; i < 4; i++) {
    array.vectors[i].iov_base = reinterpret_cast<void*>(program().across_pages(parts[i].size()));
  }
  CHECK(call(SYS_preadv, fd, program().put(array), 4, 0, 0) == 40603);
  for (int i = 0; i < 4; i++) {
    const uint64_t base = reinterpret_cast<uint64_t>(array.vectors[i].iov_base);
    CHECK(program().text(base, parts[i].size()) == parts[i]);
  }
  CHECK(call(SYS_readv, fd, program().put(array), 1025) == -EINVAL);
  CHECK(call(SYS_readv, 12345, program().put(array), 1025) == -EBADF);
  CHECK(call(SYS_readv, fd, 0x1000, 2) == -EFAULT);
}

TEST_CASE("many iovecs across page ends are gathered, so that a write to a pipe stays whole") {
  int ends[2];
  REQUIRE(pipe2(ends, O_NONBLOCK) == 0);
  std::vector<iovec> vectors;
  for (int i = 0; i < 1000; i++) {
    const uint64_t address = program().map(2) + kPageSize - 2;
    program().write(address, "wxyz", 4);
    vectors.push_back({reinterpret_cast<void*>(address), 4});
  }
  const uint64_t array = program().map(5);
  program().write(array, vectors.data(), vectors.size() * sizeof(iovec));
  CHECK(call(SYS_writev, static_cast<uint64_t>(ends[1]), array, 1000) == 4000);
  CHECK(program().host_calls.size() == 1);
  char text[4001] = {};
  CHECK(read(ends[0], text, 4000) == 4000);
  CHECK(std::string(text + 3992) == "wxyzwxyz");
  close(ends[0]);
  close(ends[1]);
}

TEST_CASE("nothing is made for a buffer that runs past the last address") {
  const int before = dup(0);
  close(before);
  for (const uint64_t address : {~uint64_t{0}, ~uint64_t{3}, kProgramEnd - 2}) {
    CHECK(call(SYS_pipe, address) == -EFAULT);
    CHECK(call(SYS_socketpair, AF_UNIX, SOCK_STREAM, 0, address) == -EFAULT);
  }
  const int after = dup(0);
  close(after);
  CHECK(after == before);
}

TEST_CASE("EFAULT where Linux finds it") {
  TemporaryFile file;
  const auto fd = static_cast<uint64_t>(file.descriptor);
  int ends[2];
  REQUIRE(pipe2(ends, O_NONBLOCK) == 0);
  const auto reader = static_cast<uint64_t>(ends[0]);
  const auto writer = static_cast<uint64_t>(ends[1]);
  const uint64_t end = program().map(1) + kPageSize;

  SECTION("unmapped") {
    CHECK(call(SYS_write, fd, 0x1000, 10) == -EFAULT);
    CHECK(call(SYS_write, 12345, 0x1000, 10) == -EBADF);
    CHECK(call(SYS_write, fd, 0x1000, 0) == 0);
    CHECK(call(SYS_write, fd, 0, 10) == -EFAULT);
    CHECK(call(SYS_write, fd, ~uint64_t{0} - 5, 10) == -EFAULT);
    CHECK(call(SYS_read, fd, end - 1, ~uint64_t{0}) == -EFAULT);
  }
  SECTION("a prefix is written to a file") {
    CHECK(call(SYS_write, fd, end - 10, 20) == 10);
    CHECK(call(SYS_write, fd, end - 1000, 2000) == 1000);
    CHECK(call(SYS_write, fd, end - 1000, uint64_t{1} << 30) == 1000);
  }
  SECTION("a prefix is read from a pipe") {
    REQUIRE(write(ends[1], pattern(3000).data(), 3000) == 3000);
    const int64_t result = call(SYS_read, reader, end - 1000, 3000);
    CHECK((result == 1000 || result == -EFAULT));
  }
  SECTION("a pipe without data has no EFAULT") {
    CHECK(call(SYS_read, reader, 0x1000, 10) == -EAGAIN);
  }
  SECTION("read-only memory") {
    const uint64_t constant = program().map(1, Layout::kContiguous, Rights::kReadOnly);
    REQUIRE(write(ends[1], "text", 4) == 4);
    CHECK(call(SYS_read, reader, constant, 4) == -EFAULT);
    CHECK(call(SYS_write, writer, constant, 4) == 4);
  }
  SECTION("structures and names") {
    CHECK(call(SYS_fstat, fd, 0x1000) == -EFAULT);
    CHECK(call(SYS_fstat, 12345, 0x1000) == -EBADF);
    CHECK(call(SYS_fstat, fd, end - 100) == -EFAULT);
    CHECK(call(SYS_openat, static_cast<uint64_t>(AT_FDCWD), 0x1000, O_RDONLY) == -EFAULT);
    CHECK(call(SYS_openat, static_cast<uint64_t>(AT_FDCWD), 0, O_RDONLY) == -EFAULT);
    CHECK(call(SYS_pipe2, 0x1000, 0) == -EFAULT);
    CHECK(call(SYS_getcwd, 0x1000, 4096) == -EFAULT);
  }
  close(ends[0]);
  close(ends[1]);
}

TEST_CASE("a path") {
  const auto here = static_cast<uint64_t>(AT_FDCWD);
  const int64_t fd = call(SYS_openat, here, program().put_text("/proc/version"), O_RDONLY);
  REQUIRE(fd >= 0);
  const uint64_t status = program().across_pages(144);
  CHECK(call(SYS_fstat, static_cast<uint64_t>(fd), status) == 0);
  CHECK(S_ISREG(program().get<struct stat>(status).st_mode));
  CHECK(call(SYS_close, static_cast<uint64_t>(fd)) == 0);
  CHECK(call(SYS_openat, here, program().put_text("/no/such/file"), O_RDONLY) == -ENOENT);
  CHECK(call(SYS_openat, here, program().put_text("/" + std::string(4094, 'x')), O_RDONLY) ==
        -ENAMETOOLONG);
  CHECK(call(SYS_openat, here, program().put_text(std::string(4096, '/')), O_RDONLY) ==
        -ENAMETOOLONG);
  CHECK(call(SYS_openat, here, program().put_text(std::string(4095, '/')), O_RDONLY) >= 0);
}

TEST_CASE("names and directories") {
  char host_directory[4096];
  REQUIRE(getcwd(host_directory, sizeof host_directory) != nullptr);
  const std::string directory = host_directory;
  const uint64_t buffer = program().across_pages(4096);
  CHECK(call(SYS_getcwd, buffer, 4096) == static_cast<int64_t>(directory.size() + 1));
  CHECK(program().text(buffer, directory.size()) == directory);
  CHECK(program().get<uint8_t>(buffer + directory.size() + 1) == 0xee);
  CHECK(call(SYS_getcwd, buffer, 1) == -ERANGE);
  CHECK(call(SYS_getcwd, buffer, ~uint64_t{0}) == static_cast<int64_t>(directory.size() + 1));

  const uint64_t link = program().put_text("/proc/self/cwd");
  CHECK(call(SYS_readlink, link, buffer, 4096) == static_cast<int64_t>(directory.size()));
  CHECK(call(SYS_readlink, link, buffer, 0) == -EINVAL);
  CHECK(call(SYS_readlink, link, buffer, static_cast<uint64_t>(-1)) == -EINVAL);
  CHECK(call(SYS_readlink, link, buffer, 3) == 3);

  const auto fd = static_cast<uint64_t>(open("/proc/self", O_RDONLY | O_DIRECTORY));
  const uint64_t entries = program().map(300);
  const int64_t bytes = call(SYS_getdents64, fd, entries, 1000000);
  CHECK(bytes > 500);
  CHECK(bytes <= 65536);
  CHECK(call(SYS_getdents64, fd, entries, 4) == 0);
  close(static_cast<int>(fd));

  const uint64_t statistics = program().across_pages(120);
  CHECK(call(SYS_statfs, program().put_text("/proc"), statistics) == 0);
  CHECK(program().get<struct statfs>(statistics).f_type == 0x9fa0);
}

TEST_CASE("offsets that Linux updates") {
  TemporaryFile from;
  TemporaryFile to;
  REQUIRE(write(from.descriptor, "0123456789", 10) == 10);
  const uint64_t offset = program().put(int64_t{3});
  CHECK(call(SYS_sendfile, static_cast<uint64_t>(to.descriptor),
             static_cast<uint64_t>(from.descriptor), offset, 4) == 4);
  CHECK(program().get<int64_t>(offset) == 7);
  const uint64_t out = program().put(int64_t{1});
  CHECK(call(SYS_copy_file_range, static_cast<uint64_t>(from.descriptor), offset,
             static_cast<uint64_t>(to.descriptor), out, 100, 0) == 3);
  CHECK(program().get<int64_t>(offset) == 10);
  CHECK(program().get<int64_t>(out) == 4);
}

TEST_CASE("descriptors by fcntl and ioctl") {
  int ends[2];
  REQUIRE(pipe(ends) == 0);
  const auto reader = static_cast<uint64_t>(ends[0]);
  REQUIRE(write(ends[1], "12345", 5) == 5);
  const uint64_t number = program().put(int32_t{0});
  CHECK(call(SYS_ioctl, reader, 0x541b /* FIONREAD */, number) == 0);
  CHECK(program().get<int32_t>(number) == 5);
  CHECK(call(SYS_ioctl, reader, 0x5413 /* TIOCGWINSZ */, number) == -ENOTTY);
  const uint64_t on = program().put(int32_t{1});
  CHECK(call(SYS_ioctl, reader, 0x5421 /* FIONBIO */, on) == 0);
  CHECK((fcntl(ends[0], F_GETFL) & O_NONBLOCK) != 0);
  CHECK(call(SYS_ioctl, reader, 0xabcdef, 0) == -ENOTTY);
  CHECK(program().log.find("ioctl request 0xabcdef") == 0);
  CHECK(call(SYS_ioctl, reader, 0xabcdef, 0) == -ENOTTY);
  CHECK(program().log.empty());
  const int64_t copy = call(SYS_fcntl, reader, F_DUPFD_CLOEXEC, 100);
  CHECK(copy >= 100);
  CHECK(call(SYS_close, static_cast<uint64_t>(copy)) == 0);
  TemporaryFile file;
  struct flock lock = {F_WRLCK, SEEK_SET, 0, 10, 0};
  CHECK(call(SYS_fcntl, static_cast<uint64_t>(file.descriptor), F_SETLK, program().put(lock)) == 0);
  const uint64_t asked = program().put(lock);
  CHECK(call(SYS_fcntl, static_cast<uint64_t>(file.descriptor), F_GETLK, asked) == 0);
  CHECK(program().get<struct flock>(asked).l_type == F_UNLCK);
  CHECK(call(SYS_fcntl, reader, 999, 0) == -EINVAL);
  CHECK(program().log.empty());
  CHECK(call(SYS_fcntl, 12345, 999, 0) == -EBADF);
  CHECK(call(SYS_ioctl, 12345, 0xabcdef, 0) == -EBADF);
  close(ends[0]);
  close(ends[1]);
}

TEST_CASE("random bytes") {
  const size_t size = GENERATE(1, 256, 5000, 100000);
  const uint64_t buffer = program().map(size / kPageSize + 2) + 100;
  CHECK(call(SYS_getrandom, buffer, size, 0) == static_cast<int64_t>(size));
  if (size >= 8) CHECK(program().text(buffer, size) != std::string(size, '\xee'));
  CHECK(program().get<uint8_t>(buffer + size) == 0xee);
  CHECK(call(SYS_getrandom, 0x1000, 10, 0) == -EFAULT);
}
