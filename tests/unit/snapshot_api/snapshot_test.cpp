// What a snapshot shows, what its functions give back, and what it costs.
#include <sys/mman.h>

#include <atomic>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "tests/unit/snapshot_api/support.h"

namespace {

constexpr size_t kPage = 4096;

volatile int value;
const int* const value_address = const_cast<const int*>(&value);

struct Range {
  unsigned char* begin;
  size_t size;
};

Range range_in(const void* argument) {
  Range range;
  memcpy(&range, argument, sizeof range);
  return range;
}

int32_t count_ones(const void* argument, size_t, dbos_result*) {
  const Range range = range_in(argument);
  int32_t ones = 0;
  for (size_t i = 0; i < range.size; i += kPage) ones += range.begin[i] == 1;
  return ones;
}

int32_t fill_with_twos(const void* argument, size_t, dbos_result*) {
  const Range range = range_in(argument);
  memset(range.begin, 2, range.size);
  return 0;
}

int32_t repeat(const void* argument, size_t size, dbos_result* result) {
  if (result->capacity < 2 * size) return -1;
  memcpy(result->bytes, argument, size);
  memcpy(static_cast<char*>(result->bytes) + size, argument, size);
  result->size = 2 * size;
  return 7;
}

int32_t claim_too_much(const void*, size_t, dbos_result* result) {
  memset(result->bytes, 'x', result->capacity);
  result->size = SIZE_MAX;
  return 0;
}

// Ends when as many as the argument says are here at the same time.
int32_t meet(const void* argument, size_t, dbos_result*) {
  static std::atomic<int> here;
  int wanted;
  memcpy(&wanted, argument, sizeof wanted);
  ++here;
  while (here < wanted) usleep(1000);
  return wanted;
}

// How much of the mapping at `address` others map as well, by /proc/self/smaps. A neighbour may
// count as a part of it.
uint64_t shared_kib(const void* address) {
  const auto at = reinterpret_cast<uint64_t>(address);
  std::ifstream smaps("/proc/self/smaps");
  std::string line;
  bool is_here = false;
  uint64_t sum = 0;
  while (std::getline(smaps, line)) {
    uint64_t begin = 0, end = 0, kib = 0;
    if (sscanf(line.c_str(), "%lx-%lx", &begin, &end) == 2) {
      is_here = begin <= at && at < end;
    } else if (is_here && (sscanf(line.c_str(), "Shared_Clean: %lu", &kib) == 1 ||
                           sscanf(line.c_str(), "Shared_Dirty: %lu", &kib) == 1)) {
      sum += kib;
    }
  }
  return sum;
}

int32_t has_shared_mapping(const void* argument, size_t, dbos_result*) {
  Wanted wanted;
  memcpy(&wanted, argument, sizeof wanted);
  return find_shared_mapping(wanted) ? 1 : 0;
}

// In a child of the snapshot's own process; the argument lies in the mapping.
int32_t child_has_shared_mapping(const void* argument, size_t, dbos_result*) {
  Wanted wanted;
  memcpy(&wanted, argument, sizeof wanted);
  return answer_of_child([&] { return find_shared_mapping(wanted) ? 1 : 0; });
}

// A mapping of 4 KiB pages, each with the same byte.
class Pages {
 public:
  explicit Pages(size_t count) : range_{nullptr, count * kPage} {
    void* const at =
        mmap(nullptr, range_.size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    REQUIRE(at != MAP_FAILED);
    madvise(at, range_.size, MADV_NOHUGEPAGE);
    range_.begin = static_cast<unsigned char*>(at);
    fill(1);
  }
  ~Pages() { munmap(range_.begin, range_.size); }
  Pages(const Pages&) = delete;
  Pages& operator=(const Pages&) = delete;

  void fill(int byte) { memset(range_.begin, byte, range_.size); }
  bool are(unsigned char byte) const {
    for (size_t i = 0; i < range_.size; ++i) {
      if (range_.begin[i] != byte) return false;
    }
    return true;
  }
  const Range& range() const { return range_; }

 private:
  Range range_;
};

}  // namespace

TEST_CASE("a snapshot shows what was there when it was created") {
  value = 1;
  const Snapshot first;
  value = 2;
  const Snapshot second;
  value = 3;
  CHECK(wait_for_status(second.start(read_int, value_address)) == 2);
  CHECK(wait_for_status(first.start(read_int, value_address)) == 1);
  CHECK(wait_for_status(first.start(read_int, value_address)) == 1);
}

TEST_CASE("writes in a snapshot are seen there and nowhere else") {
  const Pages pages(16);
  const Snapshot snapshot, other;
  CHECK(wait_for_status(snapshot.start(fill_with_twos, pages.range())) == 0);
  CHECK(wait_for_status(snapshot.start(count_ones, pages.range())) == 0);
  CHECK(wait_for_status(other.start(count_ones, pages.range())) == 16);
  CHECK(pages.are(1));
}

TEST_CASE("a run gives back a status and bytes") {
  const Snapshot snapshot;
  const char text[6] = "abcde";
  char bytes[12];
  int32_t status = 0;
  size_t size = 0;
  const dbos_run run = snapshot.start(repeat, text);
  REQUIRE(dbos_run_wait(run, -1, &status, bytes, sizeof bytes, &size) == DBOS_OK);
  CHECK(status == 7);
  CHECK(size == 12);
  CHECK(memcmp(bytes, "abcde\0abcde", 12) == 0);
}

TEST_CASE("a result that does not fit stays until there is room for it") {
  const Snapshot snapshot;
  const char text[6] = "abcde";
  char bytes[12];
  size_t size = 0;
  const dbos_run run = snapshot.start(repeat, text);
  CHECK(dbos_run_wait(run, -1, nullptr, bytes, 11, &size) == DBOS_ERROR_RESULT_SIZE);
  CHECK(size == 12);
  CHECK(dbos_run_wait(run, -1, nullptr, bytes, 12, &size) == DBOS_OK);
}

TEST_CASE("a result is cut at its capacity, which is a multiple of 64") {
  const Snapshot snapshot(1, 65);
  std::vector<char> bytes(1000, 'a');
  size_t size = 0;
  const dbos_run run = snapshot.start(claim_too_much, 0);
  REQUIRE(dbos_run_wait(run, -1, nullptr, bytes.data(), bytes.size(), &size) == DBOS_OK);
  CHECK(size == 128);
  CHECK(bytes[127] == 'x');
  CHECK(bytes[128] == 'a');
}

TEST_CASE("nobody but the creator and the snapshot itself can reach its results") {
  constexpr size_t kResult = 32U << 20;
  const Snapshot first(1, kResult);
  Wanted results{0, UINT64_MAX, 2 * kResult};
  REQUIRE(find_shared_mapping(results));
  const Wanted there{results.begin, results.begin + results.size, 0};
  const Snapshot second;
  CHECK(wait_for_status(first.start(has_shared_mapping, there)) == 1);
  CHECK(wait_for_status(second.start(has_shared_mapping, there)) == 0);
  CHECK(wait_for_status(first.start(child_has_shared_mapping, there)) == 0);
  CHECK(answer_of_child([&] { return has_shared_mapping(&there, sizeof there, nullptr); }) == 0);
}

TEST_CASE("runs of one snapshot go on at the same time") {
  const Snapshot snapshot(4);
  std::vector<dbos_run> runs;
  for (int i = 0; i < 4; ++i) runs.push_back(snapshot.start(meet, 4));
  for (const dbos_run run : runs) CHECK(wait_for_status(run) == 4);
}

TEST_CASE("a place is free again when its result has been taken") {
  value = 5;
  const Snapshot snapshot(1);
  for (int i = 0; i < 50; ++i) {
    const dbos_run run = snapshot.start(read_int, value_address);
    dbos_run refused{};
    CHECK(dbos_run_start(snapshot.handle, read_int, nullptr, 0, &refused) == DBOS_ERROR_LIMIT);
    CHECK(wait_for_status(run) == 5);
  }
}

TEST_CASE("threads take snapshots and run functions in them at the same time", "[threads-fork]") {
  value = 9;
  std::atomic<int> right{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&right] {
      for (int turn = 0; turn < 5; ++turn) {
        dbos_snapshot snapshot{};
        dbos_run run{};
        int32_t status = 0;
        dbos_snapshot_cost cost{};
        bool ok = dbos_snapshot_create(nullptr, &snapshot) == DBOS_OK;
        ok = ok && dbos_run_start(snapshot, read_int, &value_address, sizeof value_address, &run) ==
                       DBOS_OK;
        ok = ok && dbos_snapshot_cost_now(snapshot, &cost) == DBOS_OK && cost.seen_bytes > 0;
        ok = ok && dbos_run_wait(run, -1, &status, nullptr, 0, nullptr) == DBOS_OK && status == 9;
        right += ok && dbos_snapshot_release(snapshot) == DBOS_OK;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(right == 20);
}

TEST_CASE("a snapshot outlives the thread that created it") {
  value = 4;
  dbos_snapshot snapshot{};
  std::thread([&snapshot] { (void)dbos_snapshot_create(nullptr, &snapshot); }).join();
  dbos_run run{};
  REQUIRE(dbos_run_start(snapshot, read_int, &value_address, sizeof value_address, &run) ==
          DBOS_OK);
  CHECK(wait_for_status(run) == 4);
  CHECK(dbos_snapshot_release(snapshot) == DBOS_OK);
}

TEST_CASE("epochs count the snapshots of this process") {
  const Snapshot first, second;
  uint64_t before = 0, after = 0;
  REQUIRE(dbos_snapshot_epoch(first.handle, &before) == DBOS_OK);
  REQUIRE(dbos_snapshot_epoch(second.handle, &after) == DBOS_OK);
  CHECK(before >= 1);
  CHECK(after == before + 1);
}

TEST_CASE("memory is the creator's alone as soon as its snapshot is released") {
  constexpr size_t kCount = 512;
  constexpr size_t kCopiedAhead = 16;  // under dbos-run, of who writes one page after the other
  constexpr int kTurns = 20;
  const Pages pages(kCount);
  const Range lower{pages.range().begin, kCount / 2 * kPage};
  int turns_alone = 0;
  for (int turn = 0; turn < kTurns; ++turn) {
    dbos_snapshot snapshot{};
    dbos_run run{};
    REQUIRE(dbos_snapshot_create(nullptr, &snapshot) == DBOS_OK);
    REQUIRE(dbos_run_start(snapshot, count_ones, &lower, sizeof lower, &run) == DBOS_OK);
    (void)wait_for_status(run);
    memset(lower.begin, 3, lower.size);
    const uint64_t before = shared_kib(lower.begin);
    REQUIRE(dbos_snapshot_release(snapshot) == DBOS_OK);
    turns_alone += shared_kib(lower.begin) == 0;
    CHECK(before >= (kCount / 2 - kCopiedAhead) * kPage / 1024);
  }
  // A snapshot that gets no processor for too long is killed.
  CHECK(turns_alone > kTurns / 2);
}

TEST_CASE("the cost grows by what the creator overwrites") {
  Pages pages(4096);
  const Snapshot snapshot;
  dbos_snapshot_cost before{}, after{};
  REQUIRE(dbos_snapshot_cost_now(snapshot.handle, &before) == DBOS_OK);
  pages.fill(2);
  REQUIRE(dbos_snapshot_cost_now(snapshot.handle, &after) == DBOS_OK);
  const size_t overwritten = pages.range().size;
  CHECK(before.request_ns > 0);
  CHECK(before.request_ns == after.request_ns);
  CHECK(before.seen_bytes >= overwritten);
  CHECK(before.held_bytes < overwritten / 4);
  CHECK(after.held_bytes >= overwritten);
  CHECK(after.held_bytes < overwritten + overwritten / 4);
  CHECK(wait_for_status(snapshot.start(count_ones, pages.range())) == 4096);
}
