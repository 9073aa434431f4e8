// Memory given to system calls: vectors of up to 1024 pieces, buffers in odd places and in
// fragmented pages, bad pointers and partly bad ones, buffers changed or shared while a call runs.
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/utsname.h>

#include <thread>

#include "support.h"

namespace {

int memory_file(const char* name, const std::string& text = "") {
  int file = memfd_create(name, MFD_CLOEXEC);
  REQUIRE(file != -1);
  REQUIRE(write(file, text.data(), text.size()) == static_cast<ssize_t>(text.size()));
  REQUIRE(lseek(file, 0, SEEK_SET) == 0);
  return file;
}
std::string pattern(size_t size, uint64_t seed = 1) {
  std::string text(size, 0);
  for (size_t i = 0; i < size; ++i) text[i] = static_cast<char>(mix(seed, i / 8) >> i % 8 * 8);
  return text;
}
// Two pages of which the second is not there.
struct Edge {
  char* base = static_cast<char*>(map_anonymous(2 * kPage));
  char* end = base + kPage;
  Edge() { munmap(end, kPage); }
  Edge(const Edge&) = delete;
  Edge& operator=(const Edge&) = delete;
  ~Edge() { munmap(base, kPage); }
};

// 16 MiB through a file and back, into the given buffers.
void round_trip(char* from, char* to, size_t size) {
  int file = memory_file("round");
  for (size_t done = 0; done < size;) {
    ssize_t n = pwrite(file, from + done, size - done, static_cast<off_t>(done));
    REQUIRE(n > 0);
    done += static_cast<size_t>(n);
  }
  for (size_t done = 0; done < size;) {
    ssize_t n = pread(file, to + done, size - done, static_cast<off_t>(done));
    REQUIRE(n > 0);
    done += static_cast<size_t>(n);
  }
  CHECK(memcmp(from, to, size) == 0);
  close(file);
}

}  // namespace

CASE(vectors_gather_and_scatter) {
  int file = memory_file("vectors");
  for (int count : {1, 2, 7, 100, 1024}) {
    std::vector<std::string> parts, back;
    std::vector<iovec> out, in;
    size_t total = 0;
    for (int i = 0; i < count; ++i) {
      parts.push_back(pattern(static_cast<size_t>(i * 37 % 200), static_cast<uint64_t>(i)));
      total += parts.back().size();
    }
    back = parts;
    for (auto& part : parts) out.push_back({part.data(), part.size()});
    for (auto& part : back) {
      std::fill(part.begin(), part.end(), 0);
      in.push_back({part.data(), part.size()});
    }
    CHECK_EQ(ftruncate(file, 0), 0);
    CHECK_EQ(lseek(file, 0, SEEK_SET), 0);
    CHECK_EQ(writev(file, out.data(), count), total);
    CHECK_EQ(lseek(file, 0, SEEK_SET), 0);
    CHECK_EQ(readv(file, in.data(), count), total);
    CHECK(back == parts);
    for (auto& part : back) std::fill(part.begin(), part.end(), 0);
    CHECK_EQ(pwritev(file, out.data(), count, 1000), total);
    CHECK_EQ(preadv(file, in.data(), count, 1000), total);
    CHECK(back == parts);
    CHECK_EQ(pwritev2(file, out.data(), count, 500, 0), total);
    CHECK_EQ(preadv2(file, in.data(), count, 500, 0), total);
  }
  close(file);
}

CASE(vectors_across_pages_that_are_not_there_yet) {
  int file = memory_file("fresh", pattern(kLarge));
  char* at = static_cast<char*>(map_aligned(2 * kLarge));
  iovec vectors[3] = {{at + 10, kMiB}, {at + kLarge - 5, 10}, {at + kLarge + 1000, kMiB - 10}};
  CHECK_EQ(preadv(file, vectors, 3, 0), kLarge);
  std::string text = pattern(kLarge);
  CHECK(memcmp(at + 10, text.data(), kMiB) == 0);
  CHECK(memcmp(at + kLarge - 5, text.data() + kMiB, 10) == 0);
  CHECK(memcmp(at + kLarge + 1000, text.data() + kMiB + 10, kMiB - 10) == 0);
  munmap(at, 2 * kLarge);
  close(file);
}

