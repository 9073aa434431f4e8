// What fork does with the rest of a process: numbers of children, threads, descriptors, directory,
// handlers, buffers of the library; vfork.
#include <pthread.h>
#include <sched.h>
#include <sys/stat.h>

#include <atomic>
#include <thread>

#include "support.h"

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

// The child shares the memory, and what it takes away another thread of the parent must miss,
// though that thread computes and the one that called vfork waits.
CASE(child_of_vfork_changes_memory_that_another_thread_reads) {
  void* at = map_anonymous(2 * kPage);
  std::atomic<bool> seen{false}, changed{false};
  std::thread reader([&] {
    while (*bytes(at) == 0) seen = true;
    while (!changed) {
    }
  });
  while (!seen) sched_yield();
  pid_t child = vfork();
  if (child == 0) {
    mprotect(at, kPage, PROT_READ);
    mprotect(at, kPage, PROT_READ | PROT_WRITE);
    munmap(offset(at, kPage), kPage);
    *bytes(at) = 1;
    changed = true;
    _exit(7);
  }
  CHECK(exited(status_of(child), 7));
  reader.join();
  munmap(at, kPage);
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
          if (*reinterpret_cast<volatile uint64_t*>(offset(at, page * kPage)) != before[page])
            _exit(3);
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

CASE(sleep_of_a_child_outlasts_the_thread_that_forked_it) {
  // A host thread that is reused is given up after a second.
  pid_t children[2] = {-1, -1};
  std::thread([&] {
    children[0] = start_child([] { CHECK_EQ(poll(nullptr, 0, 1500), 0); });
    children[1] = start_child([] {
      const timespec time = {1, 500'000'000};
      CHECK_EQ(nanosleep(&time, nullptr), 0);
    });
  }).join();
  for (pid_t child : children) CHECK(exited(status_of(child)));
}

CASE(end_of_a_process_with_one_thread_leaves_its_word_alone) {
  auto* word = static_cast<std::atomic<int>*>(
      mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  REQUIRE(word != MAP_FAILED);
  CHECK(exited(run_child([=] {
    word->store(7);
    syscall(SYS_set_tid_address, word);
  })));
  CHECK_EQ(word->load(), 7);
  munmap(word, kPage);
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
