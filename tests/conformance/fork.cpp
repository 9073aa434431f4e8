// What fork copies and what it shares: heap, stacks, break, private and shared mappings, descriptors;
// both sides writing afterwards; many children, children of children, forks from threads, vfork.
#include <pthread.h>
#include <sched.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/time.h>

#include <thread>

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
    return std::all_of(std::begin(all), std::end(all), [=](volatile int* one) { return *one == value; });
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
    for (size_t i = 0; i < length; i += 37 * kPage) *bytes(at, i + 8) = static_cast<unsigned char>(generation);
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

CASE(two_hundred_forks_in_a_row) {
  void* at = map_anonymous(64 * kPage);
  for (int i = 0; i < 200; ++i) {
    *bytes(at, static_cast<size_t>(i % 64) * kPage) = static_cast<unsigned char>(i);
    int status = run_child([=] { _exit(*bytes(at, static_cast<size_t>(i % 64) * kPage)); });
    REQUIRE(exited(status, i % 256));
  }
  munmap(at, 64 * kPage);
}

CASE(fifty_children_at_once) {
  Pipe go, ready;
  std::vector<pid_t> children;
  for (int i = 0; i < 50; ++i) {
    children.push_back(start_child([&, i] {
      go.close_write();
      ready.post();
      go.take();
      _exit(i);
    }));
  }
  for (int i = 0; i < 50; ++i) ready.take();
  for (size_t i = 0; i < 50; ++i) {
    for (size_t j = 0; j < i; ++j) REQUIRE(children[i] != children[j]);
  }
  go.close_write();
  for (int i = 0; i < 50; ++i) CHECK(exited(status_of(children[static_cast<size_t>(i)]), i));
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
    void* moved = mremap(offset(at, kLarge), kLarge, kLarge, MREMAP_MAYMOVE | MREMAP_FIXED, map_anonymous(kLarge));
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
  std::thread reader([&] { CHECK_EQ(read(pipe.in(), buffer + 100, 5000), 5000); });
  sleep_ms(3);
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

CASE(fork_from_a_thread_while_others_write) {
  const size_t length = kMiB;
  void* at = map_anonymous(length);
  std::atomic<bool> stop{false};
  std::vector<std::thread> writers;
  // Each writer keeps its pages' first and second word so that second <= first <= second + 1.
  for (size_t t = 0; t < 3; ++t) {
    writers.emplace_back([&, t] {
      for (uint64_t round = 1; !stop; ++round) {
        for (size_t i = t * kPage; i < length; i += 3 * kPage) {
          auto* words = reinterpret_cast<volatile uint64_t*>(offset(at, i));
          words[0] = round;
          words[100] = round;
        }
        sched_yield();
      }
    });
  }
  std::thread forker([&] {
    for (int i = 0; i < 10; ++i) {
      int status = run_child([&] {
        uint64_t before[256];
        for (size_t page = 0; page < 256; ++page) {
          auto* words = reinterpret_cast<volatile uint64_t*>(offset(at, page * kPage));
          before[page] = words[0];
          if (words[0] != words[100] && words[0] != words[100] + 1) _exit(2);
        }
        sched_yield();
        for (size_t page = 0; page < 256; ++page) {  // nobody writes in this copy
          if (*reinterpret_cast<volatile uint64_t*>(offset(at, page * kPage)) != before[page]) _exit(3);
        }
        _exit(0);
      });
      CHECK(exited(status));
    }
  });
  forker.join();
  stop = true;
  for (auto& thread : writers) thread.join();
  munmap(at, length);
}

CASE(only_the_forking_thread_exists_in_the_child) {
  std::atomic<bool> stop{false};
  std::atomic<int> ticks{0};
  std::thread other([&] {
    while (!stop) {
      ++ticks;
      sched_yield();
    }
  });
  while (ticks < 10) sched_yield();
  CHECK(exited(run_child([&] {
    int before = ticks;
    sleep_ms(5);
    CHECK_EQ(ticks.load(), before);
    CHECK_EQ(gettid(), getpid());
    std::thread([] { CHECK(gettid() != getpid()); }).join();  // new threads can be made
  })));
  stop = true;
  other.join();
}

CASE(atfork_handlers_run_in_order) {
  static std::string order;
  pthread_atfork([] { order += "p1 "; }, [] { order += "a1 "; }, [] { order += "c1 "; });
  pthread_atfork([] { order += "p2 "; }, [] { order += "a2 "; }, [] { order += "c2 "; });
  order.clear();
  CHECK(exited(run_child([] { CHECK(order == "p2 p1 c1 c2 "); })));
  CHECK(order == "p2 p1 a1 a2 ");
}

CASE(descriptors_share_their_offset_but_not_their_numbers) {
  int file = open("shared", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  REQUIRE(file != -1 && write(file, "abcdefgh", 8) == 8);
  lseek(file, 0, SEEK_SET);
  CHECK(exited(run_child([=] {
    char text[3];
    CHECK_EQ(read(file, text, 3), 3);
    CHECK(memcmp(text, "abc", 3) == 0);
    int copy = dup(file);
    CHECK(copy >= 0);
    close(file);
    CHECK_EQ(lseek(copy, 0, SEEK_CUR), 3);
  })));
  char text[3];
  CHECK_EQ(read(file, text, 3), 3);
  CHECK(memcmp(text, "def", 3) == 0);
  close(file);
  unlink("shared");
}

CASE(working_directory_and_mask_are_the_childs_own) {
  char before[4096], after[4096];
  REQUIRE(getcwd(before, sizeof before) != nullptr);
  mode_t mask = umask(022);
  CHECK(exited(run_child([] {
    CHECK_EQ(chdir("/"), 0);
    CHECK_EQ(umask(0), 022);
  })));
  CHECK_EQ(umask(mask), 022);
  REQUIRE(getcwd(after, sizeof after) != nullptr);
  CHECK(strcmp(before, after) == 0);
}

CASE(vfork_lets_the_parent_wait_and_see_the_childs_writes) {
  static volatile int value;
  for (int i = 0; i < 20; ++i) {
    value = 0;
    pid_t child = vfork();
    REQUIRE(child != -1);
    if (child == 0) {
      value = 7;
      sched_yield();
      value = 8;
      _exit(3);
    }
    REQUIRE(value == 8);
    REQUIRE(exited(status_of(child), 3));
  }
}

CASE(output_buffer_is_copied_too) {
  FILE* file = fopen("buffered", "w");
  REQUIRE(file != nullptr);
  fputs("once per process\n", file);
  CHECK(exited(run_child([=] { fflush(file); })));
  fclose(file);
  CHECK(read_all("buffered") == "once per process\nonce per process\n");
  unlink("buffered");
}

CHECK_MAIN