CASE(vectors_refuse_bad_arguments) {
  int file = memory_file("bad", "abc");
  char byte = 0;
  std::vector<iovec> many(1025, iovec{&byte, 0});
  CHECK_ERRNO(readv(file, many.data(), 1025), EINVAL);
  CHECK_ERRNO(syscall(SYS_readv, file, many.data(), -1), EINVAL);
  CHECK_EQ(readv(file, many.data(), 0), 0);
  CHECK_EQ(readv(file, many.data(), 1024), 0);
  iovec big[2] = {{&byte, ~size_t{0} / 2}, {&byte, ~size_t{0} / 2}};
  CHECK_EQ(writev(file, big, 0), 0);
  iovec negative = {&byte, ~size_t{0}};
  CHECK_ERRNO(readv(file, &negative, 1), EINVAL);
  CHECK_ERRNO(readv(file, nowhere<iovec>(), 1), EFAULT);
  CHECK_ERRNO(preadv(file, many.data(), 1, -1), EINVAL);
  iovec one = {&byte, 1};
  CHECK_ERRNO(preadv2(file, &one, 1, 0, 0x40000000), EOPNOTSUPP);
  close(file);
}

CASE(bad_pointer_to_read_and_write) {
  int file = memory_file("efault", "abcdef");
  CHECK_ERRNO(read(file, nowhere(), 3), EFAULT);
  CHECK_ERRNO(write(file, nowhere(), 3), EFAULT);
  CHECK_EQ(read(file, nowhere(), 0), 0);
  CHECK_ERRNO(read(file, reinterpret_cast<void*>(nowhere_address | uintptr_t{1} << 63), 3), EFAULT);
  CHECK_ERRNO(write(file, reinterpret_cast<void*>(nowhere_address | uintptr_t{1} << 60), 3),
              EFAULT);
  void* read_only = map_anonymous(kPage, PROT_READ);
  CHECK_ERRNO(read(file, read_only, 3), EFAULT);
  CHECK_EQ(pwrite(file, read_only, 3, 0), 3);
  void* none = map_anonymous(kPage, PROT_NONE);
  CHECK_ERRNO(pread(file, none, 3, 0), EFAULT);
  CHECK_ERRNO(write(file, none, 3), EFAULT);
  munmap(read_only, kPage);
  munmap(none, kPage);
  close(file);
}

CASE(bad_pointers_in_other_calls) {
  CHECK_ERRNO(syscall(SYS_uname, nowhere()), EFAULT);
  CHECK_ERRNO(syscall(SYS_open, nowhere(), O_RDONLY), EFAULT);
  CHECK_ERRNO(syscall(SYS_stat, "/", nowhere()), EFAULT);
  CHECK_ERRNO(syscall(SYS_stat, nowhere(), nowhere()), EFAULT);
  CHECK_ERRNO(syscall(SYS_getcwd, nowhere(), 100), EFAULT);
  CHECK_ERRNO(syscall(SYS_getrlimit, RLIMIT_CORE, nowhere()), EFAULT);
  CHECK_ERRNO(syscall(SYS_gettimeofday, nowhere(), nullptr), EFAULT);
  CHECK_ERRNO(syscall(SYS_clock_gettime, CLOCK_MONOTONIC, nowhere()), EFAULT);
  CHECK_ERRNO(syscall(SYS_nanosleep, nowhere(), nullptr), EFAULT);
  CHECK_ERRNO(syscall(SYS_getrandom, nowhere(), 8, 0), EFAULT);
  CHECK_ERRNO(syscall(SYS_pipe, nowhere()), EFAULT);
  CHECK_ERRNO(syscall(SYS_readlink, "/proc/self/exe", nowhere(), 10), EFAULT);
  CHECK_ERRNO(syscall(SYS_sysinfo, nowhere()), EFAULT);
  CHECK_ERRNO(syscall(SYS_times, nowhere()), EFAULT);
  CHECK_ERRNO(syscall(SYS_chdir, nowhere()), EFAULT);
  CHECK_ERRNO(syscall(SYS_sched_getaffinity, 0, 128, nowhere()), EFAULT);
}

