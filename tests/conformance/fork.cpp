// What fork does with memory: copies of heap, stacks, break and private mappings, shared memory
// that stays shared, both sides writing afterwards, snapshots of snapshots, buffers of system
// calls.
#include <sys/resource.h>

#include <thread>
#include <vector>

#include "blocked.h"
#include "support.h"

namespace {
int data_value = 1;
int bss_value;
thread_local int local_value = 1;
void* shared_page() {
  void* at = mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  REQUIRE(at != MAP_FAILED);
  return at;
}
}  // namespace

CASE(child_has_its_own_copy_of_everything_private) {
  int on_stack = 1;
  int* on_heap = new int(1);
  int* mapped = static_cast<int*>(map_anonymous(kPage));
  volatile int* all[] = {&data_value, &bss_value, &local_value, &on_stack, on_heap, mapped};
  auto set = [&](int value) {
    for (volatile int* one : all) *one = value;
  };
  auto are = [&](int value) {
    return std::all_of(std::begin(all), std::end(all),
                       [=](volatile int* one) { return *one == value; });
  };
  set(1);
  Pipe to_child, to_parent;
  pid_t child = start_child([&] {
    CHECK(are(1));
    set(2);
    to_parent.post();
    to_child.take();  // the parent has written in the meantime
    CHECK(are(2));
  });
  to_parent.take();
  CHECK(are(1));
  set(3);
  to_child.post();
  CHECK(exited(status_of(child)));
  CHECK(are(3));
  delete on_heap;
  munmap(mapped, kPage);
}

CASE(shared_memory_stays_shared) {
  auto* value = static_cast<std::atomic<int>*>(shared_page());
  pid_t children[4];
  for (pid_t& child : children) {
    child = start_child([=] {
      for (int i = 0; i < 1000; ++i) value->fetch_add(1);
    });
  }
  for (int i = 0; i < 1000; ++i) value->fetch_add(1);
  for (pid_t child : children) CHECK(exited(status_of(child)));
  CHECK_EQ(value->load(), 5000);
  munmap(value, kPage);
}

