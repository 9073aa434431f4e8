// What Linux does in one step, however large it is: a read at a position that threads share, a
// message, a look at what has arrived.
#include <sys/socket.h>
#include <sys/time.h>

#include <thread>

#include "support.h"

namespace {

// Not to be waited for for ever.
void set_timeouts(int socket) {
  const timeval wait = {20, 0};
  REQUIRE(setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait) == 0);
  REQUIRE(setsockopt(socket, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof wait) == 0);
}

struct Pair : SocketPair {
  explicit Pair(int type) : SocketPair(type) {
    set_timeouts(end[0]);
    set_timeouts(end[1]);
  }
  // Whether so much may be on its way.
  bool make_room(int size) const {
    return setsockopt(end[0], SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size) == 0;
  }
};

// Words that count, so that each tells its place.
void count_up(char* at, size_t size) {
  for (size_t i = 0; i < size; i += sizeof i) memcpy(at + i, &i, sizeof i);
}
size_t word_at(const char* at) {
  size_t word = 0;
  memcpy(&word, at, sizeof word);
  return word;
}
bool counts_up(const char* at, size_t size) {
  const size_t first = word_at(at);
  for (size_t i = 0; i < size; i += sizeof i) {
    if (word_at(at + i) != first + i) return false;
  }
  return true;
}

}  // namespace

CASE(threads_that_share_a_position_read_bytes_that_follow_each_other) {
  constexpr size_t kSize = 32 * kMiB, kPart = 8 * kMiB;
  int file = open("large", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  REQUIRE(file != -1);
  char* content = static_cast<char*>(map_aligned(kSize));
  count_up(content, kSize);
  REQUIRE(pwrite(file, content, kSize, 0) == static_cast<ssize_t>(kSize));
  munmap(content, kSize);
  for (int round = 0; round < 3; ++round) {
    REQUIRE(lseek(file, 0, SEEK_SET) == 0);
    std::atomic<int> ready{0};
    std::atomic<size_t> total{0}, first_words{0};
    auto read_all_there_is = [&] {
      char* buffer = static_cast<char*>(map_aligned(kPart));
      ++ready;
      while (ready.load() < 2) sched_yield();
      for (ssize_t n; (n = read(file, buffer, kPart)) > 0;) {
        CHECK_EQ(n, kPart);
        CHECK(counts_up(buffer, kPart));
        total += static_cast<size_t>(n);
        first_words += word_at(buffer);
      }
      munmap(buffer, kPart);
    };
    std::thread other(read_all_there_is);
    read_all_there_is();
    other.join();
    CHECK_EQ(total.load(), kSize);
    CHECK_EQ(first_words.load(), (0 + 1 + 2 + 3) * kPart);
  }
  close(file);
  unlink("large");
}

CASE(large_read_ends_where_the_file_does) {
  constexpr size_t kSize = 5 * kMiB + 100, kBuffer = 12 * kMiB;
  int file = open("large", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  REQUIRE(file != -1);
  REQUIRE(ftruncate(file, kSize) == 0);
  REQUIRE(pwrite(file, "end", 3, kSize - 3) == 3);
  char* buffer = static_cast<char*>(map_aligned(kBuffer));
  CHECK_EQ(read(file, buffer, kBuffer), kSize);
  CHECK(memcmp(buffer + kSize - 3, "end", 3) == 0);
  CHECK_EQ(read(file, buffer, kBuffer), 0);
  CHECK_EQ(pread(file, buffer, kBuffer, 3 * kMiB), kSize - 3 * kMiB);
  CHECK_EQ(pread(file, buffer, kBuffer, 100 * kMiB), 0);
  CHECK_ERRNO(pread(file, buffer, kBuffer, -1), EINVAL);
  CHECK_EQ(lseek(file, 0, SEEK_CUR), kSize);
  munmap(buffer, kBuffer);
  close(file);
  unlink("large");
}

CASE(large_message_stays_whole) {
  constexpr size_t kSize = 5 * kMiB / 2, kBuffer = 4 * kMiB;
  Pair pair(SOCK_SEQPACKET);
  if (!pair.make_room(8 * kMiB)) SKIP("it needs a capability");
  char* message = static_cast<char*>(map_aligned(kBuffer));
  char* buffer = static_cast<char*>(map_aligned(kBuffer));
  count_up(message, kSize);
  if (send(pair.end[0], message, kSize, 0) == -1 && errno == ENOBUFS) {
    SKIP("Linux has no memory for it in one piece");
  }
  CHECK_EQ(recv(pair.end[1], buffer, kBuffer, MSG_PEEK), kSize);
  CHECK_EQ(recv(pair.end[1], buffer, kBuffer, 0), kSize);
  for (int i = 0; i < 2; ++i) {
    REQUIRE(send(pair.end[0], message, kSize, 0) == static_cast<ssize_t>(kSize));
    CHECK_EQ(i == 0 ? recv(pair.end[1], buffer, kBuffer, 0) : read(pair.end[1], buffer, kBuffer),
             kSize);
    CHECK(memcmp(buffer, message, kSize) == 0);
  }
  // Two of them, and who waits for all gets one.
  REQUIRE(send(pair.end[0], message, kSize, 0) == static_cast<ssize_t>(kSize));
  REQUIRE(send(pair.end[0], message, 100, 0) == 100);
  CHECK_EQ(recv(pair.end[1], buffer, kBuffer, MSG_WAITALL), kSize);
  CHECK_EQ(recv(pair.end[1], buffer, kBuffer, MSG_WAITALL), 100);
  munmap(message, kBuffer);
  munmap(buffer, kBuffer);
}

CASE(large_look_at_what_has_arrived) {
  constexpr size_t kSize = 5 * kMiB, kBuffer = 6 * kMiB;
  Pair pair(SOCK_STREAM);
  if (!pair.make_room(16 * kMiB)) SKIP("it needs a capability");
  char* message = static_cast<char*>(map_aligned(kBuffer));
  char* buffer = static_cast<char*>(map_aligned(kBuffer));
  count_up(message, kSize);
  REQUIRE(send(pair.end[0], message, kSize, 0) == static_cast<ssize_t>(kSize));
  CHECK_EQ(recv(pair.end[1], buffer, kSize, MSG_PEEK | MSG_WAITALL), kSize);
  CHECK(counts_up(buffer, kSize) && word_at(buffer) == 0);
  memset(buffer, 0, kSize);
  CHECK_EQ(recv(pair.end[1], buffer, kSize, MSG_WAITALL), kSize);
  CHECK(counts_up(buffer, kSize) && word_at(buffer) == 0);
  munmap(message, kBuffer);
  munmap(buffer, kBuffer);
}

CHECK_MAIN