CASE(partly_bad_buffer_gives_what_fits) {
  Edge edge;
  int file = memory_file("partly", pattern(10000));
  // A file read or written into the unmapped page ends there.
  ssize_t n = pread(file, edge.end - 100, 1000, 0);
  CHECK_EQ(n, 100);
  CHECK(memcmp(edge.end - 100, pattern(10000).data(), 100) == 0);
  n = pwrite(file, edge.end - 50, 1000, 0);
  CHECK(n == 50);
  Pipe pipe;
  CHECK_ERRNO(write(pipe.out(), edge.end - 50, 100), EFAULT);
  REQUIRE(write(pipe.out(), pattern(500).data(), 500) == 500);
  CHECK_ERRNO(read(pipe.in(), edge.end - 30, 500), EFAULT);
  CHECK_EQ(read(pipe.in(), edge.base, 1000), 500);  // nothing was lost
  CHECK(memcmp(edge.base, pattern(500).data(), 500) == 0);
  close(file);
}

CASE(partly_bad_vector_gives_the_good_pieces) {
  Edge edge;
  int file = memory_file("pieces", pattern(300));
  char good[100];
  iovec vectors[3] = {{good, 100}, {edge.end, 100}, {good, 100}};
  CHECK_EQ(readv(file, vectors, 3), 100);
  CHECK_EQ(lseek(file, 0, SEEK_CUR), 100);
  CHECK_EQ(pwritev(file, vectors, 3, 0), 100);
  close(file);
}

CASE(strings_at_the_edge_of_memory) {
  Edge edge;
  strcpy(edge.end - 10, "/dev/null");  // ends with the last byte
  int file = open(edge.end - 10, O_RDONLY | O_CLOEXEC);
  CHECK(file != -1);
  close(file);
  memset(edge.base, 'a', kPage);
  CHECK_ERRNO(open(edge.end - 10, O_RDONLY | O_CLOEXEC), EFAULT);  // no end before the edge
  memset(edge.base, '/', kPage);
  CHECK_ERRNO(open(edge.base, O_RDONLY | O_CLOEXEC), ENAMETOOLONG);  // PATH_MAX without an end
  struct stat* info = reinterpret_cast<struct stat*>(edge.end - sizeof(struct stat));
  CHECK_EQ(stat("/", info), 0);
  CHECK(S_ISDIR(info->st_mode));
  CHECK_ERRNO(stat("/", reinterpret_cast<struct stat*>(edge.end - 8)), EFAULT);
}

CASE(structures_across_a_page_boundary) {
  char* at = static_cast<char*>(map_anonymous(2 * kPage));
  auto* name = reinterpret_cast<utsname*>(at + kPage - 100);
  CHECK_EQ(uname(name), 0);
  CHECK(strcmp(name->sysname, "Linux") == 0);
  CHECK(strcmp(name->machine, "x86_64") == 0);
  auto* time = reinterpret_cast<timespec*>(at + kPage - 8);
  CHECK_EQ(clock_gettime(CLOCK_MONOTONIC, time), 0);
  timespec now = {};
  memcpy(&now, time, sizeof now);
  CHECK(now.tv_nsec >= 0 && now.tv_nsec < 1000000000);
  int* end = reinterpret_cast<int*>(at + kPage - 4);
  CHECK_EQ(syscall(SYS_pipe2, end, O_CLOEXEC), 0);
  close(end[0]);
  close(end[1]);
  auto* vector = reinterpret_cast<iovec*>(at + kPage - 8);
  char text[] = "ok\n";
  iovec one = {text, 3};
  memcpy(vector, &one, sizeof one);
  CHECK_EQ(writev(STDOUT_FILENO, vector, 1), 3);
  munmap(at, 2 * kPage);
}

CASE(sixteen_megabytes_through_plain_buffers) {
  const size_t size = 16 * kMiB;
  char* from = static_cast<char*>(map_anonymous(size));
  char* to = static_cast<char*>(map_anonymous(size));
  fill(from, size, 1, 512);
  round_trip(from + 1, to + 1, size - 1);
  munmap(from, size);
  munmap(to, size);
}