CASE(shared_memory_first_touched_after_the_fork_is_shared) {
  void* at = mmap(nullptr, 4 * kMiB, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  REQUIRE(at != MAP_FAILED);
  CHECK(exited(run_child([=] { fill(at, 4 * kMiB, 1); })));
  CHECK(filled(at, 4 * kMiB, 1));
  munmap(at, 4 * kMiB);
}

CASE(big_heap_is_a_snapshot_while_the_parent_overwrites) {
  const size_t length = 64 * kMiB;
  void* at = map_aligned(length);
  fill(at, length, 1);
  Pipe started;
  pid_t child = start_child([&] {
    started.post();
    CHECK(filled(at, length, 1));
    CHECK(filled(at, length, 1));
  });
  started.take();
  fill(at, length, 2);
  CHECK(exited(status_of(child)));
  CHECK(filled(at, length, 2));
  munmap(at, length);
}

CASE(big_heap_is_a_snapshot_while_the_child_overwrites) {
  const size_t length = 32 * kMiB;
  void* at = map_aligned(length);
  fill(at, length, 1);
  pid_t child = start_child([&] {
    fill(at, length, 2);
    CHECK(filled(at, length, 2));
  });
  for (int i = 0; i < 3; ++i) CHECK(filled(at, length, 1));
  CHECK(exited(status_of(child)));
  CHECK(filled(at, length, 1));
  munmap(at, length);
}

CASE(generations_of_snapshots_each_keep_their_own) {
  // Five children alive at once, each with the state of its moment.
  const size_t length = 4 * kMiB;
  void* at = map_anonymous(length);
  Pipe go;
  std::vector<pid_t> children;
  for (uint64_t generation = 0; generation < 5; ++generation) {
    fill(at, length, generation);
    children.push_back(start_child([&, generation] {
      go.close_write();
      go.take();
      CHECK(filled(at, length, generation));
      fill(at, length, generation + 100);
      CHECK(filled(at, length, generation + 100));
    }));
    // Single pages change too, so that parts are shared and parts are not.
    for (size_t i = 0; i < length; i += 37 * kPage)
      *bytes(at, i + 8) = static_cast<unsigned char>(generation);
  }
  fill(at, length, 50);
  go.close_write();
  for (pid_t child : children) CHECK(exited(status_of(child)));
  CHECK(filled(at, length, 50));
  munmap(at, length);
}

CASE(child_of_a_child_of_a_child) {
  void* at = map_anonymous(kMiB);
  fill(at, kMiB, 1);
  int status = run_child([=] {
    fill(at, kMiB / 2, 2);
    int inner = run_child([=] {
      CHECK(filled(at, kMiB / 2, 2));
      fill(at, kMiB / 4, 3);
      int innermost = run_child([=] {
        CHECK(filled(at, kMiB / 4, 3));
        fill(at, kMiB, 4);
      });
      CHECK(exited(innermost));
      CHECK(filled(at, kMiB / 4, 3));
    });
    CHECK(exited(inner));
    CHECK(filled(at, kMiB / 2, 2));
  });
  CHECK(exited(status));
  CHECK(filled(at, kMiB, 1));
  munmap(at, kMiB);
}

CASE(memory_layout_is_inherited_and_then_separate) {
  void* at = map_anonymous(8 * kPage);
  memset(at, 1, 8 * kPage);
  mprotect(offset(at, 2 * kPage), kPage, PROT_READ);
  munmap(offset(at, 4 * kPage), kPage);
  const char* layout = "rw-p:2 r--p:1 rw-p:1 hole:1 rw-p:3";
  CHECK(exited(run_child([=] {
    CHECK(layout_is(at, 8 * kPage, layout));
    CHECK(!writable(offset(at, 2 * kPage)) && !readable(offset(at, 4 * kPage)));
    munmap(at, 2 * kPage);
    mprotect(offset(at, 2 * kPage), kPage, PROT_READ | PROT_WRITE);
    memset(offset(at, 2 * kPage), 2, 2 * kPage);
    CHECK(layout_is(at, 8 * kPage, "hole:2 rw-p:2 hole:1 rw-p:3"));
  })));
  CHECK(layout_is(at, 8 * kPage, layout));
  CHECK(all_are(at, 4 * kPage, 1));
  munmap(at, 8 * kPage);
}

CASE(memory_calls_in_the_child_leave_the_parent_alone) {
  void* at = map_aligned(2 * kLarge);
  fill(at, 2 * kLarge, 1);
  CHECK(exited(run_child([=] {
    CHECK_EQ(madvise(at, kLarge, MADV_DONTNEED), 0);
    CHECK(all_are(at, kPage, 0));
    void* moved = mremap(offset(at, kLarge), kLarge, kLarge, MREMAP_MAYMOVE | MREMAP_FIXED,
                         map_anonymous(kLarge));
    REQUIRE(moved != MAP_FAILED);
    CHECK_EQ(*reinterpret_cast<uint64_t*>(moved), mix(1, kLarge));
    CHECK(mmap(at, kPage, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == at);
  })));
  CHECK(filled(at, 2 * kLarge, 1));
  munmap(at, 2 * kLarge);
}

CASE(memory_calls_in_the_parent_leave_the_child_alone) {
  void* at = map_aligned(2 * kLarge);
  fill(at, 2 * kLarge, 1);
  Pipe go;
  pid_t child = start_child([&] {
    go.take();
    CHECK(filled(at, 2 * kLarge, 1));
  });
  madvise(at, kLarge, MADV_DONTNEED);
  munmap(offset(at, kLarge), kLarge);
  void* fresh = map_anonymous(8 * kMiB);  // may get the freed frames
  memset(fresh, 0xff, 8 * kMiB);
  go.post();
  CHECK(exited(status_of(child)));
  munmap(at, kLarge);
  munmap(fresh, 8 * kMiB);
}

CASE(zero_page_read_before_the_fork_stays_zero_on_both_sides) {
  void* at = map_anonymous(16 * kPage);
  for (size_t i = 0; i < 16; ++i) REQUIRE(*bytes(at, i * kPage) == 0);
  pid_t child = start_child([=] {
    for (size_t i = 0; i < 16; i += 2) *bytes(at, i * kPage) = 1;
    for (size_t i = 0; i < 16; ++i) CHECK_EQ(*bytes(at, i * kPage), i % 2 == 0);
  });
  CHECK(exited(status_of(child)));
  CHECK(all_are(at, 16 * kPage, 0));
  munmap(at, 16 * kPage);
}

CASE(break_is_separate_after_fork) {
  CHECK(exited(run_child([] {
    char* at = static_cast<char*>(sbrk(3 * static_cast<intptr_t>(kPage)));
    REQUIRE(at != reinterpret_cast<char*>(-1));
    memset(at, 1, 3 * kPage);
    CHECK(exited(run_child([=] {
      CHECK(all_are(at, 3 * kPage, 1));
      CHECK_EQ(brk(at), 0);
      CHECK(sbrk(0) == at);
    })));
    CHECK(sbrk(0) == at + 3 * kPage);
    CHECK(all_are(at, 3 * kPage, 1));
  })));
}

CASE(system_call_buffers_shared_by_fork_are_copied_first) {
  // The kernel writes into a page that a child still shares.
  int file = memfd_create("source", MFD_CLOEXEC);
  std::string text(16 * kPage, 'n');
  REQUIRE(write(file, text.data(), text.size()) == static_cast<ssize_t>(text.size()));
  void* at = map_anonymous(16 * kPage);
  memset(at, 'o', 16 * kPage);
  Pipe go;
  pid_t child = start_child([&] {
    go.take();
    CHECK(all_are(at, 16 * kPage, 'o'));
  });
  CHECK_EQ(pread(file, at, 16 * kPage, 0), 16 * kPage);
  CHECK(all_are(at, 16 * kPage, 'n'));
  go.post();
  CHECK(exited(status_of(child)));
  memset(at, 'o', 16 * kPage);
  child = start_child([&] {
    CHECK_EQ(pread(file, offset(at, 100), 8 * kPage, 0), 8 * kPage);
    CHECK(all_are(at, 100, 'o') && all_are(offset(at, 100), 8 * kPage, 'n'));
  });
  CHECK(exited(status_of(child)));
  CHECK(all_are(at, 16 * kPage, 'o'));
  munmap(at, 16 * kPage);
  close(file);
}

CASE(read_in_flight_during_fork_arrives_in_the_parent_only) {
  // A thread sits in read() while the process forks; the data comes after the fork.
  Pipe pipe;
  static unsigned char buffer[2 * kPage];
  memset(buffer, 'o', sizeof buffer);
  BlockedCall reader({SYS_read, SYS_readv},
                     [&] { CHECK_EQ(read(pipe.in(), buffer + 100, 5000), 5000); });
  Pipe go;
  pid_t child = start_child([&] {
    go.take();
    CHECK(all_are(buffer, sizeof buffer, 'o'));
  });
  std::string text(5000, 'n');
  REQUIRE(write(pipe.out(), text.data(), text.size()) == 5000);
  reader.join();
  CHECK(all_are(buffer + 100, 5000, 'n'));
  go.post();
  CHECK(exited(status_of(child)));
}

// Each process has a table of descriptors of its own: what one of them opens, or needs for its
// threads, takes no number from the other.
namespace {
int open_many() {
  rlimit limit = {};
  REQUIRE(getrlimit(RLIMIT_NOFILE, &limit) == 0);
  limit.rlim_cur = limit.rlim_max;
  REQUIRE(setrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur >= 2048);
  const int file = memfd_create("many", MFD_CLOEXEC);
  while (dup(file) < 1000) {
  }
  return file;
}

void open_more(int file) {
  for (int i = 0; i < 150; ++i) CHECK_EQ(fcntl(dup(file), F_GETFD), 0);
}

template <typename Action>
void with_threads(const Action& action) {
  Pipe end;
  std::vector<std::thread> threads;
  for (int i = 0; i < 60; ++i) threads.emplace_back([&] { end.take(); });
  action();
  for (size_t i = 0; i < threads.size(); ++i) end.post();
  for (std::thread& thread : threads) thread.join();
}
}  // namespace

CASE(threads_of_the_parent_take_no_descriptor_from_a_child) {
  const int file = open_many();
  Pipe to_child;
  const pid_t child = start_child([&] {
    to_child.take();
    open_more(file);
  });
  with_threads([&] {
    to_child.post();
    CHECK(exited(status_of(child)));
  });
  CHECK_EQ(syscall(SYS_close_range, file, ~0u, 0), 0);
}

CASE(threads_of_a_child_take_no_descriptor_from_the_parent) {
  const int file = open_many();
  Pipe to_child, to_parent;
  const pid_t child = start_child([&] {
    with_threads([&] {
      to_parent.post();
      to_child.take();
    });
  });
  to_parent.take();
  open_more(file);
  to_child.post();
  CHECK(exited(status_of(child)));
  CHECK_EQ(syscall(SYS_close_range, file, ~0u, 0), 0);
}

CHECK_MAIN
