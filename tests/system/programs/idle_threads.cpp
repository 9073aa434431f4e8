// Which threads a fork interrupts: `idle_threads blocked|running COUNT` has so many threads that
// sleep in read(), or that compute, and writes 1000 pages while a child sees what was there before.
#include "tests/conformance/blocked.h"

#include <memory>

namespace {

constexpr size_t kPages = 1000;
constexpr size_t kMemory = 4 * kLarge;

// Every second page, so that each is copied alone.
void write_pages(char* at) {
  for (size_t i = 0; i < kPages; ++i) *bytes(at, i * 2 * kPage) = 'x';
}

void write_while_a_child_looks_on() {
  char* at = static_cast<char*>(map_aligned(kMemory));
  memset(at, 'o', kMemory);
  Pipe end;
  const pid_t child = start_child([&] {
    end.close_write();
    end.take();
    CHECK(all_are(at, kMemory, 'o'));
  });
  write_pages(at);
  end.close_write();
  CHECK(exited(status_of(child)));
}

// Threads that ended one by one would interrupt those that still run.
[[noreturn]] void leave() {
  _exit(check::failures == 0 ? 0 : 1);
}

void with_blocked_threads(int count) {
  Pipe pipe;
  std::vector<std::unique_ptr<BlockedCall>> threads;
  for (int i = 0; i < count; ++i) {
    threads.push_back(std::make_unique<BlockedCall>(std::initializer_list<int>{SYS_read},
                                                    [&] { CHECK_EQ(pipe.take(), 0); }));
  }
  write_while_a_child_looks_on();
  leave();
}

void with_running_threads(int count) {
  std::atomic<int> running{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < count; ++i) {
    threads.emplace_back([&] {
      ++running;
      while (running > 0) {
      }
    });
  }
  while (running != count) sleep_ms(1);
  write_while_a_child_looks_on();
  leave();
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  const int count = atoi(argv[2]);
  strcmp(argv[1], "blocked") == 0 ? with_blocked_threads(count) : with_running_threads(count);
}