CASE(sixteen_megabytes_through_buffers_fragmented_by_fork) {
  // After the fork every other page is copied, so neighbours lie in different places.
  const size_t size = 16 * kMiB;
  char* from = static_cast<char*>(map_aligned(size));
  char* to = static_cast<char*>(map_aligned(size));
  fill(from, size, 2, 1024);
  memset(to, 'o', size);
  Pipe go;
  pid_t child = start_child([&] {
    go.close_write();
    go.take();
    for (size_t i = 0; i < size; i += 777) CHECK(to[i] == 'o');
    CHECK(filled(from, size, 2, 1024));
  });
  for (size_t i = 0; i < size; i += 2 * kPage) {
    from[i + 20] = static_cast<char>(i);
    to[i + 20] = 'x';
  }
  round_trip(from, to, size);
  for (size_t i = 0; i < size; i += 2 * kPage) from[i + 20] = 0;
  CHECK(filled(from, size, 2, 1024));
  go.close_write();
  CHECK(exited(status_of(child)));
  munmap(from, size);
  munmap(to, size);
}

CASE(sixteen_megabytes_through_buffers_of_single_pages) {
  // Every other page has other permissions for a while, so there are thousands of mappings.
  const size_t size = 16 * kMiB;
  char* from = static_cast<char*>(map_aligned(size));
  char* to = static_cast<char*>(map_aligned(size));
  for (size_t i = 0; i < size; i += 2 * kPage)
    REQUIRE(mprotect(to + i, kPage, PROT_READ | PROT_WRITE | PROT_EXEC) == 0);
  fill(from, size, 3, 2048);
  for (size_t i = 0; i < size; i += 4 * kPage) REQUIRE(mprotect(from + i, kPage, PROT_READ) == 0);
  round_trip(from, to, size);
  munmap(from, size);
  munmap(to, size);
}

CASE(reads_into_fresh_memory_and_around_holes) {
  int file = memory_file("holes", pattern(kMiB));
  std::string text = pattern(kMiB);
  char* at = static_cast<char*>(map_anonymous(kMiB));
  for (size_t i = 0; i < kMiB; i += 3 * kPage) at[i] = 1;  // every third page is there already
  CHECK_EQ(pread(file, at, kMiB, 0), kMiB);
  CHECK(memcmp(at, text.data(), kMiB) == 0);
  madvise(at + 64 * kKiB, 64 * kKiB, MADV_DONTNEED);
  CHECK_EQ(pread(file, at, kMiB, 0), kMiB);
  CHECK(memcmp(at, text.data(), kMiB) == 0);
  munmap(at + 512 * kKiB, kPage);
  CHECK_EQ(pread(file, at, kMiB, 0), 512 * kKiB);
  munmap(at, kMiB);
  close(file);
}

CASE(buffer_in_a_file_mapping) {
  int source = memory_file("source", pattern(64 * kKiB)), target = memory_file("target");
  REQUIRE(ftruncate(target, 64 * kKiB) == 0);
  char* at =
      static_cast<char*>(mmap(nullptr, 64 * kKiB, PROT_READ | PROT_WRITE, MAP_SHARED, target, 0));
  REQUIRE(at != MAP_FAILED);
  CHECK_EQ(pread(source, at, 64 * kKiB, 0), 64 * kKiB);
  std::string back(64 * kKiB, 0);
  CHECK_EQ(pread(target, back.data(), back.size(), 0), 64 * kKiB);
  CHECK(back == pattern(64 * kKiB));
  CHECK_EQ(pwrite(source, at + 5, 1000, 0), 1000);
  CHECK(memcmp(at + 5, back.data() + 5, 1000) == 0);
  CHECK_EQ(pwrite(target, at, 4096, 8192), 4096);  // from a file's mapping into the same file
  CHECK(memcmp(at, at + 8192, 4096) == 0);
  munmap(at, 64 * kKiB);
  close(source);
  close(target);
}

