// What the guest answers when it has no frame left: the program fills all memory but for some pages
// and asks, again and again. Only of use under dbos-run with a --memory.
//
//   memory_limit fork   fork() says ENOMEM until there is room, and nothing is lost by that
//   memory_limit call   mprotect() never says so: a snapshot is ended first
//
// Exit status: 0 if all was as it must be; 1 with a sentence on standard error.
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <initializer_list>

namespace {

constexpr size_t kPage = 4096;
// Pages.
constexpr size_t kRoomForFork = 128;
constexpr size_t kKeptAtHand = 128;  // by vCPUs, of those that are free

char* memory;
size_t page_count;
size_t filled;

#define REQUIRE(condition)                        \
  do {                                            \
    if (!(condition)) fail(#condition, __LINE__); \
  } while (false)

[[noreturn]] void fail(const char* what, int line) {
  fprintf(stderr, "memory_limit:%d: %s (errno %s)\n", line, what, strerrorname_np(errno));
  _exit(1);
}

uint64_t& word_of(size_t page) {
  return *reinterpret_cast<uint64_t*>(memory + page * kPage);
}

char* map(size_t bytes) {
  void* const at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return at == MAP_FAILED ? nullptr : static_cast<char*>(at);
}

// Small pages, so that a single one can be given back without memory.
void map_all() {
  page_count = size_t{1} << 20;
  while ((memory = map(page_count * kPage)) == nullptr) page_count -= page_count / 32;
  REQUIRE(madvise(memory, page_count * kPage, MADV_NOHUGEPAGE) == 0);
}

// By a call that says ENOMEM, where a write would end the program.
bool populate(size_t pages) {
  return madvise(memory + filled * kPage, pages * kPage, MADV_POPULATE_WRITE) == 0;
}

void fill() {
  for (const size_t step : {size_t{256}, size_t{1}}) {
    while (filled + step <= page_count && populate(step)) {
      for (size_t end = filled + step; filled < end; ++filled) word_of(filled) = filled;
    }
    REQUIRE(errno == ENOMEM && filled + step <= page_count);
  }
}

void give_back(size_t pages) {
  filled -= pages;
  if (pages == 0) return;
  REQUIRE(madvise(memory + filled * kPage, pages * kPage, MADV_DONTNEED) == 0);
}

void check_filled() {
  for (size_t page = 0; page < filled; ++page) REQUIRE(word_of(page) == page);
}

// Where there is room for the fork alone, one side's next write ends the child; one that sleeps is
// ended by main's writes, even before it has begun.
bool fork_once(bool sleeps) {
  const pid_t child = fork();
  while (child == 0 && sleeps) pause();
  if (child == 0) _exit(0);
  if (child < 0) {
    REQUIRE(errno == ENOMEM);
    return false;
  }
  for (size_t page = 0; sleeps && page < 2 * kRoomForFork; ++page) word_of(page) = page;
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  REQUIRE(WIFSIGNALED(status) ? WTERMSIG(status) == SIGKILL : WEXITSTATUS(status) == 0);
  return true;
}

void test_fork() {
  fill();
  const size_t first = filled;
  unsigned refused = 0;
  unsigned made = 0;
  for (size_t room = 0; room <= kRoomForFork; room += 4) {
    give_back(room);
    const int attempts = room < 16 ? 60 : 10;  // so many are refused that a page lost by each shows
    for (int i = 0; i < attempts; ++i) ++(fork_once(i % 2 == 0) ? made : refused);
    fill();
    REQUIRE(filled + kKeptAtHand > first);
  }
  check_filled();
  give_back(kRoomForFork);  // printf() takes new pages
  printf("%u forks were refused, %u made\n", refused, made);
  REQUIRE(refused > kKeptAtHand && made > 10);
}

// Each call needs memory for two more mappings. The child sleeps, and keeps hardly a page.
void test_call() {
  constexpr size_t kPages = 16384;
  char* const cut = map(kPages * kPage);
  fill();
  give_back(kRoomForFork);
  const pid_t child = fork();
  REQUIRE(child >= 0);
  while (child == 0) pause();
  int status = 0;
  for (size_t page = 0; waitpid(child, &status, WNOHANG) == 0; page += 2) {
    REQUIRE(page < kPages && mprotect(cut + page * kPage, kPage, PROT_READ) == 0);
  }
  REQUIRE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
  check_filled();
}

}  // namespace

int main(int count, char** arguments) {
  REQUIRE(count == 2);
  map_all();
  strcmp(arguments[1], "fork") == 0 ? test_fork() : test_call();
  return 0;
}