CASE(vectors_to_and_from_another_process) {
  void* at = map_anonymous(3 * kPage);
  fill(at, 3 * kPage, 4, 8);
  Pipe go;
  pid_t child = start_child([&] {
    go.close_write();
    go.take();
    CHECK_EQ(*bytes(at, kPage), 'W');
  });
  std::string back(3 * kPage, 0);
  iovec local = {back.data(), back.size()}, remote = {at, 3 * kPage};
  ssize_t n = process_vm_readv(child, &local, 1, &remote, 1, 0);
  if (n == -1 && (errno == EPERM || errno == ENOSYS)) {
    *bytes(at, kPage) = 'W';
    kill(child, SIGKILL);
    status_of(child);
    SKIP("process_vm_readv is not permitted");
  }
  CHECK_EQ(n, 3 * kPage);
  CHECK(memcmp(back.data(), at, 3 * kPage) == 0);
  char letter = 'W';
  unsigned char before = *bytes(at, kPage);
  local = {&letter, 1};
  remote = {offset(at, kPage), 1};
  CHECK_EQ(process_vm_writev(child, &local, 1, &remote, 1, 0), 1);
  CHECK_EQ(*bytes(at, kPage), before);  // ours is another copy
  go.close_write();
  CHECK(exited(status_of(child)));
  munmap(at, 3 * kPage);
}

CASE(two_threads_read_into_neighbouring_parts_of_a_page) {
  int file = memory_file("parts", pattern(kMiB));
  std::string text = pattern(kMiB);
  char* at = static_cast<char*>(map_anonymous(64 * kPage));
  std::vector<std::thread> threads;
  for (size_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (size_t i = t; i < 256; i += 4) {
        REQUIRE(pread(file, at + i * 1000, 1000, static_cast<off_t>(i * 1000)) == 1000);
      }
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK(memcmp(at, text.data(), 256000) == 0);
  munmap(at, 64 * kPage);
  close(file);
}

namespace {

// A thread that reads a file again and again into the same memory, each time another letter.
class Reader {
 public:
  Reader() {
    memset(at_, letter(-1), kSize);
    thread_ = std::thread([this] { work(); });
  }
  Reader(const Reader&) = delete;
  Reader& operator=(const Reader&) = delete;
  ~Reader() {
    stop_ = true;
    thread_.join();
    munmap(at_, kSize);
  }
  void wait_for_reads(int count) const {
    for (const int before = done_; done_ < before + count;) sleep_ms(1);
  }
  // In a child: what the last read that was over has left there, and what the one under way has
  // written already.
  bool is_of_one_moment() const {
    const char last = letter(done_ - 1), next = letter(done_);
    return std::all_of(at_, at_ + kSize, [=](char one) { return one == last || one == next; });
  }
  std::string copy() const { return {at_, kSize}; }

 private:
  static constexpr size_t kSize = 8 * kPage;
  static constexpr int kLetters = 26;
  static char letter(int read) { return static_cast<char>('a' + (read + kLetters) % kLetters); }

  void work() {
    std::string text;
    for (int i = 0; i < kLetters; ++i) text += std::string(kSize, letter(i));
    const int file = memory_file("letters", text);
    while (!stop_) {
      const off_t from = static_cast<off_t>(kSize) * (done_ % kLetters);
      REQUIRE(pread(file, at_, kSize, from) == static_cast<ssize_t>(kSize));
      REQUIRE(memcmp(at_, &text[static_cast<size_t>(from)], kSize) == 0);
      ++done_;
    }
    close(file);
  }

  char* at_ = static_cast<char*>(map_anonymous(kSize));
  std::atomic<int> done_{0};
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

}  // namespace

CASE(forks_while_threads_read_files) {
  Reader readers[2];
  for (int i = 0; i < 15; ++i) {
    Pipe seen, told;
    const pid_t child = start_child([&] {
      const std::string copies[2] = {readers[0].copy(), readers[1].copy()};
      for (const Reader& one : readers) CHECK(one.is_of_one_moment());
      seen.post();
      told.take();
      for (size_t j = 0; j < 2; ++j) CHECK(readers[j].copy() == copies[j]);
    });
    seen.take();
    for (const Reader& one : readers) one.wait_for_reads(2);
    told.post();
    CHECK(exited(status_of(child)));
  }
}

CHECK_MAIN
